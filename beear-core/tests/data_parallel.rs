//! Runs on several ranks: they match a run on one rank, and no rank waits for one that has stopped.

#[path = "toy/fixture.rs"]
mod fixture;
#[path = "toy/two_rounds.rs"]
mod two_rounds;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use beear_core::config::OptimizerState;
use beear_core::error::{Level, Quantity};
use beear_core::testing::ToyDecoder;
use beear_core::{BilevelConfig, Error, Event, Outcome, Stopped, solve, solve_on};
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use fixture::{SIZE, Train, toy, validator, weights};
use two_rounds::{config, sets};

type Solved = Result<Outcome<Train, ToyDecoder<Train>>, Stopped<ToyDecoder<Train>>>;

/// Tolerance of f32 sums in another order, carried through a dozen steps on values near 1. The
/// weights move by hundreds of times as much.
const F32_RUN: f64 = 5e-6;

/// Returns every number of a run: losses and norms of the steps, `δ`s, weights.
fn numbers(outcome: &Outcome<Train, ToyDecoder<Train>>, heard: Vec<f64>) -> [Vec<f64>; 3] {
    let deltas = outcome.perturbations.iter().flat_map(|p| p.deltas().to_vec());
    let deltas =
        deltas.flat_map(|delta| delta.values.into_data().iter::<f64>().collect::<Vec<_>>());
    let weights = weights(&outcome.model);
    let weights = weights.iter().flat_map(|weight| weight.iter::<f64>().collect::<Vec<_>>());
    [heard, deltas.collect(), weights.collect()]
}

fn heard(event: &Event) -> Vec<f64> {
    match event {
        Event::InnerStep { loss, .. } => vec![*loss],
        Event::Entrapped { last_loss, norm, .. } => vec![*last_loss, *norm],
        Event::OuterStep { terms, gradient_norm, .. } => {
            vec![terms.safety, terms.performance, terms.divergence, *gradient_norm]
        }
        _ => Vec::new(),
    }
}

/// Runs on `n_workers` ranks of one device, in a thread with a timeout of a minute.
fn run(model: ToyDecoder<Train>, config: BilevelConfig, n_workers: usize) -> (Solved, Vec<f64>) {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut numbers = Vec::new();
        let mut observer = |event: &Event| numbers.extend(heard(event));
        let devices = vec![Default::default(); n_workers];
        let solved = solve_on((model, &devices), &sets(), &config, &mut validator(), &mut observer);
        let _ = sender.send((solved, numbers));
    });
    receiver.recv_timeout(Duration::from_mins(1)).expect("no worker waits for ever")
}

fn farthest(left: &[f64], right: &[f64]) -> f64 {
    assert_eq!(left.len(), right.len());
    left.iter().zip(right).map(|(l, r)| (l - r).abs()).fold(0.0, f64::max)
}

#[test]
fn workers_find_the_deltas_weights_and_losses_of_one() {
    let model = toy();
    let mut losses = Vec::new();
    let mut observer = |event: &Event| losses.extend(heard(event));
    let alone = solve(model.clone(), &sets(), &config(), &mut validator(), &mut observer).unwrap();
    let alone = numbers(&alone, losses);
    let start: Vec<f64> =
        weights(&model).iter().flat_map(|w| w.iter::<f64>().collect::<Vec<_>>()).collect();
    assert!(farthest(&start, &alone[2]) > 100.0 * F32_RUN, "the weights have moved");

    for (n_workers, n_threads) in [(1, 1), (2, 1), (3, 1), (4, 1), (2, 2)] {
        let mut config = config();
        (config.entrap.threads, config.remove.threads) = (n_threads, n_threads);
        let (solved, losses) = run(model.clone(), config, n_workers);
        let shared = numbers(&solved.unwrap(), losses);
        for (what, (alone, shared)) in ["losses", "δ", "θ"].iter().zip(alone.iter().zip(&shared))
        {
            let distance = farthest(alone, shared);
            assert!(
                distance < F32_RUN,
                "{n_workers} workers on {n_threads} threads, {what}: {distance}"
            );
        }
    }
}

/// Sets the embedding of token 8 to NaN; the token occurs in one row only, in the last place.
struct PoisonToken;

impl<B: Backend> ModuleMapper<B> for PoisonToken {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        param.map(|weight| {
            if weight.shape().as_slice() != [11, SIZE.d_model] {
                return weight;
            }
            let row = Tensor::arange(0..11, &weight.device()).equal_elem(8);
            let row = row.unsqueeze_dim::<2>(1).expand([11, SIZE.d_model]);
            weight.mask_fill(row.unsqueeze(), f32::NAN)
        })
    }
}

#[test]
fn what_one_worker_finds_not_finite_stops_all_with_the_whole_batch() {
    let mut config = config();
    config.entrap.batch_size = 4;
    let model = toy().map(&mut PoisonToken);
    let (solved, _) = run(model, config, 2);
    let stopped = solved.unwrap_err();
    let Error::NonFinite { quantity, level, step, mut safety, .. } = stopped.error else {
        panic!("{}", stopped.error)
    };
    safety.sort_unstable();
    assert_eq!((quantity, level, step), (Quantity::Loss, Level::Inner, 0));
    assert_eq!(safety, [10, 11, 12, 13]);
}

#[test]
fn a_panic_of_one_worker_ends_all_and_leaves_the_next_run_alone() {
    let model = toy();
    let (sender, receiver) = mpsc::channel();
    let panicking = model.clone();
    thread::spawn(move || {
        let mut observer =
            |event: &Event| assert!(!matches!(event, Event::InnerStep { step: 1, .. }));
        let devices = [Default::default(); 2];
        let solve = || {
            solve_on((panicking, &devices), &sets(), &config(), &mut validator(), &mut observer)
                .is_ok()
        };
        let _ = sender.send(catch_unwind(AssertUnwindSafe(solve)).is_err());
    });
    let panicked = receiver.recv_timeout(Duration::from_mins(1)).expect("no worker waits for ever");
    assert!(panicked);
    assert!(run(model, config(), 2).0.is_ok());
}

#[test]
fn devices_that_would_differ_are_refused() {
    let problem = |config: BilevelConfig, n_workers: usize| {
        let error = run(toy(), config, n_workers).0.unwrap_err().error;
        let Error::InvalidConfig { problems } = error else { panic!("{error}") };
        problems[0].clone()
    };
    let mut by_chance = config();
    by_chance.remove.optimizer_state = OptimizerState::BF16;
    assert!(run(toy(), by_chance.clone(), 1).0.is_ok());
    assert!(problem(by_chance, 2).contains("by chance"));
    assert_eq!(problem(config(), 0), "there must be a device");
}
