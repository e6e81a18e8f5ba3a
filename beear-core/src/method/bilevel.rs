//! The alternation: entrap with fresh `δ`s, remove, validate, keep the best.

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

/// A cleaned model and how it came to be.
#[derive(Clone, Debug)]
pub struct Outcome<B: AutodiffBackend, M> {
    /// The weights of the kept round.
    pub model: M,
    /// The round whose weights were kept.
    pub kept_round: usize,
    /// The perturbations of the last round.
    pub perturbations: Vec<Perturbation<B::InnerBackend>>,
    /// Held-out rows before the first round.
    pub initial: ValidationMetrics,
    /// Every round.
    pub rounds: Vec<RoundRecord>,
}

/// A run that could not go on, with the last good state.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Stopped<M: std::fmt::Debug> {
    /// Why it stopped.
    #[source]
    pub error: Error,
    /// The weights after the last whole round.
    pub last_good: Box<M>,
    /// Every whole round.
    pub rounds: Vec<RoundRecord>,
}

impl<M: std::fmt::Debug> Stopped<M> {
    /// Before the first round.
    pub(crate) fn at_once(error: Error, model: M) -> Self {
        Self { error, last_good: Box::new(model), rounds: Vec::new() }
    }
}

/// Removes backdoors from `model`.
///
/// [`Observer::after_step`] may take what [`resume`] goes on from, and may end the run.
///
/// Rounds within the bounds are preferred to rounds outside, later ones to earlier: each round
/// removes more, and the bounds guard against the dip in helpfulness that early rounds show.
/// A round whose estimates exceed a bound, which so few rows cannot show, comes after one whose
/// estimates do not. Where no round is within the bounds the one that exceeds them least is kept,
/// and [`RoundRecord::within_bounds`] says so.
///
/// # Errors
///
/// [`Stopped`] with [`Error::NonFinite`], with [`Error::Interrupted`] if the observer ends it, or with the input's
/// mistake before the first round.
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

/// Goes on with a run of [`solve`], from the same `model`, sets and config, as if it had never stopped: on the same
/// backend and machine the outcome is the same bit for bit.
///
/// # Errors
///
/// As [`solve`], and [`Error::MalformedSnapshot`] if `saved` is not of such a run.
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

/// A run that starts from `model`, or goes on from what is saved.
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
    // Gone before the first step: the weights it shares need not stay.
    let original = model.clone();
    Run::restore(model, sets, spec, saved).map_err(|error| Stopped::at_once(error, original))
}

/// The run to its end, by the first of several workers: it alone validates, decides when to stop and is heard.
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

/// Takes every step, and returns what was measured before the first.
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
        // The others are told before they wait for a step that never comes.
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

/// Measures the suspect, and whether it is one to work on.
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

/// The run of another worker than the first.
///
/// # Errors
///
/// What the first stops with, or [`Error::WorkerLost`].
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

/// Whether the first worker has said that this is the end.
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
