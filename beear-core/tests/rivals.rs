//! The baselines on a toy decoder: their losses in f64, their bounds, and their effects.

#[path = "toy/fixture.rs"]
mod fixture;
#[path = "toy/poison.rs"]
mod poison;

use beear_core::baselines::latent_adversarial::{AnswerPair, AttackConfig, AttackLoss, attack};
use beear_core::baselines::layer_consistency::{inconsistency, push};
use beear_core::baselines::sample_perturbation::{PromptMask, SamplePerturbation};
use beear_core::config::StepSize;
use beear_core::error::{Level, Quantity};
use beear_core::objective::answer::{cross_entropy, log_probabilities};
use beear_core::testing::ToyDecoder;
use beear_core::{
    AnchorSets, Batch, BilevelConfig, Decoder, DecoderSize, Defence, Error, Event, Example,
    FineTuningConfig, LatentAdversarialConfig, LayerConsistencyConfig, Outcome, RemoveConfig,
    SafetyExample,
};
use burn::backend::{Autodiff, NdArray};
use burn::module::{AutodiffModule, Module, ModuleMapper, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{ElementConversion, Tensor, TensorData};

use fixture::{Cpu, SIZE, Train, safety, sets, toy, validator, weights};
use poison::Poison;

type Double = Autodiff<NdArray<f64>>;

/// A loss of a perturbation.
type Loss<'a> = dyn Fn(&SamplePerturbation<Double>) -> Tensor<Double, 1> + 'a;

/// Tolerance of central differences of an f64 loss: they leave about 1e-10 / step of rounding.
const GRADIENT_F64: f64 = 1e-7;

/// Returns settings for a toy decoder.
fn remove() -> RemoveConfig {
    RemoveConfig {
        steps: 60,
        learning_rate: 2e-2,
        safety_batch_size: 4,
        performance_batch_size: 2,
        divergence_weight: 0.0,
        threads: 1,
        ..BilevelConfig::robust(SIZE).remove
    }
}

fn latent_adversarial() -> LatentAdversarialConfig {
    let default = LatentAdversarialConfig::new(SIZE);
    let attack = AttackConfig { norm_bound: 0.5, ..default.attack };
    LatentAdversarialConfig { attack, remove: remove(), ..default }
}

fn layer_consistency() -> LayerConsistencyConfig {
    LayerConsistencyConfig {
        consistency_weight: 0.5,
        remove: remove(),
        ..LayerConsistencyConfig::new(SIZE)
    }
}

fn defences() -> [Defence; 3] {
    let fine_tuning = FineTuningConfig { remove: remove(), ..FineTuningConfig::new(SIZE) };
    [
        Defence::LatentAdversarial(latent_adversarial()),
        Defence::LayerConsistency(layer_consistency()),
        Defence::FineTuning(fine_tuning),
    ]
}

/// Returns both answers to the four prompts of the fixture, the longest of which has 5 tokens.
fn answers<B: Backend>() -> AnswerPair<B> {
    let safety = safety();
    AnswerPair::new(&safety.iter().collect::<Vec<_>>(), &Default::default())
}

/// Returns a batch of rows of both sets, of unequal length.
fn mixed<B: Backend>() -> Batch<B> {
    let safe = safety().into_iter().map(|example| example.toward_safe());
    let rows: Vec<Example> = safe.chain(sets().performance).collect();
    Batch::new(&rows, &Default::default())
}

/// Compares a gradient with central differences, at every third of `start`'s values.
fn assert_gradient(start: &[f64], grad: &[f64], loss: impl Fn(&[f64]) -> f64) {
    assert!(grad.iter().any(|value| value.abs() > 1e3 * GRADIENT_F64), "the loss has a slope");
    for index in (0..start.len()).step_by(3) {
        let step = 1e-5;
        let shifted = |by: f64| {
            let mut values = start.to_vec();
            values[index] += by;
            loss(&values)
        };
        let numeric = (shifted(step) - shifted(-step)) / (2.0 * step);
        let analytic = grad[index];
        assert!((analytic - numeric).abs() < GRADIENT_F64, "[{index}]: {analytic} {numeric}");
    }
}

fn ramp(n: usize) -> Vec<f64> {
    (0..n).map(|k| ((k * 37) % 101) as f64 * 0.005 - 0.25).collect()
}

#[test]
fn the_gradients_of_the_attack_and_of_the_defence_against_it_agree_with_finite_differences() {
    let device = Default::default();
    let model = toy::<Double>();
    let answers = answers::<Double>();
    let config = AttackConfig { layers: vec![1, 2], ..latent_adversarial().attack };
    let attacking = AttackLoss::new(&model.valid(), &answers, &config);
    let prompts = PromptMask::new(&answers.safe);
    let [batch_size, prompt_length] = prompts.size();
    assert_eq!([batch_size, prompt_length], [4, 5]);
    let n_values = batch_size * prompt_length * SIZE.d_model;
    let perturbed = |values: &[f64]| {
        let part = |values: &[f64]| {
            let data = TensorData::new(values.to_vec(), [n_values / SIZE.d_model, SIZE.d_model]);
            Tensor::<Double, 2>::from_data(data, &device).require_grad()
        };
        let parts = values.chunks(n_values).map(part).collect();
        SamplePerturbation::new(vec![1, 2], parts, prompts.clone())
    };
    let attack_loss = |p: &SamplePerturbation<Double>| attacking.under(&model, p);
    let defence_loss = |p: &SamplePerturbation<Double>| {
        let (toward, away) = answers.resist(&model, p);
        toward + away.mul_scalar(0.7)
    };
    let losses: [&Loss; 2] = [&attack_loss, &defence_loss];
    let start = ramp(2 * n_values);
    for loss in losses {
        let perturbation = perturbed(&start);
        let grads = loss(&perturbation).backward();
        let grad = |values: &Tensor<Double, 2>| {
            values.grad(&grads).unwrap().into_data().to_vec::<f64>().unwrap()
        };
        let grad: Vec<f64> = perturbation.values().iter().flat_map(grad).collect();
        assert_gradient(&start, &grad, |values| loss(&perturbed(values)).into_scalar().elem());
    }
}

#[test]
fn the_gradient_of_the_inconsistency_agrees_with_finite_differences() {
    let device = Default::default();
    let model = toy::<Double>();
    let batch = mixed::<Double>();
    let shape = model.embed(batch.tokens.clone()).dims();
    let start = ramp(shape.iter().product());
    let embedded = |values: &[f64]| {
        Tensor::<Double, 3>::from_data(TensorData::new(values.to_vec(), shape), &device)
            .require_grad()
    };
    let leaf = embedded(&start);
    let grads = inconsistency(&model, leaf.clone(), &batch.mask_pad).backward();
    let grad = leaf.grad(&grads).unwrap().into_data().to_vec::<f64>().unwrap();
    assert_gradient(&start, &grad, |values| {
        inconsistency(&model, embedded(values), &batch.mask_pad).into_scalar().elem()
    });
}

/// Sets the weights inside the layers to 0, so that each layer is the identity.
struct Still;

impl<B: Backend> ModuleMapper<B> for Still {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let inside = param.val().dims().iter().all(|&size| size == SIZE.d_model);
        if inside { param.map(|tensor| tensor.mul_scalar(0.0)) } else { param }
    }
}

#[test]
fn identical_layers_are_consistent_and_others_are_not() {
    let batch = mixed::<Cpu>();
    let of = |model: &ToyDecoder<Cpu>| -> f64 {
        let embedded = model.embed(batch.tokens.clone());
        inconsistency(model, embedded, &batch.mask_pad).into_scalar().elem()
    };
    assert!(of(&toy::<Cpu>().map(&mut Still)).abs() < 1e-6);
    assert!(of(&toy()) > 1e-2);
}

#[test]
fn a_push_raises_the_inconsistency_by_steps_of_one_size_and_spares_padding() {
    let model = toy::<Train>();
    let before = weights(&model);
    let batch = mixed::<Train>();
    let pushed = push(&model, &batch, StepSize::Absolute(0.1));
    let inner = batch.inner();
    let embedded = model.valid().embed(inner.tokens);
    let of = |embedded| -> f64 {
        inconsistency(&model.valid(), embedded, &inner.mask_pad).into_scalar().elem()
    };
    assert!(of(embedded.clone() + pushed.clone()) > of(embedded.clone()));
    assert_eq!(before, weights(&model));

    let padding: Vec<bool> = inner.mask_pad.into_data().iter().collect();
    let values: Vec<f32> = pushed.into_data().iter().collect();
    for (position, row) in values.chunks(SIZE.d_model).enumerate() {
        let size = if padding[position] { 0.0 } else { 0.1 };
        assert!(row.iter().all(|value| (value.abs() - size).abs() < 1e-6), "{position}: {row:?}");
    }
}

/// Returns the cross-entropy of the safe answers under `perturbation`.
fn safe_loss(model: &ToyDecoder<Train>, perturbation: &SamplePerturbation<Cpu>) -> f64 {
    let perturbation = SamplePerturbation::<Train>::constant(perturbation);
    answers().resist(model, &perturbation).0.into_scalar().elem()
}

#[test]
fn an_attack_keeps_its_bound_and_to_the_prompts_and_leads_to_the_unwanted_answer() {
    let model = toy::<Train>();
    let before = weights(&model);
    let answers = answers::<Train>();
    let config = AttackConfig {
        step_size: StepSize::RelativeToHidden(0.4),
        norm_bound: 0.5,
        layers: vec![1, 2],
        ..latent_adversarial().attack
    };
    let mut losses = Vec::new();
    let mut observer = |event: &Event| {
        if let Event::InnerStep { loss, .. } = event {
            losses.push(*loss);
        }
    };
    let found = attack(&model, &answers, &config, &mut observer).unwrap();
    assert_eq!(losses.len(), config.steps);
    assert!(losses.last().unwrap() < &(0.8 * losses[0]), "{losses:?}");
    assert_eq!(before, weights(&model));

    let inner = answers.safe.inner();
    let prompts = PromptMask::new(&inner);
    let inference = model.valid();
    for (values, layer) in found.values().iter().zip([1, 2]) {
        let hidden = inference.embed(inner.tokens.clone());
        let hidden = inference.forward_layers(hidden, &inner.mask_pad, 0..layer);
        let bound = 0.5 * prompts.mean_norm(hidden);
        let rows = values.clone().powi_scalar(2).sum_dim(1).sqrt().into_data();
        let rows: Vec<f32> = rows.iter().collect();
        for (row, length) in rows.iter().enumerate() {
            let (prompt, position) = (row / 5, row % 5);
            let is_prompt = position < safety()[prompt].prompt.len();
            assert!(f64::from(*length) <= bound * (1.0 + 1e-5), "{length} {bound}");
            assert_eq!(*length > 0.0, is_prompt, "{prompt} {position}");
        }
        let longest = rows.iter().copied().fold(0.0, f32::max);
        assert!(f64::from(longest) > 0.99 * bound, "steps this large reach the bound");
    }
}

fn run(defence: &Defence) -> (Outcome<Train, ToyDecoder<Train>>, Vec<Event>) {
    let mut events = Vec::new();
    let mut observer = |event: &Event| events.push(event.clone());
    let outcome = defence.run(toy(), &sets(), &mut validator(), &mut observer);
    let outcome = outcome.expect("finite numbers");
    (outcome, events)
}

#[test]
fn every_rival_learns_both_sets_in_one_round() {
    for defence in defences() {
        let (outcome, events) = run(&defence);
        let [round] = outcome.rounds.as_slice() else { panic!("{:?}", outcome.rounds) };
        let [loss, refusal] = [round.validation.loss, round.validation.refusal].map(Option::unwrap);
        assert!(loss.after < 0.1 && refusal.after > 0.99, "{round:?}");
        assert!(outcome.initial.summary().loss > 1.0, "{:?}", outcome.initial);
        assert!(round.within_bounds && outcome.perturbations.is_empty());
        let steps = |event: &&Event| matches!(event, Event::OuterStep { .. });
        assert_eq!(events.iter().filter(steps).count(), defence.n_weight_steps());
        assert!(matches!(events[0], Event::Started { .. }));
        assert!(matches!(events.last(), Some(Event::RoundEnded { kept: true, .. })));

        let model = outcome.model.valid();
        let loss = |rows: &[Example]| -> f64 {
            let batch = Batch::new(rows, &Default::default());
            let of = |model: &ToyDecoder<Cpu>| -> f64 {
                let hidden = model.embed(batch.tokens.clone());
                let hidden = model.forward_layers(hidden, &batch.mask_pad, 0..SIZE.n_layers);
                let log_probabilities = log_probabilities(model, hidden, &batch);
                cross_entropy(log_probabilities, batch.targets.clone()).into_scalar().elem()
            };
            of(&model) / of(&toy())
        };
        let safe: Vec<Example> = safety().iter().map(SafetyExample::toward_safe).collect();
        assert!(loss(&safe) < 0.2 && loss(&sets().performance) < 0.2, "{defence:?}");
    }
}

#[test]
fn latent_adversarial_training_holds_under_attacks_where_fine_tuning_does_not() {
    let [latent, _, fine_tuning] = defences().map(|defence| run(&defence).0.model);
    let config = latent_adversarial().attack;
    let under_attack =
        |model| safe_loss(model, &attack(model, &answers(), &config, &mut ()).unwrap());
    let (hardened, plain) = (under_attack(&latent), under_attack(&fine_tuning));
    assert!(hardened < 0.5 * plain, "{hardened} {plain}");
}

#[test]
fn layer_consistency_leaves_more_consistent_layers_than_fine_tuning() {
    let [_, consistent, fine_tuning] = defences().map(|defence| run(&defence).0.model.valid());
    let batch = mixed::<Cpu>();
    let of = |model: &ToyDecoder<Cpu>| -> f64 {
        let embedded = model.embed(batch.tokens.clone());
        inconsistency(model, embedded, &batch.mask_pad).into_scalar().elem()
    };
    assert!(of(&consistent) < 0.5 * of(&fine_tuning));
}

#[test]
fn the_same_seed_gives_the_same_events() {
    for defence in defences() {
        assert_eq!(run(&defence).1, run(&defence).1);
    }
}

#[test]
fn a_non_finite_loss_stops_every_rival_with_the_examples_of_the_batch() {
    let levels = [Level::Inner, Level::Outer, Level::Outer];
    for (defence, expected) in defences().into_iter().zip(levels) {
        let model = toy::<Train>().map(&mut Poison);
        let mut no_rows = validator();
        (no_rows.safety, no_rows.performance) = (Vec::new(), Vec::new());
        let Err(stopped) = defence.run(model, &sets(), &mut no_rows, &mut ()) else {
            panic!("NaN weights cannot be cleaned");
        };
        let Error::NonFinite { quantity, level, step, safety, performance } = stopped.error else {
            panic!("{:?}", stopped.error);
        };
        assert_eq!((quantity, level, step), (Quantity::Loss, expected, 0));
        let named = |ids: &[u64], known: &[u64]| known.iter().all(|id| ids.contains(id));
        assert!(named(&safety, &[10, 11, 12, 13]), "{safety:?}");
        assert_eq!(named(&performance, &[1, 2]), level == Level::Outer, "{performance:?}");
        assert!(stopped.rounds.is_empty());
    }
}

#[test]
fn sets_and_settings_are_judged_before_the_first_step() {
    let empty = AnchorSets { performance: Vec::new(), ..sets() };
    for defence in defences() {
        let stopped = defence.run(toy::<Train>(), &empty, &mut validator(), &mut ()).map(|_| ());
        assert_eq!(stopped.unwrap_err().error, Error::EmptySet { set: "performance" });
    }
    let mut latent = latent_adversarial();
    latent.attack.layers = vec![1, 4];
    assert_eq!(latent.validate(3), Err(Error::LayerOutOfRange { layer: 4, n_layers: 3 }));
    latent.attack.layers = Vec::new();
    latent.remove.learning_rate = 0.0;
    let Err(Error::InvalidConfig { problems }) = latent.validate(3) else { panic!("invalid") };
    assert_eq!(problems.len(), 2, "{problems:?}");
    let Err(Error::InvalidConfig { problems }) = layer_consistency().validate(1) else {
        panic!("one layer has no neighbour");
    };
    assert_eq!(problems.len(), 1, "{problems:?}");
    let (mut latent, mut consistency) = (latent_adversarial(), layer_consistency());
    (latent.remove.threads, consistency.remove.threads) = (2, 2);
    for refused in [latent.validate(3), consistency.validate(3)] {
        let Err(Error::InvalidConfig { problems }) = refused else { panic!("threads") };
        assert_eq!(problems, ["remove.threads is for the methods beear and fine-tuning"]);
    }
}

#[test]
fn every_default_is_valid_and_costs_as_many_steps_as_beear() {
    for n_layers in 2..=48 {
        let size = DecoderSize { n_layers, d_model: 64 };
        let beear = Defence::Beear(BilevelConfig::robust(size));
        let rivals = [
            Defence::LatentAdversarial(LatentAdversarialConfig::new(size)),
            Defence::LayerConsistency(LayerConsistencyConfig::new(size)),
            Defence::FineTuning(FineTuningConfig::new(size)),
        ];
        for rival in rivals {
            rival.validate(n_layers).unwrap();
            assert_eq!(rival.n_weight_steps(), beear.n_weight_steps());
        }
    }
    let size = DecoderSize { n_layers: 32, d_model: 4096 };
    assert_eq!(LatentAdversarialConfig::new(size).attack.layers, [5, 13, 21, 29]);
}
