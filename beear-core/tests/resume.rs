//! A run that was stopped goes on as if it had not been, wherever it was stopped.

#[path = "toy/fixture.rs"]
mod fixture;
#[path = "toy/two_rounds.rs"]
mod two_rounds;

use std::collections::HashMap;
use std::ops::ControlFlow;

use beear_core::config::OptimizerState;
use beear_core::rival::latent_adversarial::AttackConfig;
use beear_core::testing::ToyDecoder;
use beear_core::{
    BilevelConfig, Defence, Error, Event, FineTuningConfig, LatentAdversarialConfig,
    LayerConsistencyConfig, Observer, Outcome, Perturbation, Progress, RemoveConfig, Saved,
    Snapshot, Stopped, resume, solve,
};
use burn::tensor::TensorData;
use fixture::{SIZE, Train, toy, validator, weights};
use two_rounds::{config, sets};

type Solved = Result<Outcome<Train, ToyDecoder<Train>>, Stopped<ToyDecoder<Train>>>;

/// A snapshot as a file would hold it.
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

    /// The safety rows that are attacked.
    fn attacked(&self) -> Vec<u64> {
        let numbers: serde_json::Value = serde_json::from_str(&self.progress).expect("numbers");
        let rows = numbers["outer"]["attacked"].as_array().expect("they are there");
        rows.iter().map(|row| row.as_u64().expect("a row")).collect()
    }

    /// Goes on with a model of other parameter ids, as another process has them.
    fn resume(&self, config: &BilevelConfig, observer: &mut dyn Observer) -> Solved {
        self.resume_from(&self.progress(), config, observer)
    }

    fn resume_from(
        &self,
        progress: &Progress,
        config: &BilevelConfig,
        observer: &mut dyn Observer,
    ) -> Solved {
        let saved = Saved { progress, tensors: &|name| self.tensors.get(name).cloned() };
        resume(toy(), &sets(), (config, saved), &mut validator(), observer)
    }

    /// The same for any defence.
    fn resume_defence(&self, defence: &Defence, observer: &mut dyn Observer) -> Solved {
        let progress = self.progress();
        let saved = Saved { progress: &progress, tensors: &|name| self.tensors.get(name).cloned() };
        defence.resume((toy(), saved), &sets(), &mut validator(), observer)
    }
}

/// Hears all, and ends the run before step `last` + 1.
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

fn stopped_after(last: usize, config: &BilevelConfig) -> (Stored, Vec<Event>) {
    defence_stopped_after(last, &Defence::Beear(config.clone()))
}

fn defence_stopped_after(last: usize, defence: &Defence) -> (Stored, Vec<Event>) {
    let mut observer = stopping_after(last);
    let stopped = defence.run(toy::<Train>(), &sets(), &mut validator(), &mut observer);
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

/// Stops after every step there is, goes on, and compares with a run that was never stopped.
fn goes_on_after_every_step(defence: &Defence) {
    let mut whole = Stopping::default();
    let expected = defence.run(toy(), &sets(), &mut validator(), &mut whole).expect("it ends");
    let n_steps = whole.n_asked - 1;
    assert!(n_steps >= 4, "{n_steps}");
    for last in 0..=n_steps {
        let (stored, mut events) = defence_stopped_after(last, defence);
        let mut rest = Stopping::default();
        let outcome = stored.resume_defence(defence, &mut rest).expect("it goes on");
        assert_same(&outcome, &expected);
        events.append(&mut rest.events);
        assert_eq!(events, whole.events, "stopped after step {last}");
    }
}

#[test]
fn it_goes_on_bit_for_bit_after_every_step() {
    goes_on_after_every_step(&Defence::Beear(config()));
}

#[test]
fn so_it_does_with_perturbations_sought_at_the_same_time() {
    // Two at a time, then one on both threads.
    let mut config = BilevelConfig { perturbations_per_round: 3, ..config() };
    (config.entrap.threads, config.remove.threads) = (2, 2);
    goes_on_after_every_step(&Defence::Beear(config));
}

#[test]
fn so_it_does_with_moments_of_8_bits_rounded_by_chance() {
    let mut config = config();
    config.remove.optimizer_state = OptimizerState::EightBit;
    goes_on_after_every_step(&Defence::Beear(config));
}

/// Every rival with few steps, at which moments in 8 bits are rounded by chance.
fn rivals() -> [Defence; 3] {
    let BilevelConfig { remove, .. } = config();
    let optimizer_state = OptimizerState::EightBit;
    let remove = RemoveConfig { steps: 5, threads: 1, optimizer_state, ..remove };
    let latent = LatentAdversarialConfig::new(SIZE);
    // Steps 0, 2 and 4 attack: between 1 and 2 nothing of an attack is stored, between 0 and 1 all of it.
    let attack = AttackConfig { layers: vec![1, 2], steps: 3, ..latent.attack.clone() };
    let consistency = LayerConsistencyConfig::new(SIZE);
    let fine_tuning = FineTuningConfig::new(SIZE);
    [
        Defence::LatentAdversarial(LatentAdversarialConfig {
            attack,
            steps_per_attack: 2,
            remove: remove.clone(),
            ..latent
        }),
        Defence::LayerConsistency(LayerConsistencyConfig {
            samples: 5,
            remove: remove.clone(),
            ..consistency
        }),
        Defence::FineTuning(FineTuningConfig { remove, ..fine_tuning }),
    ]
}

#[test]
fn so_do_the_rivals() {
    rivals().iter().for_each(goes_on_after_every_step);
}

#[test]
fn an_attack_that_is_not_of_these_rows_is_refused() {
    let [latent, ..] = rivals();
    let (stored, _) = defence_stopped_after(1, &latent);
    let attacked = format!("\"attacked\":{:?}", stored.attacked()).replace(", ", ",");
    assert!(stored.progress.contains(&attacked), "{}", stored.progress);
    for (change, other) in [("more", "\"attacked\":[9]"), ("none", "\"attacked\":[]")] {
        let progress = stored.progress.replace(&attacked, other);
        let stored = Stored { progress, ..stored.clone() };
        let Err(stopped) = stored.resume_defence(&latent, &mut ()) else { panic!("{change}") };
        assert!(matches!(stopped.error, Error::MalformedSnapshot { .. }), "{change}");
    }
}

#[test]
fn a_run_can_be_stopped_again_and_again() {
    let config = config();
    let expected = solve(toy(), &sets(), &config, &mut validator(), &mut ()).unwrap();
    let (mut stored, _) = stopped_after(0, &config);
    for last in 1.. {
        let mut observer = stopping_after(last);
        match stored.resume(&config, &mut observer) {
            Err(stopped) => assert_eq!(stopped.error, Error::Interrupted),
            Ok(outcome) => {
                assert!(last > 10, "{last}");
                return assert_same(&outcome, &expected);
            }
        }
        stored = observer.stored.expect("it was stopped there");
    }
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
    // After the last inner step: the same δ, and a step of Adam's, which knows no length of gradients.
    let n_inner = config.entrap.steps * config.perturbations_per_round;
    let (stored, _) = stopped_after(n_inner, &config);
    let whole = moved(&stored.resume(&config, &mut ()).unwrap());
    let mut progress = stored.progress();
    progress.halve_rates();
    let half = moved(&stored.resume_from(&progress, &config, &mut ()).unwrap());
    assert!((half / whole - 0.5).abs() < 1e-4, "{half} {whole}");
}

#[test]
fn what_is_not_of_this_run_is_refused() {
    let config = config();
    let (stored, _) = stopped_after(9, &config);
    let refused = |stored: &Stored, config: &BilevelConfig| {
        matches!(
            stored.resume(config, &mut ()).map_err(|stopped| stopped.error),
            Err(Error::MalformedSnapshot { .. })
        )
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
    // In the inner and in the outer level of the second round.
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
