//! The alternation: entrap with fresh `δ`s, remove, validate, keep the best round.

use burn::tensor::backend::AutodiffBackend;

use super::outer::Remover;
use super::run::{Run, RunSpec, Step};
use crate::batch::example::{AnchorSets, Example, SafetyExample};
use crate::config::BilevelConfig;
use crate::decoder::TrainableDecoder;
use crate::error::Error;
use crate::event::{Event, Observer};
use crate::parallel::rank::Rank;
use crate::perturbation::Perturbation;
use crate::state::progress::RoundRecord;
use crate::state::snapshot::Saved;
use crate::validation::{ValidationMetrics, Validator};

/// A cleaned model with the history of its run.
#[derive(Clone, Debug)]
pub struct Outcome<B: AutodiffBackend, M> {
    /// Model with the weights of the kept round.
    pub model: M,
    /// Round whose weights were kept, from 0.
    pub kept_round: usize,
    /// Perturbations of the last round.
    pub perturbations: Vec<Perturbation<B::InnerBackend>>,
    /// Validation results of the held-out rows before the first round.
    pub initial: ValidationMetrics,
    /// Records of all rounds.
    pub rounds: Vec<RoundRecord>,
}

/// A run that could not continue, with the last good state.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Stopped<M: std::fmt::Debug> {
    /// Reason of the stop.
    #[source]
    pub error: Error,
    /// Model with the weights after the last complete round.
    pub last_good: Box<M>,
    /// Records of all complete rounds.
    pub rounds: Vec<RoundRecord>,
}

impl<M: std::fmt::Debug> Stopped<M> {
    /// Creates the result of a run that stopped before the first round.
    pub(crate) fn at_once(error: Error, model: M) -> Self {
        Self { error, last_good: Box::new(model), rounds: Vec::new() }
    }
}

/// Removes backdoors from `model`.
///
/// [`Observer::after_step`] may take a snapshot for [`resume`], and may end the run.
///
/// Rounds within the bounds are preferred to rounds out of bounds, and later rounds to earlier
/// ones: each round removes more, and the bounds guard against the dip in helpfulness that early
/// rounds show. A round whose estimates exceed a bound, although there are too few rows to prove
/// it, ranks below a round whose estimates do not. If no round is within the bounds, the round that
/// exceeds them least is kept, and [`RoundRecord::within_bounds`] is false.
///
/// # Errors
///
/// [`Stopped`] with [`Error::NonFinite`], with [`Error::Interrupted`] if the observer ends the run,
/// or with an input error before the first round.
///
/// # Panics
///
/// Panics if an observer or the validator does.
pub fn solve<B, M>(
    model: M,
    sets: &AnchorSets,
    config: &BilevelConfig,
    validator: &mut dyn Validator<B::InnerBackend, M::InnerModule>,
    observer: &mut dyn Observer,
) -> Result<Outcome<B, M>, Stopped<M>>
where
    B: AutodiffBackend,
    M: TrainableDecoder<B>,
{
    alone(model, sets, (config, None), validator, observer)
}

/// Resumes a run of [`solve`] with the same `model`, sets and config. On the same backend and
/// machine, the outcome is bit-identical to that of an uninterrupted run.
///
/// # Errors
///
/// Those of [`solve`], and [`Error::MalformedSnapshot`] if `saved` does not belong to such a run.
///
/// # Panics
///
/// Panics if an observer or the validator does.
pub fn resume<B, M>(
    model: M,
    sets: &AnchorSets,
    (config, saved): (&BilevelConfig, Saved<'_>),
    validator: &mut dyn Validator<B::InnerBackend, M::InnerModule>,
    observer: &mut dyn Observer,
) -> Result<Outcome<B, M>, Stopped<M>>
where
    B: AutodiffBackend,
    M: TrainableDecoder<B>,
{
    alone(model, sets, (config, Some(saved)), validator, observer)
}

fn alone<B, M>(
    model: M,
    sets: &AnchorSets,
    (config, saved): (&BilevelConfig, Option<Saved<'_>>),
    validator: &mut dyn Validator<B::InnerBackend, M::InnerModule>,
    observer: &mut dyn Observer,
) -> Result<Outcome<B, M>, Stopped<M>>
where
    B: AutodiffBackend,
    M: TrainableDecoder<B>,
{
    if let Err(error) = config.validate(model.n_layers()).and_then(|()| validate_sets(sets)) {
        return Err(Stopped::at_once(error, model));
    }
    let outer = Remover::factory(config, Rank::ALONE);
    let spec = RunSpec { config, rank: Rank::ALONE, outer: &outer };
    run_main(begin(model, sets, &spec, saved)?, Rank::ALONE, validator, observer)
}

/// Starts a run from `model`, or resumes the saved run.
///
/// # Errors
///
/// [`Stopped`] with [`Error::MalformedSnapshot`].
pub(crate) fn begin<'a, B: AutodiffBackend, M: TrainableDecoder<B>>(
    model: M,
    sets: &'a AnchorSets,
    spec: &RunSpec<'_, B, M>,
    saved: Option<Saved<'_>>,
) -> Result<Run<'a, B, M>, Stopped<M>> {
    let Some(saved) = saved else { return Ok(Run::new(model, sets, spec)) };
    // Dropped before the first step, so the weights that it shares need not stay in memory.
    let original = model.clone();
    Run::restore(model, sets, spec, saved).map_err(|error| Stopped::at_once(error, original))
}

/// Runs to the end on the main rank: the only one that validates, decides when to stop and notifies
/// the observer.
pub(crate) fn run_main<B, M>(
    mut run: Run<'_, B, M>,
    rank: Rank,
    validator: &mut dyn Validator<B::InnerBackend, M::InnerModule>,
    observer: &mut dyn Observer,
) -> Result<Outcome<B, M>, Stopped<M>>
where
    B: AutodiffBackend,
    M: TrainableDecoder<B>,
{
    match drive(&mut run, rank, validator, observer) {
        Ok(initial) => {
            let rounds = std::mem::take(&mut run.rounds);
            let (model, kept_round, perturbations) = run.into_best();
            Ok(Outcome { model, kept_round, perturbations, initial, rounds })
        }
        Err(error) => {
            Err(Stopped { error, last_good: Box::new(run.round_start), rounds: run.rounds })
        }
    }
}

/// Takes every step, and returns the validation results from before the first step.
fn drive<B, M>(
    run: &mut Run<'_, B, M>,
    rank: Rank,
    validator: &mut dyn Validator<B::InnerBackend, M::InnerModule>,
    observer: &mut dyn Observer,
) -> Result<ValidationMetrics, Error>
where
    B: AutodiffBackend,
    M: TrainableDecoder<B>,
{
    let fit = match &run.initial {
        Some(_) => Ok(()),
        None => validate_suspect(run, validator, observer),
    };
    if let Err(error) = fit {
        // Tell the other ranks before they wait for a step that never comes.
        stops(&run.round_start, (true, rank))?;
        return Err(error);
    }
    let mut is_over = run.end().is_some();
    loop {
        let is_ended = !is_over && observer.after_step(&|| run.snapshot()).is_break();
        if stops(&run.round_start, (is_over || is_ended, rank))? {
            let initial = run.initial.take().filter(|_| is_over);
            return initial.ok_or(Error::Interrupted);
        }
        if run.step(observer)? == Step::EndsRound {
            let metrics = validator.validate(&run.round_start.valid())?;
            is_over = run.judge(&metrics, observer);
        }
    }
}

/// Validates the suspect, and returns an error if it is unfit.
fn validate_suspect<B, M>(
    run: &mut Run<'_, B, M>,
    validator: &mut dyn Validator<B::InnerBackend, M::InnerModule>,
    observer: &mut dyn Observer,
) -> Result<(), Error>
where
    B: AutodiffBackend,
    M: TrainableDecoder<B>,
{
    let metrics = validator.validate(&run.round_start.valid())?;
    observer.notify(&Event::Started { validation: metrics.summary() });
    validator.check_suspect(&metrics)?;
    run.initial = Some(metrics);
    Ok(())
}

/// Runs to the end on a rank other than the main one.
///
/// # Errors
///
/// The error that stops the main rank, or [`Error::WorkerLost`].
#[cfg(feature = "collective")]
pub(crate) fn run_replica<B: AutodiffBackend, M: TrainableDecoder<B>>(
    mut run: Run<'_, B, M>,
    rank: Rank,
) -> Result<(), Error> {
    while !stops(&run.round_start, (false, rank))? {
        run.step(&mut ())?;
    }
    Ok(())
}

/// Returns true if the main rank has ended the run.
fn stops<B: AutodiffBackend, M: TrainableDecoder<B>>(
    model: &M,
    (is_end, rank): (bool, Rank),
) -> Result<bool, Error> {
    let device = model.devices().first().cloned().unwrap_or_default();
    let votes = [f64::from(u8::from(is_end))];
    let [votes] = rank.sum_numbers::<B::InnerBackend, 1>(votes, &device)?;
    Ok(votes > 0.0)
}

pub(crate) fn validate_sets(sets: &AnchorSets) -> Result<(), Error> {
    if sets.safety.is_empty() {
        return Err(Error::EmptySet { set: "safety" });
    }
    if sets.performance.is_empty() {
        return Err(Error::EmptySet { set: "performance" });
    }
    let safety = |e: &SafetyExample| {
        let parts =
            [("prompt", &e.prompt), ("safe answer", &e.safe), ("unwanted answer", &e.unwanted)];
        empty_part(e.id, &parts)
    };
    let performance =
        |e: &Example| empty_part(e.id, &[("prompt", &e.prompt), ("answer", &e.answer)]);
    let mistake = sets.safety.iter().find_map(safety);
    mistake.or_else(|| sets.performance.iter().find_map(performance)).map_or(Ok(()), Err)
}

fn empty_part(id: u64, parts: &[(&'static str, &Vec<u32>)]) -> Option<Error> {
    let (part, _) = parts.iter().find(|(_, tokens)| tokens.is_empty())?;
    Some(Error::EmptyPart { id, part })
}
