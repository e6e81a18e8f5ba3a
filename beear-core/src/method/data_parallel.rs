//! The alternation over several devices: each device has a replica of the model and takes its share
//! of the rows of every batch.
//!
//! Gradients of `δ` and of the weights are summed over the devices before every step. So each
//! replica takes the step that one device would take on the whole batch, and the replicas stay
//! equal. The sums are Burn's collective operations; this crate has no protocol of its own.

use std::panic::resume_unwind;
use std::thread;

use burn::tensor::backend::AutodiffBackend;

use super::bilevel::{Outcome, Stopped, begin, run_main, run_replica, validate_sets};
use super::outer::Remover;
use super::run::RunSpec;
use crate::batch::example::AnchorSets;
use crate::config::{BilevelConfig, judge};
use crate::decoder::TrainableDecoder;
use crate::error::Error;
use crate::event::Observer;
use crate::optim::weight_step::rounds_by_chance;
use crate::parallel::collective::{Place, Session};
use crate::parallel::rank::Rank;
use crate::state::snapshot::Saved;
use crate::validation::Validator;

/// Runs [`solve`](super::bilevel::solve) with one rank for each of `devices`; the ranks share the
/// rows of every batch.
///
/// The result is that of one device up to the rounding of sums. A device may be listed more than
/// once: each entry has a rank and a replica. The main rank is the calling thread; it alone runs
/// `validator` and `observer`, and its replica is the outcome. Several ranks search one
/// perturbation at a time, and the threads of a rank share its rows.
///
/// Only one call per process runs on several ranks at a time; another call waits. The calling
/// thread waits for the other ranks: on a CPU, it must not be the only thread of a pool that runs
/// their operations.
///
/// # Errors
///
/// [`Stopped`] with [`Error::NonFinite`] with the examples of the whole batch, with
/// [`Error::WorkerLost`], or with an input error before the first round: no device, or several
/// devices with stochastic rounding of weights, because each device would draw different numbers.
///
/// # Panics
///
/// Panics if an observer, the validator or a rank does; no rank is left waiting.
pub fn solve_on<B, M>(
    (model, devices): (M, &[B::Device]),
    sets: &AnchorSets,
    config: &BilevelConfig,
    validator: &mut dyn Validator<B::InnerBackend, M::InnerModule>,
    observer: &mut dyn Observer,
) -> Result<Outcome<B, M>, Stopped<M>>
where
    B: AutodiffBackend,
    M: TrainableDecoder<B>,
{
    on_devices((model, devices), sets, (config, None), validator, observer)
}

/// Runs [`resume`](super::bilevel::resume) with one rank for each of `devices`, of which there must
/// be as many as before for the same sums.
///
/// # Errors
///
/// Those of [`solve_on`], and [`Error::MalformedSnapshot`] if `saved` does not belong to such a
/// run.
///
/// # Panics
///
/// Panics if [`solve_on`] would.
pub fn resume_on<B, M>(
    (model, devices): (M, &[B::Device]),
    sets: &AnchorSets,
    (config, saved): (&BilevelConfig, Saved<'_>),
    validator: &mut dyn Validator<B::InnerBackend, M::InnerModule>,
    observer: &mut dyn Observer,
) -> Result<Outcome<B, M>, Stopped<M>>
where
    B: AutodiffBackend,
    M: TrainableDecoder<B>,
{
    on_devices((model, devices), sets, (config, Some(saved)), validator, observer)
}

fn on_devices<B, M>(
    (model, devices): (M, &[B::Device]),
    sets: &AnchorSets,
    (config, saved): (&BilevelConfig, Option<Saved<'_>>),
    validator: &mut dyn Validator<B::InnerBackend, M::InnerModule>,
    observer: &mut dyn Observer,
) -> Result<Outcome<B, M>, Stopped<M>>
where
    B: AutodiffBackend,
    M: TrainableDecoder<B>,
{
    let valid = config.validate(model.n_layers()).and_then(|()| validate_sets(sets));
    if let Err(error) = valid.and_then(|()| validate(&model, devices, config)) {
        return Err(Stopped::at_once(error, model));
    }
    let [first, others @ ..] = devices else { unreachable!("there is a device") };
    let (model, count) = (model.fork(first), devices.len());
    let begin = |model: M, rank: Rank| {
        let outer = Remover::factory(config, rank);
        begin(model, sets, &RunSpec { config, rank, outer: &outer }, saved)
    };
    if others.is_empty() {
        return run_main(begin(model, Rank::ALONE)?, Rank::ALONE, validator, observer);
    }
    let _session = Session::begin();
    thread::scope(|scope| {
        let followers: Vec<_> = (1..count)
            .zip(others)
            .map(|(index, device)| {
                let (replica, begin) = (model.clone().fork(device), &begin);
                scope.spawn(move || {
                    let rank = Rank::new(index, count);
                    let _place = Place::<B::InnerBackend>::take(index, count, device)?;
                    run_replica(begin(replica, rank).map_err(|stopped| stopped.error)?, rank)
                })
            })
            .collect();
        let rank = Rank::new(0, count);
        let outcome = match Place::<B::InnerBackend>::take(0, count, first) {
            Ok(_place) => {
                begin(model, rank).and_then(|run| run_main(run, rank, validator, observer))
            }
            Err(error) => Err(Stopped::at_once(error, model)),
        };
        for follower in followers {
            // An error that stops a replica stops the main rank too.
            if let Err(panic) = follower.join() {
                resume_unwind(panic);
            }
        }
        outcome
    })
}

fn validate<B: AutodiffBackend, M: TrainableDecoder<B>>(
    model: &M,
    devices: &[B::Device],
    config: &BilevelConfig,
) -> Result<(), Error> {
    let by_chance = devices.len() > 1 && rounds_by_chance(model, &config.remove);
    judge([
        (!devices.is_empty(), "there must be a device"),
        (
            !by_chance,
            "several devices cannot round by chance: half-precision weights want remove.weight_update \
             `master` or `nearest`, and remove.optimizer_state must be `f32`",
        ),
    ])
}
