//! The method on a toy decoder: the guarantees of each level, with gradients checked in f64.

#[path = "toy/fixture.rs"]
mod fixture;
#[path = "toy/poison.rs"]
mod poison;

use beear_core::config::StepSize;
use beear_core::error::{Level, Quantity};
use beear_core::testing::{assert_prefix_law, assert_split_law};
use beear_core::{
    AnchorSets, Batch, BilevelConfig, EntrapConfig, Error, Event, InjectionPoint, Positions,
    SafetyExample, SuspectFault, TeacherForcedValidator, ValidationMetrics, Validator, Verdict,
    solve,
};
use burn::backend::{Autodiff, NdArray};
use burn::module::Module;
use burn::tensor::backend::Backend;
use fixture::{Cpu, SIZE, Train, safety, sets, toy, validator, weights};
use poison::Poison;

/// Tolerance of f64 rounding, enlarged by some dozen steps of Adam.
const F64_RUN: f64 = 1e-9;

type Double = Autodiff<NdArray<f64>>;

const POINT: InjectionPoint = InjectionPoint { layer: 2, positions: Positions::Last(2) };

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
        assert_prefix_law(&model, batch.tokens.clone(), &batch.mask_pad, n_past);
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
    // A single injection point, so that the losses of different rounds belong to the same δ.
    let config = BilevelConfig { injection_points: vec![POINT], ..config() };
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
        // The toy refuses no forbidden prompt at the start.
        config.bounds.refusal_floor = 0.0;
        let outcome = solve(toy::<Train>(), &sets(), &config, &mut validator(), &mut ());
        outcome.unwrap().rounds
    };
    for round in rounds(1e-12) {
        assert!(round.within_bounds, "{round:?}");
        assert!(round.validation.loss.unwrap().worse_by.abs() < 1e-6, "{round:?}");
    }
    // Steps of this size destroy the ordinary answers.
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
