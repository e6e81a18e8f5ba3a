//! Saving and restoring of a run between two steps, as numbers and tensors.

use burn::tensor::backend::AutodiffBackend;

use super::{Best, Run, RunSpec};
use crate::batch::example::AnchorSets;
use crate::decoder::TrainableDecoder;
use crate::error::Error;
use crate::method::inner::{Entrapment, InnerRun};
use crate::optim::saved_weights::{add_weights, stored_weights};
use crate::perturbation::{Delta, InjectionPoint, Perturbation, by_layer};
use crate::state::progress::{FoundNumbers, InnerNumbers, Progress, RunNumbers};
use crate::state::snapshot::{Saved, Snapshot, Tensors, malformed};

// Names of tensors in a snapshot.
const ROUND_START: &str = "round_start";
const REMOVING: &str = "removing";
const BEST: &str = "best";
const FOUND: &str = "found";
const INNER: &str = "inner";

impl<'a, B: AutodiffBackend, M: TrainableDecoder<B>> Run<'a, B, M> {
    /// Returns the complete state from which the run can resume.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut tensors = Tensors::default();
        let outer = self.outer.save(&self.round_start, &mut tensors);
        if self.n_rounds > 0 {
            add_weights::<B, M>(&self.round_start, ROUND_START, &mut tensors);
        }
        if let Some(model) = &self.removing {
            add_weights::<B, M>(model, REMOVING, &mut tensors);
        }
        // The last round is usually the best, and its weights are already in the snapshot.
        if let Some(best) = self.best.as_ref().filter(|best| best.round + 1 < self.rounds.len()) {
            add_weights::<B, M>(&best.model, BEST, &mut tensors);
        }
        let found = self.first_found()..;
        let found = found.zip(&self.found).map(|(count, found)| {
            for (k, delta) in found.perturbation.deltas().iter().enumerate() {
                tensors.add(format!("{FOUND}.{count}.{k}"), delta.values.clone());
            }
            FoundNumbers {
                count,
                injection_points: found.perturbation.injection_points(),
                first_loss: found.first_loss,
                last_loss: found.last_loss,
            }
        });
        let found = found.collect();
        let inner = self.counts_of_group().zip(&self.inner);
        let inner =
            inner.map(|(count, fit)| fit.save(count, &format!("{INNER}.{count}"), &mut tensors));
        let inner = inner.collect();
        let progress = Progress(RunNumbers {
            n_steps: self.n_steps,
            rate_factor: self.rate_factor,
            initial: self.initial.clone(),
            rounds: self.rounds.clone(),
            best: self.best.as_ref().map(|best| (best.round, best.standing)),
            found,
            inner,
            n_removed: self.n_removed,
            outer,
        });
        Snapshot { progress, tensors: tensors.0 }
    }

    /// Restores a run on `sets` that started from `model`.
    ///
    /// # Errors
    ///
    /// [`Error::MalformedSnapshot`] if the snapshot does not belong to such a run.
    pub(crate) fn restore(
        model: M,
        sets: &'a AnchorSets,
        spec: &RunSpec<'_, B, M>,
        saved: Saved<'_>,
    ) -> Result<Self, Error> {
        let (numbers, config) = (&saved.progress.0, spec.config);
        let steps = numbers.outer.step;
        let n_rounds = numbers.rounds.len();
        let in_round = if n_rounds > 0 && steps == n_rounds * config.remove.steps {
            [0, config.remove.steps].contains(&numbers.n_removed)
        } else {
            numbers.n_removed < config.remove.steps
                && steps == n_rounds * config.remove.steps + numbers.n_removed
        };
        if !in_round || n_rounds > config.rounds || (n_rounds == 0) != numbers.best.is_none() {
            return Err(malformed("its steps are not those of the settings"));
        }
        let run = Self::at_rate(model, sets, spec, numbers.rate_factor);
        let device = run.round_start.devices().first().cloned().unwrap_or_default();
        let weights = |prefix: &str| stored_weights::<B, M>(run.round_start.clone(), prefix, saved);
        let round_start =
            if n_rounds > 0 { weights(ROUND_START)? } else { run.round_start.clone() };
        let is_under_way = (1..config.remove.steps).contains(&numbers.n_removed);
        let removing = if is_under_way { Some(weights(REMOVING)?) } else { None };
        let best = match numbers.best {
            Some((round, _)) if round >= n_rounds => {
                return Err(malformed("a round that is not over is kept"));
            }
            Some((round, standing)) if round + 1 < n_rounds => {
                Some(Best { model: weights(BEST)?, round, standing })
            }
            Some((round, standing)) => Some(Best { model: round_start.clone(), round, standing }),
            None => None,
        };
        let outer = run.outer.restore((&round_start, sets), (saved, &numbers.outer))?;
        let run = Self {
            n_steps: numbers.n_steps,
            initial: numbers.initial.clone(),
            rounds: numbers.rounds.clone(),
            best,
            n_rounds,
            round_start,
            removing,
            n_removed: numbers.n_removed,
            outer,
            ..run
        };
        let found = run.stored_found(saved, &device)?;
        let run = Self { found, ..run };
        let inner = run.stored_group(saved)?;
        Ok(Self { inner, ..run })
    }

    /// Returns the number of perturbations of the run before those of [`found`](Self::found).
    fn first_found(&self) -> usize {
        let n_rounds = self.n_rounds - usize::from(self.is_between_rounds());
        n_rounds * self.config.perturbations_per_round
    }

    /// Restores the perturbations that were found.
    fn stored_found(
        &self,
        saved: Saved<'_>,
        device: &B::Device,
    ) -> Result<Vec<Entrapment<B::InnerBackend>>, Error> {
        let numbers = &saved.progress.0.found;
        let (first, in_round) = (self.first_found(), self.config.perturbations_per_round);
        let counts = first..first + numbers.len();
        let is_enough = self.n_removed == 0 || numbers.len() == in_round;
        if !numbers.iter().map(|found| found.count).eq(counts)
            || numbers.len() > in_round
            || !is_enough
        {
            return Err(malformed("the perturbations found are of another part of the run"));
        }
        let d_model = self.round_start.d_model();
        let found = |numbers: &FoundNumbers| {
            let FoundNumbers { count, injection_points, first_loss, last_loss } = numbers;
            if *injection_points != by_layer(self.config.injection_points_of(*count).to_vec()) {
                return Err(malformed(format!(
                    "perturbation {count} acts at other injection points"
                )));
            }
            let delta = |(k, &point): (usize, &InjectionPoint)| {
                let shape = [point.positions.n_tokens(), d_model];
                let values = saved.tensor(&format!("{FOUND}.{count}.{k}"), Some(shape), device)?;
                Ok(Delta { point, values })
            };
            let deltas = injection_points
                .iter()
                .enumerate()
                .map(delta)
                .collect::<Result<Vec<_>, Error>>()?;
            let perturbation = Perturbation::new(deltas);
            Ok(Entrapment { perturbation, first_loss: *first_loss, last_loss: *last_loss })
        };
        numbers.iter().map(found).collect()
    }

    /// Restores the perturbations that were being fitted.
    fn stored_group(&self, saved: Saved<'_>) -> Result<Vec<InnerRun<B, M>>, Error> {
        let numbers = &saved.progress.0.inner;
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        if !numbers.iter().map(|inner| inner.count).eq(self.counts_of_group()) {
            return Err(malformed("the perturbations being fitted are not those of the settings"));
        }
        let inner = |numbers: &InnerNumbers| {
            let (how, name) =
                (self.how_to_fit(numbers.count), format!("{INNER}.{}", numbers.count));
            let place = (self.config.injection_points_of(numbers.count), name.as_str());
            InnerRun::restore(&self.round_start, &self.sets.safety, place, how, (saved, numbers))
        };
        numbers.iter().map(inner).collect()
    }
}
