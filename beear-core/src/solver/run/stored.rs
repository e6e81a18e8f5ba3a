//! A run between two steps as numbers and tensors, and back.

use burn::tensor::backend::AutodiffBackend;
use serde::{Deserialize, Serialize};

use super::{Best, How, Run, Standing};
use crate::error::Error;
use crate::example::AnchorSets;
use crate::perturbation::{Delta, Perturbation, Spot};
use crate::snapshot::{Progress, Saved, Snapshot, Tensors, malformed};
use crate::solver::TrainableDecoder;
use crate::solver::bilevel::RoundRecord;
use crate::solver::inner::{Entrapment, Fitting, FittingNumbers};
use crate::solver::outer::OuterNumbers;
use crate::solver::saved_weights::{add_weights, stored_weights};
use crate::validation::ValidationMetrics;

// Names of tensors in a snapshot.
const ROUND_START: &str = "round_start";
const REMOVING: &str = "removing";
const BEST: &str = "best";
const FOUND: &str = "found";
const FITTING: &str = "fitting";

/// The numbers of a [`Run`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RunNumbers {
    pub(crate) n_steps: usize,
    pub(crate) rate_factor: f64,
    initial: Option<ValidationMetrics>,
    pub(crate) rounds: Vec<RoundRecord>,
    /// The kept round.
    best: Option<(usize, Standing)>,
    found: Vec<FoundNumbers>,
    pub(crate) fitting: Vec<FittingNumbers>,
    n_removed: usize,
    outer: OuterNumbers,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct FoundNumbers {
    spots: Vec<Spot>,
    first_loss: f64,
    last_loss: f64,
}

impl<'a, B: AutodiffBackend, M: TrainableDecoder<B>> Run<'a, B, M> {
    /// Everything to go on from.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut tensors = Tensors::default();
        let outer = self.outer.add_to(&self.round_start, &mut tensors);
        if self.n_rounds > 0 {
            add_weights::<B, M>(&self.round_start, ROUND_START, &mut tensors);
        }
        if let Some(model) = &self.removing {
            add_weights::<B, M>(model, REMOVING, &mut tensors);
        }
        // Mostly the last round is the best.
        if let Some(best) = self.best.as_ref().filter(|best| best.round + 1 < self.rounds.len()) {
            add_weights::<B, M>(&best.model, BEST, &mut tensors);
        }
        for (p, found) in self.found.iter().enumerate() {
            for (k, delta) in found.perturbation.deltas().iter().enumerate() {
                tensors.add(format!("{FOUND}.{p}.{k}"), delta.values.clone());
            }
        }
        let fitting = self.fitting.iter().enumerate();
        let fitting = fitting.map(|(p, fit)| fit.add_to(&format!("{FITTING}.{p}"), &mut tensors));
        let fitting = fitting.collect();
        let found = self.found.iter().map(|found| FoundNumbers {
            spots: found.perturbation.spots(),
            first_loss: found.first_loss,
            last_loss: found.last_loss,
        });
        let progress = Progress(RunNumbers {
            n_steps: self.n_steps,
            rate_factor: self.rate_factor,
            initial: self.initial.clone(),
            rounds: self.rounds.clone(),
            best: self.best.as_ref().map(|best| (best.round, best.standing)),
            found: found.collect(),
            fitting,
            n_removed: self.n_removed,
            outer,
        });
        Snapshot { progress, tensors: tensors.0 }
    }

    /// Goes on from a snapshot of such a run on `sets` that started from `model`.
    ///
    /// # Errors
    ///
    /// [`Error::MalformedSnapshot`] if it is not of such a run.
    pub(crate) fn stored(
        model: M,
        sets: &'a AnchorSets,
        how: How<'_>,
        saved: Saved<'_>,
    ) -> Result<Self, Error> {
        let (numbers, config) = (&saved.progress.0, how.config);
        let steps = numbers.outer.step;
        let n_rounds = numbers.rounds.len();
        let in_round = if n_rounds > 0 && steps == n_rounds * config.remove.steps {
            [0, config.remove.steps].contains(&numbers.n_removed)
        } else {
            steps == n_rounds * config.remove.steps + numbers.n_removed
        };
        if !in_round || n_rounds > config.rounds || (n_rounds == 0) != numbers.best.is_none() {
            return Err(malformed("its steps are not those of the settings"));
        }
        let run = Self::at_rate(model, sets, how, numbers.rate_factor);
        let device = run.round_start.devices().first().cloned().unwrap_or_default();
        let weights = |prefix: &str| stored_weights::<B, M>(run.round_start.clone(), prefix, saved);
        let round_start =
            if n_rounds > 0 { weights(ROUND_START)? } else { run.round_start.clone() };
        let is_under_way = (1..config.remove.steps).contains(&numbers.n_removed);
        let removing = if is_under_way { Some(weights(REMOVING)?) } else { None };
        let best = match numbers.best {
            Some((round, standing)) if round + 1 < n_rounds => {
                Some(Best { model: weights(BEST)?, round, standing })
            }
            Some((round, standing)) => Some(Best { model: round_start.clone(), round, standing }),
            None => None,
        };
        let outer = run.outer.stored((&round_start, sets), (saved, &numbers.outer))?;
        let found = stored_found::<B>(saved, &device)?;
        let run = Self {
            n_steps: numbers.n_steps,
            initial: numbers.initial.clone(),
            rounds: numbers.rounds.clone(),
            best,
            n_rounds,
            round_start,
            found,
            removing,
            n_removed: numbers.n_removed,
            outer,
            ..run
        };
        let fitting = run.stored_group(saved)?;
        Ok(Self { fitting, ..run })
    }

    /// The perturbations that were sought.
    fn stored_group(&self, saved: Saved<'_>) -> Result<Vec<Fitting<B, M>>, Error> {
        let numbers = &saved.progress.0.fitting;
        let group: Vec<usize> = self.counts_of_group().collect();
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        if numbers.len() != group.len() {
            return Err(malformed("perturbations were sought on another number of threads"));
        }
        let fitting = |(p, (&count, numbers)): (usize, (&usize, &FittingNumbers))| {
            let how = self.how_to_fit(count);
            let name = format!("{FITTING}.{p}");
            let place = (self.config.spots_of(count), name.as_str());
            let from = (saved, numbers);
            Fitting::stored(&self.round_start, &self.sets.safety, place, how, from)
        };
        group.iter().zip(numbers).enumerate().map(fitting).collect()
    }
}

fn stored_found<B: AutodiffBackend>(
    saved: Saved<'_>,
    device: &B::Device,
) -> Result<Vec<Entrapment<B::InnerBackend>>, Error> {
    let found = |(p, numbers): (usize, &FoundNumbers)| {
        let FoundNumbers { spots, first_loss, last_loss } = numbers;
        let delta = |(k, &spot): (usize, &Spot)| {
            let values = saved.tensor(&format!("{FOUND}.{p}.{k}"), None, device)?;
            Ok(Delta { spot, values })
        };
        let deltas = spots.iter().enumerate().map(delta).collect::<Result<Vec<_>, Error>>()?;
        if deltas.is_empty() {
            return Err(malformed("a perturbation has no spot"));
        }
        let perturbation = Perturbation::new(deltas);
        Ok(Entrapment { perturbation, first_loss: *first_loss, last_loss: *last_loss })
    };
    saved.progress.0.found.iter().enumerate().map(found).collect()
}
