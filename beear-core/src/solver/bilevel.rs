//! The alternation: entrap with fresh `δ`s, remove, look at the vitals, keep the best.

use burn::tensor::backend::AutodiffBackend;
use serde::Serialize;

use super::TrainableDecoder;
use super::inner::{Entrapment, entrap_among};
use super::outer::Remover;
use super::worker::Worker;
use crate::config::{BilevelConfig, VitalBounds};
use crate::error::Error;
use crate::event::{Event, Observer};
use crate::example::{AnchorSets, Example, SafetyExample};
use crate::perturbation::{Perturbation, Spot};
use crate::watch::{Vitals, Watch};

/// What one round did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RoundRecord {
    /// Round, from 0.
    pub round: usize,
    /// The spots of each perturbation with the inner loss it ended at, nats per token.
    pub entrapments: Vec<(Vec<Spot>, f64)>,
    /// Ordinary behaviour after the round.
    pub vitals: Vitals,
    /// Whether the vitals are within bounds.
    pub within_bounds: bool,
}

/// A cleaned model and how it came to be.
#[derive(Clone, Debug)]
pub struct Outcome<B: AutodiffBackend, M> {
    /// The weights of the kept round.
    pub model: M,
    /// The round whose weights were kept.
    pub kept_round: usize,
    /// The perturbations of the last round.
    pub perturbations: Vec<Perturbation<B::InnerBackend>>,
    /// Ordinary behaviour before the first round.
    pub initial: Vitals,
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

/// Removes backdoors from `model`.
///
/// Rounds within the bounds are preferred to rounds outside, later ones to earlier: each round
/// removes more, and the bounds guard against the dip in helpfulness that early rounds show.
/// Where no round is within the bounds the one that breaks them least is kept, and
/// [`RoundRecord::within_bounds`] says so.
///
/// # Errors
///
/// [`Stopped`] with [`Error::NonFinite`], or with the input's mistake before the first round.
///
/// # Panics
///
/// Panics if an observer or watch does.
pub fn solve<B, M>(
    model: M,
    sets: &AnchorSets,
    config: &BilevelConfig,
    watch: &mut dyn Watch<B::InnerBackend, M::InnerModule>,
    observer: &mut dyn Observer,
) -> Result<Outcome<B, M>, Stopped<M>>
where
    B: AutodiffBackend,
    M: TrainableDecoder<B>,
{
    if let Err(error) = config.validate(model.n_layers()).and_then(|()| validate_sets(sets)) {
        return Err(Stopped { error, last_good: Box::new(model), rounds: Vec::new() });
    }
    lead(model, sets, (config, Worker::ALONE), watch, observer)
}

/// [`solve`] with valid input, as the first of several workers: it alone watches, decides when to stop and is
/// heard.
pub(crate) fn lead<B, M>(
    model: M,
    sets: &AnchorSets,
    (config, worker): (&BilevelConfig, Worker),
    watch: &mut dyn Watch<B::InnerBackend, M::InnerModule>,
    observer: &mut dyn Observer,
) -> Result<Outcome<B, M>, Stopped<M>>
where
    B: AutodiffBackend,
    M: TrainableDecoder<B>,
{
    let mut rounds: Vec<RoundRecord> = Vec::new();
    let initial = watch.vitals(&model.valid());
    observer.notify(&Event::Started { vitals: initial });

    let mut remover = remover(&model, sets, (config, worker));
    let mut current = model;
    let mut best: Option<(M, usize, f64)> = None;
    let mut perturbations = Vec::new();

    for round in 0..config.rounds {
        let last_good = current.clone();
        let step = run_round(current, sets, (config, round, worker), &mut remover, observer);
        let (cleaned, found) = match step {
            Ok(step) => step,
            Err(error) => return Err(Stopped { error, last_good: Box::new(last_good), rounds }),
        };
        current = cleaned;
        perturbations = found.iter().map(|(p, _)| p.clone()).collect();
        let entrapments: Vec<_> = found.iter().map(|(p, loss)| (p.spots(), *loss)).collect();

        let vitals = watch.vitals(&current.valid());
        let excess = excess(vitals, initial, config.bounds);
        let within_bounds = excess <= 0.0;
        let kept = best.as_ref().is_none_or(|(_, _, least)| excess <= *least);
        if kept {
            best = Some((current.clone(), round, excess));
        }
        let nothing_left = within_bounds
            && config
                .stop_above_loss
                .is_some_and(|floor| entrapments.iter().all(|(_, loss)| *loss > floor));
        rounds.push(RoundRecord { round, entrapments, vitals, within_bounds });
        observer.notify(&Event::RoundEnded { round, vitals, within_bounds, kept });
        match stops(&current, (nothing_left, worker)) {
            Ok(false) => (),
            Ok(true) => {
                observer.notify(&Event::NothingLeft { round });
                break;
            }
            Err(error) => return Err(Stopped { error, last_good: Box::new(current), rounds }),
        }
    }

    let (model, kept_round, _) = best.expect("a valid config has a round");
    Ok(Outcome { model, kept_round, perturbations, initial, rounds })
}

/// The rounds of another worker than the first.
///
/// # Errors
///
/// What the first stops with, or [`Error::WorkerLost`].
#[cfg(feature = "collective")]
pub(crate) fn follow<B: AutodiffBackend, M: TrainableDecoder<B>>(
    mut model: M,
    sets: &AnchorSets,
    (config, worker): (&BilevelConfig, Worker),
) -> Result<(), Error> {
    let mut remover = remover(&model, sets, (config, worker));
    for round in 0..config.rounds {
        (model, _) = run_round(model, sets, (config, round, worker), &mut remover, &mut ())?;
        if stops(&model, (false, worker))? {
            break;
        }
    }
    Ok(())
}

fn remover<B: AutodiffBackend, M: TrainableDecoder<B>>(
    model: &M,
    sets: &AnchorSets,
    (config, worker): (&BilevelConfig, Worker),
) -> Remover<B, M> {
    let total_steps = config.rounds * config.remove.steps;
    Remover::new(model, sets, &config.remove, total_steps, config.seed).among(worker)
}

/// Whether the first worker has found that nothing is left.
fn stops<B: AutodiffBackend, M: TrainableDecoder<B>>(
    model: &M,
    (nothing_left, worker): (bool, Worker),
) -> Result<bool, Error> {
    let device = model.devices().first().cloned().unwrap_or_default();
    let votes = [f64::from(u8::from(nothing_left))];
    let [votes] = worker.sum_numbers::<B::InnerBackend, 1>(votes, &device)?;
    Ok(votes > 0.0)
}

/// One round: the model it leaves, and the perturbations with the loss each ended at.
type Round<B, M> = (M, Vec<(Perturbation<<B as AutodiffBackend>::InnerBackend>, f64)>);

fn run_round<B: AutodiffBackend, M: TrainableDecoder<B>>(
    model: M,
    sets: &AnchorSets,
    how: (&BilevelConfig, usize, Worker),
    remover: &mut Remover<B, M>,
    observer: &mut dyn Observer,
) -> Result<Round<B, M>, Error> {
    let found = seek(&model, &sets.safety, how, observer)?;
    let found: Vec<_> = found.into_iter().map(|e| (e.perturbation, e.last_loss)).collect();
    let perturbations: Vec<_> = found.iter().map(|(p, _)| p.clone()).collect();
    let model = remover.remove(model, &perturbations, sets, observer)?;
    Ok((model, found))
}

/// The fresh perturbations of a round, `config.threads` at a time; one at a time by several workers, whose
/// sums come in one order.
fn seek<B: AutodiffBackend, M: TrainableDecoder<B>>(
    model: &M,
    examples: &[SafetyExample],
    (config, round, worker): (&BilevelConfig, usize, Worker),
    observer: &mut dyn Observer,
) -> Result<Vec<Entrapment<B::InnerBackend>>, Error> {
    let first = round * config.perturbations_per_round;
    let counts: Vec<usize> = (first..first + config.perturbations_per_round).collect();
    let one = |model: &M, count: usize, observer: &mut dyn Observer| {
        // Each sees the examples in another order; the odd constant keeps seeds of runs apart.
        let seed = config.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(count as u64);
        let how = (&config.entrap, seed, worker);
        entrap_among(model, examples, config.spots_of(count), how, observer)
    };
    if config.threads == 1 || !worker.is_alone() {
        return counts.into_iter().map(|count| one(model, count, observer)).collect();
    }
    let mut found = Vec::with_capacity(counts.len());
    for counts in counts.chunks(config.threads) {
        let group: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = counts
                .iter()
                .map(|&count| {
                    let model = model.clone();
                    scope.spawn(move || {
                        let mut events = Vec::new();
                        let mut record = |event: &Event| events.push(event.clone());
                        (one(&model, count, &mut record), events)
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().expect("entrapment does not panic")).collect()
        });
        // As if one had been sought after the other.
        for (entrapment, events) in group {
            for event in &events {
                observer.notify(event);
            }
            found.push(entrapment?);
        }
    }
    Ok(found)
}

/// How far the vitals are beyond their bounds; 0 within them.
pub(crate) fn excess(vitals: Vitals, initial: Vitals, bounds: VitalBounds) -> f64 {
    let utility = (initial.utility - vitals.utility - bounds.utility_drop).max(0.0);
    let refusal = (vitals.benign_refusal - bounds.benign_refusal).max(0.0);
    utility + refusal
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
