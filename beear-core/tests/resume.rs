//! A run that was stopped resumes as if it had not been, wherever it was stopped.

#[path = "../../tests/every_checkpoint.rs"]
mod every_checkpoint;
#[path = "toy/fixture.rs"]
mod fixture;
#[path = "toy/two_rounds.rs"]
mod two_rounds;

use std::collections::HashMap;
use std::ops::ControlFlow;

use beear_core::config::{Arrangement, OptimizerState};
use beear_core::testing::ToyDecoder;
use beear_core::{
    BilevelConfig, DecoderSize, Defence, Error, Event, FineTuningConfig, LatentAdversarialConfig,
    LayerConsistencyConfig, Observer, Outcome, Perturbation, Progress, RemoveConfig, Saved,
    Snapshot, Stopped, resume, solve,
};
use burn::tensor::TensorData;
use every_checkpoint::{Case, shortened, with_remove};
use fixture::{SIZE, Train, toy, toy_of_size, validator, weights};
use serde_json::{Value, json};
use two_rounds::{config, sets};

type Solved = Result<Outcome<Train, ToyDecoder<Train>>, Stopped<ToyDecoder<Train>>>;

/// A snapshot in the form of a file.
#[derive(Clone)]
struct Stored {
    progress: String,
    tensors: HashMap<String, TensorData>,
}

impl Stored {
    fn new(snapshot: Snapshot) -> Self {
        let progress = serde_json::to_string(&snapshot.progress).expect("numbers");
        let n_tensors = snapshot.tensors.len();
        let tensors: HashMap<_, _> = snapshot
            .tensors
            .into_iter()
            .map(|tensor| {
                let data = tensor.data();
                assert_eq!((data.shape.as_slice(), data.dtype), (&*tensor.shape, tensor.dtype));
                assert_eq!(data.bytes.len(), tensor.size());
                (tensor.name, data)
            })
            .collect();
        assert_eq!(tensors.len(), n_tensors, "each name once");
        Self { progress, tensors }
    }

    fn progress(&self) -> Progress {
        serde_json::from_str(&self.progress).expect("numbers")
    }

    /// Returns a copy with edited numbers.
    fn edited(&self, edit: impl FnOnce(&mut Value)) -> Self {
        let mut numbers = serde_json::from_str(&self.progress).expect("numbers");
        edit(&mut numbers);
        Self { progress: numbers.to_string(), tensors: self.tensors.clone() }
    }

    /// Resumes with a model of other parameter ids, as in another process.
    fn resume(&self, size: DecoderSize, defence: &Defence, observer: &mut dyn Observer) -> Solved {
        let progress = self.progress();
        let saved = Saved { progress: &progress, tensors: &|name| self.tensors.get(name).cloned() };
        defence.resume((toy_of_size(size, 7), saved), &sets(), &mut validator(), observer)
    }

    /// Resumes a run of [`solve`] from the given numbers.
    fn resume_from(&self, progress: &Progress, config: &BilevelConfig) -> Solved {
        let saved = Saved { progress, tensors: &|name| self.tensors.get(name).cloned() };
        resume(toy(), &sets(), (config, saved), &mut validator(), &mut ())
    }
}

/// Records all events, and ends the run after step `last`.
#[derive(Default)]
struct Stopping {
    last: Option<usize>,
    events: Vec<Event>,
    stored: Option<Stored>,
    n_asked: usize,
}

impl Observer for Stopping {
    fn notify(&mut self, event: &Event) {
        self.events.push(event.clone());
    }

    fn after_step(&mut self, snapshot: &dyn Fn() -> Snapshot) -> ControlFlow<()> {
        self.n_asked += 1;
        let snapshot = snapshot();
        if self.last != Some(snapshot.progress.n_steps()) {
            return ControlFlow::Continue(());
        }
        self.stored = Some(Stored::new(snapshot));
        ControlFlow::Break(())
    }
}

fn stopping_after(last: usize) -> Stopping {
    Stopping { last: Some(last), ..Stopping::default() }
}

fn stopped_after(last: usize, size: DecoderSize, defence: &Defence) -> (Stored, Vec<Event>) {
    let mut observer = stopping_after(last);
    let model = toy_of_size::<Train>(size, 7);
    let stopped = defence.run(model, &sets(), &mut validator(), &mut observer);
    let stopped = stopped.expect_err("it was stopped");
    assert_eq!(stopped.error, Error::Interrupted);
    (observer.stored.expect("it was stopped there"), observer.events)
}

fn deltas(outcome: &Outcome<Train, ToyDecoder<Train>>) -> Vec<TensorData> {
    let deltas = outcome.perturbations.iter().flat_map(Perturbation::deltas);
    deltas.map(|delta| delta.values.to_data()).collect()
}

fn assert_same(
    found: &Outcome<Train, ToyDecoder<Train>>,
    expected: &Outcome<Train, ToyDecoder<Train>>,
) {
    assert_eq!(weights(&found.model), weights(&expected.model));
    assert_eq!(deltas(found), deltas(expected));
    assert_eq!((found.kept_round, &found.rounds), (expected.kept_round, &expected.rounds));
    assert_eq!(found.initial, expected.initial);
}

/// Deep enough for the presets to have several layers, which they do not list in ascending order.
const DEEP: DecoderSize = DecoderSize { n_layers: 6, d_model: 8 };

/// Returns every preset and baseline on a decoder of six layers, as short as possible with a step
/// inside every stage.
fn defences() -> [(&'static str, Defence); 5] {
    let presets = [
        ("robust", Defence::Beear(BilevelConfig::robust(DEEP))),
        ("paper", Defence::Beear(BilevelConfig::paper(DEEP))),
        ("latent-adversarial", Defence::LatentAdversarial(LatentAdversarialConfig::new(DEEP))),
        ("layer-consistency", Defence::LayerConsistency(LayerConsistencyConfig::new(DEEP))),
        ("fine-tuning", Defence::FineTuning(FineTuningConfig::new(DEEP))),
    ];
    presets.map(|(name, defence)| (name, shortened(defence)))
}

/// Asserts that the defence has checkpoints, and resumes exactly from each.
fn assert_resumes_exactly(name: &str, defence: &Defence, size: DecoderSize) {
    let model = || toy_of_size::<Train>(size, 7);
    let case = Case { name, defence, model: &model, sets: &sets(), validator: &validator };
    let n_checkpoints = case.assert_resumes_exactly();
    let n_inner = match defence {
        Defence::Beear(config) => config.rounds * config.entrap.steps,
        _ => 0,
    };
    assert!(n_checkpoints >= defence.n_weight_steps() + n_inner, "{name}: {n_checkpoints}");
}

#[test]
fn every_defence_resumes_exactly_from_each_of_its_checkpoints() {
    for (name, mut defence) in defences() {
        if let Defence::Beear(config) = &mut defence {
            config.entrap.threads = 1;
        }
        assert_resumes_exactly(name, &defence, DEEP);
    }
}

#[test]
fn so_it_does_with_moments_rounded_by_chance() {
    for (name, defence) in defences() {
        for optimizer_state in [OptimizerState::EightBit, OptimizerState::BF16] {
            let change = |remove| RemoveConfig { optimizer_state, ..remove };
            assert_resumes_exactly(name, &with_remove(defence.clone(), change), DEEP);
        }
    }
}

#[test]
fn so_it_does_on_two_threads() {
    for (name, defence) in defences() {
        // Two perturbations at a time, then one on both threads.
        let is_of_one_thread =
            matches!(defence, Defence::LatentAdversarial(_) | Defence::LayerConsistency(_));
        if !is_of_one_thread {
            let change = |remove| RemoveConfig { threads: 2, ..remove };
            assert_resumes_exactly(name, &with_remove(defence, change), DEEP);
        }
    }
}

#[test]
fn so_it_does_from_noise_within_a_norm_with_every_term_of_both_losses() {
    for arrangement in [Arrangement::InTurn, Arrangement::Together, Arrangement::Alternating] {
        let config = BilevelConfig { arrangement, ..config() };
        assert_resumes_exactly("every term", &Defence::Beear(config), SIZE);
    }
}

/// Returns a run of `robust`, stopped between two steps on a perturbation with a `δ` at every
/// injection point.
fn stopped_with_deltas_under_way() -> (Stored, Defence) {
    let [(_, mut robust), ..] = defences();
    let Defence::Beear(config) = &mut robust else { panic!("it is a preset") };
    config.entrap.threads = 1;
    let layers: Vec<usize> = config.injection_points.iter().map(|point| point.layer).collect();
    assert!(layers.len() == 6 && !layers.is_sorted(), "{layers:?}");
    (stopped_after(2, DEEP, &robust).0, robust)
}

#[test]
fn each_stored_delta_names_its_place_in_whatever_order_they_are_stored() {
    let (stored, robust) = stopped_with_deltas_under_way();
    let expected = stored.resume(DEEP, &robust, &mut ()).expect("it goes on");
    let mut reversed = stored.edited(|numbers| deltas_of(numbers).reverse());
    let renamed = |(name, data): (String, TensorData)| {
        let mut parts: Vec<String> = name.split('.').map(str::to_owned).collect();
        if let [first, _, k, _] = parts.as_mut_slice()
            && first == "inner"
        {
            *k = (5 - k.parse::<usize>().expect("a number")).to_string();
        }
        (parts.join("."), data)
    };
    reversed.tensors = reversed.tensors.into_iter().map(renamed).collect();
    assert_ne!(reversed.progress, stored.progress);
    assert_same(&reversed.resume(DEEP, &robust, &mut ()).expect("it goes on"), &expected);
}

#[test]
fn deltas_of_other_places_are_refused() {
    let (stored, robust) = stopped_with_deltas_under_way();
    let edits: [Edit<'_>; 6] = [
        ("another layer", &|numbers| deltas_of(numbers)[3]["point"]["layer"] = json!(6)),
        ("other positions", &|numbers| {
            deltas_of(numbers)[3]["point"]["positions"] = json!({ "last": 4 });
        }),
        ("a place twice", &|numbers| deltas_of(numbers)[3] = deltas_of(numbers)[2].clone()),
        ("a place less", &|numbers| drop(deltas_of(numbers).pop())),
        ("another step", &|numbers| deltas_of(numbers)[3]["rows"]["time"] = json!(1)),
        ("another perturbation", &|numbers| numbers["inner"][0]["count"] = json!(1)),
    ];
    for (edit, change) in edits {
        assert_refused(&stored.edited(change), &robust, edit);
    }
}

#[test]
fn found_perturbations_of_other_places_are_refused() {
    let [(_, robust), ..] = defences();
    // Stopped in the outer level of the first round.
    let (stored, _) = stopped_after(7, DEEP, &robust);
    let edits: [Edit<'_>; 4] = [
        ("another layer", &|numbers| {
            numbers["found"][0]["injection_points"][1]["layer"] = json!(6);
        }),
        ("another order", &|numbers| found_of(numbers).reverse()),
        ("another perturbation", &|numbers| numbers["found"][1]["count"] = json!(2)),
        ("a perturbation less", &|numbers| drop(found_of(numbers).pop())),
    ];
    for (edit, change) in edits {
        assert_refused(&stored.edited(change), &robust, edit);
    }
}

#[test]
fn an_attack_on_other_rows_or_layers_is_refused() {
    let [_, _, (_, latent), ..] = defences();
    // Stopped between two steps under one attack.
    let (stored, _) = stopped_after(1, DEEP, &latent);
    let edits: [Edit<'_>; 5] = [
        ("a row there is none of", &|attack| attack["rows"][0] = json!(9)),
        ("fewer rows", &|attack| attack["rows"] = json!([0])),
        ("no attack", &|attack| *attack = Value::Null),
        ("layers in another order", &|attack| attack["layers"] = json!([2, 1, 4, 5])),
        ("fewer layers", &|attack| attack["layers"] = json!([1, 2, 4])),
    ];
    for (edit, change) in edits {
        let edited = stored.edited(|numbers| {
            assert!(numbers["outer"]["attack"]["rows"].is_array());
            change(&mut numbers["outer"]["attack"]);
        });
        assert_refused(&edited, &latent, edit);
    }
}

/// Name of a change, and the change.
type Edit<'a> = (&'a str, &'a dyn Fn(&mut Value));

fn deltas_of(numbers: &mut Value) -> &mut Vec<Value> {
    numbers["inner"][0]["deltas"].as_array_mut().expect("a perturbation is under way")
}

fn found_of(numbers: &mut Value) -> &mut Vec<Value> {
    numbers["found"].as_array_mut().expect("perturbations were found")
}

fn assert_refused(stored: &Stored, defence: &Defence, change: &str) {
    let Err(stopped) = stored.resume(DEEP, defence, &mut ()) else { panic!("{change}") };
    assert!(matches!(stopped.error, Error::MalformedSnapshot { .. }), "{change}: {stopped}");
}

#[test]
fn a_run_can_be_stopped_again_and_again() {
    let config = config();
    let expected = solve(toy(), &sets(), &config, &mut validator(), &mut ()).unwrap();
    let defence = Defence::Beear(config);
    let (mut stored, mut events) = stopped_after(0, SIZE, &defence);
    for last in 1.. {
        let mut observer = stopping_after(last);
        let solved = stored.resume(SIZE, &defence, &mut observer);
        events.append(&mut observer.events);
        match solved {
            Err(stopped) => assert_eq!(stopped.error, Error::Interrupted),
            Ok(outcome) => {
                assert!(last > 10, "{last}");
                assert_same(&outcome, &expected);
                break;
            }
        }
        stored = observer.stored.expect("it was stopped there");
    }
    let mut whole = Stopping::default();
    defence.run(toy::<Train>(), &sets(), &mut validator(), &mut whole).expect("it ends");
    assert_eq!(events, whole.events);
}

#[test]
fn half_the_rate_moves_the_weights_half_as_far() {
    let mut config = config();
    (config.rounds, config.remove.steps) = (1, 1);
    let moved = |outcome: &Outcome<Train, ToyDecoder<Train>>| {
        let pairs = weights(&outcome.model).into_iter().zip(weights(&toy::<Train>()));
        let squares = pairs.flat_map(|(after, before)| {
            let pairs: Vec<_> = after.iter::<f64>().zip(before.iter::<f64>()).collect();
            pairs.into_iter().map(|(after, before)| (after - before).powi(2))
        });
        squares.sum::<f64>().sqrt()
    };
    // Stopped after the last inner step: the same δ, and an Adam step, which is invariant to the
    // scale of gradients.
    let n_inner = config.entrap.steps * config.perturbations_per_round;
    let (stored, _) = stopped_after(n_inner, SIZE, &Defence::Beear(config.clone()));
    let mut progress = stored.progress();
    let whole = moved(&stored.resume_from(&progress, &config).unwrap());
    progress.halve_rates();
    let half = moved(&stored.resume_from(&progress, &config).unwrap());
    assert!((half / whole - 0.5).abs() < 1e-4, "{half} {whole}");
}

#[test]
fn what_is_not_of_this_run_is_refused() {
    let config = config();
    let (stored, _) = stopped_after(9, SIZE, &Defence::Beear(config.clone()));
    let refused = |stored: &Stored, config: &BilevelConfig| {
        let resumed = stored.resume_from(&stored.progress(), config);
        let error = resumed.map_err(|stopped| stopped.error);
        matches!(error, Err(Error::MalformedSnapshot { .. }))
    };
    let mut longer = config.clone();
    longer.remove.steps = 5;
    assert!(refused(&stored, &longer));
    for name in stored.tensors.keys() {
        let mut torn = stored.clone();
        torn.tensors.remove(name);
        assert!(refused(&torn, &config), "without {name}");
        let mut other = stored.clone();
        other.tensors.insert(name.clone(), TensorData::from([1.0_f32, 2.0]));
        assert!(refused(&other, &config), "another {name}");
    }
    assert!(!refused(&stored, &config));
}

#[cfg(feature = "collective")]
#[test]
fn so_it_does_on_two_workers() {
    let (config, devices) = (config(), [Default::default(), Default::default()]);
    let run = |observer: &mut dyn Observer| {
        beear_core::solve_on((toy(), &devices), &sets(), &config, &mut validator(), observer)
    };
    let expected = run(&mut ()).unwrap();
    // Stopped in the inner and in the outer level of the second round.
    for last in [10, 15] {
        let mut observer = stopping_after(last);
        assert_eq!(run(&mut observer).unwrap_err().error, Error::Interrupted);
        let stored = observer.stored.unwrap();
        let progress = stored.progress();
        let saved =
            Saved { progress: &progress, tensors: &|name| stored.tensors.get(name).cloned() };
        let from = (toy(), devices.as_slice());
        let how = (&config, saved);
        let outcome = beear_core::resume_on(from, &sets(), how, &mut validator(), &mut ()).unwrap();
        assert_same(&outcome, &expected);
    }
}
