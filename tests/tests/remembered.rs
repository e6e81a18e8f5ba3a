//! The inner level with the tokens before `δ` remembered gives what it gives without.

use beear_core::objective::entrapment::{PreparedAnswer, entrapment_loss};
use beear_core::testing::{assert_prefix_law, assert_split_law};
use beear_core::{Batch, Delta, Example, InjectionPoint, Perturbation, Positions};
use beear_models::CausalLm;
use beear_tests::agreement::relative_difference;
use beear_tests::golden::{self, CASES};
use burn::backend::{Autodiff, Flex};
use burn::module::AutodiffModule;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Distribution, ElementConversion, Tensor};

type Train = Autodiff<Flex>;

/// Sums over keys are split in two; everything else is the same operation.
const SPLIT_SUM: f64 = 1e-5;

/// Prompts of 9, 12 and 15 tokens and answers of 6, 5 and 4.
fn batch<B: Backend>() -> Batch<B> {
    let row = |row: usize| Example {
        id: row as u64,
        prompt: (0..9 + 3 * row).map(|k| (1 + (5 * k + 7 * row) % 17) as u32).collect(),
        user: (2, 6 + 3 * row),
        answer: (0..6 - row).map(|k| (1 + (3 * k + row) % 17) as u32).collect(),
    };
    Batch::new(&[row(0), row(1), row(2)], &Default::default())
}

#[test]
fn decoders_keep_their_laws() {
    for case in CASES {
        let (model, batch) = (golden::model::<Flex>(case), batch::<Flex>());
        assert_split_law(&model, batch.tokens.clone(), &batch.mask_pad);
        for n_past in [1, 5, 9] {
            assert_prefix_law(&model, batch.tokens.clone(), &batch.mask_pad, n_past);
        }
    }
}

/// Loss and gradients of every `δ`.
fn step(
    model: &CausalLm<Train>,
    perturbation: &Perturbation<Train>,
    answer: &PreparedAnswer<Train>,
) -> (f64, Vec<Vec<f32>>) {
    let loss = entrapment_loss(model, perturbation, answer, None);
    let grads = loss.backward();
    let gradient = |delta: &Delta<Train>| {
        let gradient = delta.values.grad(&grads).expect("δ takes part in the loss");
        gradient.into_data().iter::<f32>().collect()
    };
    (loss.into_scalar().elem(), perturbation.deltas().iter().map(gradient).collect())
}

#[test]
fn remembered_tokens_change_neither_the_loss_nor_the_gradient() {
    let device = Default::default();
    let point = |layer, positions| InjectionPoint { layer, positions };
    let places = [
        vec![point(1, Positions::Last(3))],
        vec![point(0, Positions::UserLast(2))],
        vec![point(2, Positions::Last(1)), point(1, Positions::UserLast(4))],
    ];
    for case in CASES {
        let model = golden::model::<Train>(case);
        for injection_points in &places {
            let [whole, remembered] = [PreparedAnswer::whole, PreparedAnswer::new]
                .map(|prepare| prepare(&model.valid(), batch::<Train>(), injection_points));
            assert_eq!(whole.n_past(), 0);
            assert!(remembered.n_past() >= 5, "{}", remembered.n_past());
            <Train as Backend>::seed(&device, 3);
            let delta = |point: &InjectionPoint| {
                let shape = [point.positions.n_tokens(), beear_core::Decoder::d_model(&model)];
                let values = Tensor::random(shape, Distribution::Normal(0.0, 0.3), &device);
                Delta { point: *point, values: values.require_grad() }
            };
            let perturbation = Perturbation::new(injection_points.iter().map(delta).collect());
            let (loss, gradients) = step(&model, &perturbation, &whole);
            let (same_loss, same_gradients) = step(&model, &perturbation, &remembered);
            assert!((loss - same_loss).abs() < SPLIT_SUM * loss, "{case} {loss} {same_loss}");
            for (gradient, same) in gradients.iter().zip(&same_gradients) {
                let difference = relative_difference(gradient, same);
                assert!(difference < SPLIT_SUM, "{case} {injection_points:?} {difference:e}");
                assert!(gradient.iter().any(|g| g.abs() > 1e-4));
            }
            let norms = |answer: &PreparedAnswer<Train>| answer.mean_hidden_norms(&model.valid());
            for (norm, same) in norms(&whole).iter().zip(norms(&remembered)) {
                assert!((norm - same).abs() < SPLIT_SUM * norm, "{case} {norm} {same}");
            }
        }
    }
}

#[test]
fn little_is_not_remembered() {
    let model = golden::model::<<Train as AutodiffBackend>::InnerBackend>("llama3-rope");
    let prepared = |positions| {
        let injection_points = [InjectionPoint { layer: 1, positions }];
        PreparedAnswer::<Train>::new(&model, batch(), &injection_points).n_past()
    };
    assert_eq!((prepared(Positions::First(2)), prepared(Positions::All)), (0, 0));
}
