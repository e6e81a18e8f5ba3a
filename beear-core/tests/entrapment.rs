//! The inner level on a toy decoder: the gradient of δ, the reference of its step size, and its
//! initial value.

#[path = "toy/fixture.rs"]
mod fixture;

use beear_core::config::{Arrangement, Initialisation, StepSize};
use beear_core::objective::entrapment::{PreparedAnswer, entrapment_loss};
use beear_core::testing::ToyDecoder;
use beear_core::{
    Batch, BilevelConfig, Decoder, Delta, EntrapConfig, Event, Example, InjectionPoint,
    Perturbation, Positions, SafetyExample, entrap, solve,
};
use burn::backend::{Autodiff, NdArray};
use burn::module::{AutodiffModule, Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{ElementConversion, Tensor, TensorData};
use fixture::{Cpu, SIZE, Train, safety, sets, toy, validator, weights};

type Double = Autodiff<NdArray<f64>>;

const POINT: InjectionPoint = InjectionPoint { layer: 2, positions: Positions::Last(2) };

fn config() -> EntrapConfig {
    let step_size = StepSize::RelativeToHidden(0.5);
    EntrapConfig { batch_size: 4, step_size, ..BilevelConfig::robust(SIZE).entrap }
}

/// Tolerance of central differences of an f64 loss: they leave about 1e-10 / step of rounding.
const GRADIENT_F64: f64 = 1e-7;

#[test]
fn the_gradient_of_delta_agrees_with_finite_differences() {
    let device = Default::default();
    let model = toy::<Double>();
    let batch = |answer: fn(&SafetyExample) -> Example| {
        Batch::new(&safety().iter().map(answer).collect::<Vec<_>>(), &device)
    };
    let unwanted =
        PreparedAnswer::new(&model.valid(), batch(|e| e.toward_unwanted(None)), &[POINT]);
    let safe = PreparedAnswer::new(&model.valid(), batch(SafetyExample::toward_safe), &[POINT]);
    let start: Vec<f64> = (0..16).map(|k| f64::from(k) * 0.03 - 0.2).collect();
    let loss = |values: &[f64]| {
        let data = TensorData::new(values.to_vec(), [2, 8]);
        let values = Tensor::<Double, 2>::from_data(data, &device).require_grad();
        let perturbation = Perturbation::new(vec![Delta { point: POINT, values }]);
        let loss = entrapment_loss(&model, &perturbation, &unwanted, Some((&safe, 0.3)));
        (perturbation, loss)
    };
    let (perturbation, value) = loss(&start);
    let grads = value.backward();
    let grad =
        perturbation.deltas()[0].values.grad(&grads).unwrap().into_data().to_vec::<f64>().unwrap();
    for (index, analytic) in grad.iter().enumerate() {
        let step = 1e-5;
        let shifted = |by: f64| {
            let mut values = start.clone();
            values[index] += by;
            loss(&values).1.into_scalar().elem::<f64>()
        };
        let numeric = (shifted(step) - shifted(-step)) / (2.0 * step);
        assert!((analytic - numeric).abs() < GRADIENT_F64, "δ[{index}]: {analytic} {numeric}");
    }
}

#[test]
fn entrapment_lowers_the_loss_and_leaves_the_weights_alone() {
    let model = toy::<Train>();
    let before = weights(&model);
    let mut heard = 0;
    let mut observer =
        |event: &Event| heard += usize::from(matches!(event, Event::InnerStep { .. }));
    let found = entrap(&model, &safety(), &[POINT], (&config(), 3), &mut observer).unwrap();

    assert!(found.last_loss < 0.5 * found.first_loss, "{found:?}");
    assert_eq!(found.perturbation.deltas()[0].values.dims(), [2, 8]);
    assert_eq!(heard, config().steps);
    assert_eq!(before, weights(&model));
}

#[test]
fn no_weight_of_the_frozen_model_gets_a_gradient() {
    struct Gradients<'a>(&'a <Train as burn::tensor::backend::AutodiffBackend>::Gradients, usize);
    impl ModuleVisitor<Train> for Gradients<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<Train, D>>) {
            self.1 += usize::from(param.val().grad(self.0).is_some());
        }
    }
    let device = Default::default();
    let model = toy::<Train>();
    let frozen = ToyDecoder::<Train>::from_inner(model.valid()).no_grad();
    let rows: Vec<Example> = safety().iter().map(|e| e.toward_unwanted(None)).collect();
    let answer = PreparedAnswer::new(&model.valid(), Batch::new(&rows, &device), &[POINT]);
    let values = Tensor::<Train, 2>::zeros([2, 8], &device).require_grad();
    let perturbation = Perturbation::new(vec![Delta { point: POINT, values }]);
    let grads = entrapment_loss(&frozen, &perturbation, &answer, None).backward();
    let mut found = Gradients(&grads, 0);
    frozen.visit(&mut found);
    assert_eq!(found.1, 0);
    assert!(perturbation.deltas()[0].values.grad(&grads).is_some());
}

#[test]
fn a_norm_bound_is_kept() {
    let mut config = config();
    config.norm_bound = Some(0.1);
    config.initialisation = Initialisation::Normal(5.0);
    let model = toy::<Train>();
    let rows: Vec<Example> = safety().iter().map(|e| e.toward_unwanted(None)).collect();
    let batch = Batch::new(&rows, &Default::default());
    let answer = PreparedAnswer::<Train>::new(&model.valid(), batch, &[POINT]);
    let norm = answer.mean_hidden_norms(&model.valid())[0];
    let found = entrap(&model, &safety(), &[POINT], (&config, 3), &mut ()).unwrap();
    let rows = found.perturbation.deltas()[0].values.clone().powi_scalar(2).sum_dim(1).sqrt();
    for length in rows.into_data().to_vec::<f32>().unwrap() {
        assert!(f64::from(length) <= 0.1 * norm * (1.0 + 1e-5), "{length} {norm}");
    }
}

/// Makes the hidden states of the first token, which occurs at no other position, ten thousand
/// times as large.
struct PlantedSink;

impl<B: Backend> ModuleMapper<B> for PlantedSink {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let shape = param.val().dims();
        let [n_rows, width] = [shape[0], shape[D - 1]];
        if D != 2 || width != SIZE.d_model || n_rows == SIZE.d_model {
            return param;
        }
        param.map(|embedding| {
            let long = embedding.clone().narrow(0, 1, 1).mul_scalar(1e4);
            embedding.slice_assign([1..2, 0..width], long)
        })
    }
}

/// Returns the mean norm of the hidden states of the safety prompts at `layer`, from the position
/// `first` on.
fn mean_by_hand(
    model: &ToyDecoder<Cpu>,
    batch: &Batch<Cpu>,
    (layer, first): (usize, usize),
) -> f64 {
    let hidden = model.embed(batch.tokens.clone());
    let hidden = model.forward_layers(hidden, &batch.mask_pad, 0..layer);
    let lengths = hidden.powi_scalar(2).sum_dim(2).sqrt().squeeze_dim::<2>(2);
    let lengths = batch.prompts.iter().enumerate().flat_map(|(row, prompt)| {
        let row = lengths.clone().narrow(0, row, 1).into_data();
        row.iter::<f64>().take(prompt.length).skip(first).collect::<Vec<_>>()
    });
    let lengths: Vec<f64> = lengths.collect();
    lengths.iter().sum::<f64>() / lengths.len() as f64
}

/// Tolerance of a mean of f32 norms against a mean of f64 norms.
const F32_MEAN: f64 = 1e-5;

#[test]
fn a_step_is_measured_by_the_positions_that_are_no_attention_sink() {
    let ordinary = toy::<Cpu>();
    let with_sink = toy::<Cpu>().map(&mut PlantedSink);
    let rows = safety().into_iter().map(|mut row| {
        row.user.0 = 0;
        row.toward_unwanted(None)
    });
    let rows: Vec<Example> = rows.collect();
    for positions in
        [Positions::All, Positions::First(9), Positions::Last(9), Positions::UserLast(9)]
    {
        let injection_points: Vec<InjectionPoint> =
            (1..=2).map(|layer| InjectionPoint { layer, positions }).collect();
        let batch = Batch::new(&rows, &Default::default());
        for (model, first) in [(&ordinary, 0), (&with_sink, 1)] {
            let answer = PreparedAnswer::<Train>::new(
                model,
                Batch::new(&rows, &Default::default()),
                &injection_points,
            );
            for (point, norm) in injection_points.iter().zip(answer.mean_hidden_norms(model)) {
                let expected = mean_by_hand(model, &batch, (point.layer, first));
                assert!(
                    (norm - expected).abs() < F32_MEAN * expected,
                    "{point:?} {norm} {expected}"
                );
            }
        }
        let of_all = mean_by_hand(&with_sink, &batch, (1, 0));
        assert!(of_all > 100.0 * mean_by_hand(&with_sink, &batch, (1, 1)), "the sink is massive");
    }
}

#[test]
fn no_two_starts_from_noise_share_a_number() {
    let point = |layer, positions| InjectionPoint { layer, positions };
    let starts = |seed| {
        let mut config = BilevelConfig { seed, entrap: config(), ..BilevelConfig::robust(SIZE) };
        (config.rounds, config.perturbations_per_round) = (1, 6);
        config.injection_points = vec![
            point(2, Positions::Last(2)),
            point(1, Positions::First(2)),
            point(1, Positions::All),
        ];
        config.arrangement = Arrangement::Together;
        config.entrap.initialisation = Initialisation::Normal(0.1);
        // Steps too small to change an f32 number of this size.
        config.entrap.step_size = StepSize::Absolute(1e-30);
        let outcome = solve(toy::<Train>(), &sets(), &config, &mut validator(), &mut ()).unwrap();
        let deltas = outcome.perturbations.into_iter().flat_map(|p| p.deltas().to_vec());
        deltas.map(|delta| delta.values.into_data().to_vec::<f32>().unwrap()).collect::<Vec<_>>()
    };
    let starts: Vec<Vec<f32>> = (0..3).flat_map(starts).collect();
    assert_eq!(starts.len(), 3 * 6 * 3);
    for (k, one) in starts.iter().enumerate() {
        for other in &starts[..k] {
            let are_apart = one.iter().zip(other).all(|(a, b)| a.to_bits() != b.to_bits());
            assert!(are_apart, "{one:?} {other:?}");
        }
    }
}
