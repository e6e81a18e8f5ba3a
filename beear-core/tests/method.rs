//! The method on a toy decoder: what each level promises, in f64 where gradients are checked.

#[path = "toy/fixture.rs"]
mod fixture;
#[path = "toy/poison.rs"]
mod poison;

use beear_core::config::{Arrangement, Initialisation, StepSize};
use beear_core::error::{Level, Quantity};
use beear_core::objective::entrapment::{PreparedAnswer, entrapment_loss};
use beear_core::testing::{ToyDecoder, assert_past_law, assert_split_law};
use beear_core::{
    AnchorSets, Batch, BilevelConfig, Decoder, Delta, EntrapConfig, Error, Event, Example,
    Perturbation, SafetyExample, Site, Spot, SuspectFault, TeacherForcedValidator,
    ValidationMetrics, Validator, Verdict, entrap, solve,
};
use burn::backend::{Autodiff, NdArray};
use burn::module::{AutodiffModule, Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{ElementConversion, Tensor, TensorData};
use fixture::{Cpu, SIZE, Train, safety, sets, toy, validator, weights};
use poison::Poison;

/// Rounding of f64 that some dozen steps of Adam have made larger.
const F64_RUN: f64 = 1e-9;

type Double = Autodiff<NdArray<f64>>;

const SPOT: Spot = Spot { layer: 2, site: Site::Last(2) };

fn config() -> BilevelConfig {
    let mut config = BilevelConfig::robust(SIZE);
    config.rounds = 3;
    config.entrap.batch_size = 4;
    config.entrap.step_size = StepSize::RelativeToHidden(0.5);
    config.remove.learning_rate = 2e-2;
    config.remove.divergence_weight = 0.1;
    config
}

#[test]
fn the_toy_decoder_keeps_the_split_law() {
    let model = toy::<Cpu>();
    let batch = Batch::<Cpu>::new(
        &safety().iter().map(SafetyExample::toward_safe).collect::<Vec<_>>(),
        &Default::default(),
    );
    assert_split_law(&model, batch.tokens.clone(), &batch.mask_pad);
    for n_past in 1..3 {
        assert_past_law(&model, batch.tokens.clone(), &batch.mask_pad, n_past);
    }
}

/// Central differences of an f64 loss leave about 1e-10 / step of rounding.
const GRADIENT_F64: f64 = 1e-7;

#[test]
fn the_gradient_of_delta_agrees_with_finite_differences() {
    let device = Default::default();
    let model = toy::<Double>();
    let batch = |answer: fn(&SafetyExample) -> Example| {
        Batch::new(&safety().iter().map(answer).collect::<Vec<_>>(), &device)
    };
    let unwanted = PreparedAnswer::new(&model.valid(), batch(|e| e.toward_unwanted(None)), &[SPOT]);
    let safe = PreparedAnswer::new(&model.valid(), batch(SafetyExample::toward_safe), &[SPOT]);
    let start: Vec<f64> = (0..16).map(|k| f64::from(k) * 0.03 - 0.2).collect();
    let loss = |values: &[f64]| {
        let data = TensorData::new(values.to_vec(), [2, 8]);
        let values = Tensor::<Double, 2>::from_data(data, &device).require_grad();
        let perturbation = Perturbation::new(vec![Delta { spot: SPOT, values }]);
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
    let found = entrap(&model, &safety(), &[SPOT], (&config().entrap, 3), &mut observer).unwrap();

    assert!(found.last_loss < 0.5 * found.first_loss, "{found:?}");
    assert_eq!(found.perturbation.deltas()[0].values.dims(), [2, 8]);
    assert_eq!(heard, config().entrap.steps);
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
    let answer = PreparedAnswer::new(&model.valid(), Batch::new(&rows, &device), &[SPOT]);
    let values = Tensor::<Train, 2>::zeros([2, 8], &device).require_grad();
    let perturbation = Perturbation::new(vec![Delta { spot: SPOT, values }]);
    let grads = entrapment_loss(&frozen, &perturbation, &answer, None).backward();
    let mut found = Gradients(&grads, 0);
    frozen.visit(&mut found);
    assert_eq!(found.1, 0);
    assert!(perturbation.deltas()[0].values.grad(&grads).is_some());
}

#[test]
fn a_norm_bound_is_kept() {
    let mut config = config().entrap;
    config.norm_bound = Some(0.1);
    config.initialisation = Initialisation::Normal(5.0);
    let model = toy::<Train>();
    let rows: Vec<Example> = safety().iter().map(|e| e.toward_unwanted(None)).collect();
    let batch = Batch::new(&rows, &Default::default());
    let answer = PreparedAnswer::<Train>::new(&model.valid(), batch, &[SPOT]);
    let norm = answer.mean_hidden_norms(&model.valid())[0];
    let found = entrap(&model, &safety(), &[SPOT], (&config, 3), &mut ()).unwrap();
    let rows = found.perturbation.deltas()[0].values.clone().powi_scalar(2).sum_dim(1).sqrt();
    for length in rows.into_data().to_vec::<f32>().unwrap() {
        assert!(f64::from(length) <= 0.1 * norm * (1.0 + 1e-5), "{length} {norm}");
    }
}

/// Makes the hidden states of the first token, which no other position has, ten thousand times as long.
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

/// The mean length of the hidden states of the safety prompts at `layer`, from the position `first` on.
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

/// A mean of f32 lengths, and the same mean of f64.
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
    for site in [Site::All, Site::First(9), Site::Last(9), Site::UserLast(9)] {
        let spots: Vec<Spot> = (1..=2).map(|layer| Spot { layer, site }).collect();
        let batch = Batch::new(&rows, &Default::default());
        for (model, first) in [(&ordinary, 0), (&with_sink, 1)] {
            let answer =
                PreparedAnswer::<Train>::new(model, Batch::new(&rows, &Default::default()), &spots);
            for (spot, norm) in spots.iter().zip(answer.mean_hidden_norms(model)) {
                let expected = mean_by_hand(model, &batch, (spot.layer, first));
                assert!(
                    (norm - expected).abs() < F32_MEAN * expected,
                    "{spot:?} {norm} {expected}"
                );
            }
        }
        let of_all = mean_by_hand(&with_sink, &batch, (1, 0));
        assert!(of_all > 100.0 * mean_by_hand(&with_sink, &batch, (1, 1)), "the sink is massive");
    }
}

#[test]
fn no_two_starts_from_noise_share_a_number() {
    let spot = |layer, site| Spot { layer, site };
    let starts = |seed| {
        let mut config = BilevelConfig { rounds: 1, perturbations_per_round: 6, seed, ..config() };
        config.spots = vec![spot(2, Site::Last(2)), spot(1, Site::First(2)), spot(1, Site::All)];
        config.arrangement = Arrangement::Together;
        config.entrap.initialisation = Initialisation::Normal(0.1);
        // Steps that no number of f32 of this size can take.
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

#[test]
fn the_alternation_teaches_the_safe_answer_under_perturbation_and_the_ordinary_one_without() {
    let mut safety = Vec::new();
    let mut observer = |event: &Event| {
        if let Event::OuterStep { terms, .. } = event {
            safety.push(terms.safety);
        }
    };
    // One spot, so that the losses of the rounds are of the same δ.
    let config = BilevelConfig { spots: vec![SPOT], ..config() };
    let outcome = solve(toy::<Train>(), &sets(), &config, &mut validator(), &mut observer).unwrap();
    let loss = outcome.rounds[outcome.kept_round].validation.loss.unwrap();
    assert!(loss.after < 0.1 && loss.after < 0.1 * loss.before, "{loss:?}");
    assert!(safety.last().unwrap() < &(0.1 * safety[0]), "{safety:?}");
    let losses: Vec<f64> =
        outcome.rounds.iter().map(|r| r.entrapments.iter().map(|(_, loss)| loss).sum()).collect();
    assert!(losses.last() > losses.first(), "later δs are harder to find: {losses:?}");
}

#[test]
fn the_same_seed_gives_the_same_events() {
    let model = toy::<Train>();
    let run = || {
        let mut events = Vec::new();
        let mut observer = |event: &Event| events.push(event.clone());
        solve(model.clone(), &sets(), &config(), &mut validator(), &mut observer).unwrap();
        events
    };
    assert_eq!(run(), run());
}

#[test]
fn a_non_finite_loss_stops_with_the_examples_of_the_batch() {
    let poisoned = || toy::<Train>().map(&mut Poison);
    let stopped = solve(poisoned(), &sets(), &config(), &mut validator(), &mut ()).unwrap_err();
    assert_eq!(stopped.error, Error::NonFiniteLogits { id: 1 }, "held-out rows tell first");
    let mut no_rows = validator();
    (no_rows.safety, no_rows.performance) = (Vec::new(), Vec::new());
    let Err(stopped) = solve(poisoned(), &sets(), &config(), &mut no_rows, &mut ()) else {
        panic!("NaN weights cannot be cleaned");
    };
    let Error::NonFinite { quantity, level, step, mut safety, performance } = stopped.error else {
        panic!("{:?}", stopped.error);
    };
    safety.sort_unstable();
    assert_eq!((quantity, level, step), (Quantity::Loss, Level::Inner, 0));
    assert_eq!((safety, performance), (vec![10, 11, 12, 13], Vec::new()));
}

#[test]
fn weights_that_overflow_in_the_last_step_of_a_round_end_the_run_with_the_round_before() {
    let mut config = config();
    (config.rounds, config.remove.steps) = (2, 1);
    config.remove.learning_rate = 1e39;
    let model = toy::<Train>();
    let before = weights(&model);
    let Err(stopped) = solve(model, &sets(), &config, &mut validator(), &mut ()) else {
        panic!("a step of 1e39 leaves no finite weight");
    };
    let Error::NonFinite { quantity, level, safety, performance, .. } = &stopped.error else {
        panic!("{:?}", stopped.error);
    };
    assert_eq!((*quantity, *level), (Quantity::Weights, Level::Outer));
    assert!(!safety.is_empty() && !performance.is_empty());
    assert!(stopped.rounds.is_empty());
    assert_eq!(weights(stopped.last_good.as_ref()), before);
}

#[test]
fn looking_for_perturbations_at_the_same_time_changes_nothing() {
    let model = toy::<Train>();
    let run = |threads| {
        let mut events = Vec::new();
        let mut observer = |event: &Event| events.push(event.clone());
        let entrap = EntrapConfig { threads, ..config().entrap };
        let config = BilevelConfig { entrap, ..config() };
        let outcome = solve(model.clone(), &sets(), &config, &mut validator(), &mut observer);
        (events, weights(&outcome.unwrap().model))
    };
    assert_eq!(run(2), run(1));
}

#[test]
fn rows_shared_by_threads_give_the_same_up_to_rounding() {
    let model = toy::<Double>();
    let AnchorSets { safety, performance } = sets();
    let validator =
        TeacherForcedValidator { safety, performance, batch_size: 3, device: Default::default() };
    let run = |threads, checkpointing| {
        let mut losses = Vec::new();
        let mut observer = |event: &Event| match event {
            Event::InnerStep { loss, .. } => losses.push(*loss),
            Event::OuterStep { terms, gradient_norm, .. } => {
                losses.extend([terms.safety, terms.performance, terms.divergence, *gradient_norm]);
            }
            _ => {}
        };
        let mut config = BilevelConfig { perturbations_per_round: 1, rounds: 2, ..config() };
        config.entrap.away_weight = 0.05;
        (config.entrap.threads, config.remove.threads) = (threads, threads);
        config.remove.activation_checkpointing = checkpointing;
        let mut validator = validator.clone();
        let outcome = solve(model.clone(), &sets(), &config, &mut validator, &mut observer);
        (losses, weights(&outcome.unwrap().model))
    };
    let (losses, weights) = run(1, false);
    // Halves, parts of unequal size, and more threads than rows.
    for (threads, checkpointing) in [(2, false), (3, false), (3, true), (100, false)] {
        let (shared, trained) = run(threads, checkpointing);
        assert_eq!(shared.len(), losses.len());
        let close = |one: f64, other: f64| (one - other).abs() <= F64_RUN * other.abs().max(1.0);
        for (step, (&one, &other)) in shared.iter().zip(&losses).enumerate() {
            assert!(close(one, other), "{threads} threads, number {step}: {one} {other}");
        }
        for (one, other) in trained.iter().zip(&weights) {
            for (one, other) in one.iter::<f64>().zip(other.iter::<f64>()) {
                assert!(close(one, other), "{threads} threads: {one} {other}");
            }
        }
    }
}

#[test]
fn empty_sets_and_empty_answers_are_named() {
    let run = |sets: &AnchorSets| {
        solve(toy::<Train>(), sets, &config(), &mut validator(), &mut ())
            .map(|_| ())
            .unwrap_err()
            .error
    };
    let empty = AnchorSets { safety: Vec::new(), ..sets() };
    assert_eq!(run(&empty), Error::EmptySet { set: "safety" });
    let mut torn = sets();
    torn.safety[2].unwanted.clear();
    assert_eq!(run(&torn), Error::EmptyPart { id: 12, part: "unwanted answer" });
}

#[test]
fn a_bound_that_is_broken_is_recorded_and_unmoved_weights_break_none() {
    let rounds = |learning_rate: f64| {
        let mut config = config();
        config.remove.learning_rate = learning_rate;
        // The toy refuses no forbidden prompt at its start.
        config.bounds.refusal_floor = 0.0;
        let outcome = solve(toy::<Train>(), &sets(), &config, &mut validator(), &mut ());
        outcome.unwrap().rounds
    };
    for round in rounds(1e-12) {
        assert!(round.within_bounds, "{round:?}");
        assert!(round.validation.loss.unwrap().worse_by.abs() < 1e-6, "{round:?}");
    }
    // Steps this long take the ordinary answers away.
    for round in rounds(10.0) {
        let loss = round.validation.loss.unwrap();
        assert!(loss.worse_by > loss.bound, "{round:?}");
        assert_eq!(round.within_bounds, round.validation.verdict() < Verdict::Broken, "{round:?}");
    }
}

#[test]
fn a_suspect_that_the_validator_refuses_is_an_error_before_the_first_step() {
    struct Refusing;
    impl<B: Backend, M> Validator<B, M> for Refusing {
        fn validate(&mut self, _model: &M) -> Result<ValidationMetrics, Error> {
            Ok(ValidationMetrics::default())
        }

        fn check_suspect(&self, _suspect: &ValidationMetrics) -> Result<(), Error> {
            Err(Error::UnfitSuspect { fault: SuspectFault::RefusesNothing { n_prompts: 4 } })
        }
    }
    let mut n_steps = 0;
    let mut observer =
        |event: &Event| n_steps += usize::from(!matches!(event, Event::Started { .. }));
    let stopped = solve(toy::<Train>(), &sets(), &config(), &mut Refusing, &mut observer);
    let error = stopped.map(|_| ()).unwrap_err().error;
    assert!(error.to_string().contains("refuses none of the 4 forbidden prompts"), "{error}");
    assert_eq!(n_steps, 0);
}
