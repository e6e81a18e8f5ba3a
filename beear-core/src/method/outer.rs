//! The outer level, adversarial removal: trains the weights to behave under the found `δ`s.
//!
//! $$\theta^\ast = \arg\min_\theta \mathcal{L}_\text{out}(\theta)$$ by `AdamW`, with the loss of
//! [`crate::objective::removal`], in a cycle over the `δ`s of the round. The alternation is plain,
//! as in the paper: no gradient flows through the inner level.

use burn::tensor::backend::AutodiffBackend;

use super::activation_checkpointing::checkpointed_gradient;
use super::outer_level::{self, OuterLevel};
use super::removal_gradient::{RemovalTask, whole_gradient};
use crate::batch::example::{AnchorSets, Example, SafetyExample};
use crate::batch::sampler::AnchorSampler;
use crate::config::{BilevelConfig, RemoveConfig};
use crate::decoder::TrainableDecoder;
use crate::error::Error;
use crate::event::Observer;
use crate::objective::removal::RemovalWeights;
use crate::optim::weight_step::{LossGradient, StepGradient, WeightStep};
use crate::parallel::rank::Rank;
use crate::parallel::threads::{in_parallel, join_graphs, replica};
use crate::perturbation::Perturbation;
use crate::state::progress::OuterNumbers;
use crate::state::snapshot::{Saved, Tensors};

/// Trainer of the weights. It keeps the optimiser's moments, the position in the data and the
/// original model from round to round.
pub struct Remover<B: AutodiffBackend, M: TrainableDecoder<B>> {
    config: RemoveConfig,
    original: Option<M::InnerModule>,
    weight_step: WeightStep<B, M>,
    rows: AnchorSampler,
    rank: Rank,
}

impl<B: AutodiffBackend, M: TrainableDecoder<B>> Remover<B, M> {
    /// Creates a trainer for `model`, which is also the reference of the divergence. `total_steps`
    /// is the number of outer steps of the whole run, for the schedule.
    ///
    /// # Panics
    ///
    /// Panics if a set is empty.
    pub fn new(
        model: &M,
        sets: &AnchorSets,
        config: &RemoveConfig,
        total_steps: usize,
        seed: u64,
    ) -> Self {
        Self {
            config: config.clone(),
            original: (config.divergence_weight > 0.0).then(|| model.valid()),
            weight_step: WeightStep::new(config, total_steps, seed),
            rows: AnchorSampler::new(sets, seed),
            rank: Rank::ALONE.on_threads(config.threads),
        }
    }

    /// Returns a factory of the outer level of a run with `config`, on one of its ranks.
    pub(crate) fn factory(
        config: &BilevelConfig,
        rank: Rank,
    ) -> impl Fn(&M, &AnchorSets, f64) -> Box<dyn OuterLevel<B, M>> + '_ {
        move |model, sets, rate_factor| {
            let config = config.clone().at_rate(rate_factor);
            let total_steps = config.rounds * config.remove.steps;
            let remover = Self::new(model, sets, &config.remove, total_steps, config.seed);
            Box::new(remover.among(rank))
        }
    }

    /// Sets the rank. Each rank has a replica of the model, and all take the same steps.
    pub(crate) fn among(self, rank: Rank) -> Self {
        let rank = rank.on_threads(self.config.threads);
        Self { rank, weight_step: self.weight_step.among(rank), ..self }
    }

    /// Takes the steps of one round under each of `perturbations` in turn; an empty list means
    /// plain safety fine-tuning.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] with the examples of the batch. `model` is lost in that case, so keep a
    /// clone.
    pub fn remove(
        &mut self,
        mut model: M,
        perturbations: &[Perturbation<B::InnerBackend>],
        sets: &AnchorSets,
        observer: &mut dyn Observer,
    ) -> Result<M, Error> {
        for k in 0..self.config.steps {
            let perturbation = perturbations.get(k % perturbations.len().max(1));
            let is_last = k + 1 == self.config.steps;
            model = self.step(model, (perturbation, is_last), sets, observer)?;
        }
        Ok(model)
    }
}

impl<B: AutodiffBackend, M: TrainableDecoder<B>> OuterLevel<B, M> for Remover<B, M> {
    fn step(
        &mut self,
        model: M,
        (perturbation, is_last): (Option<&Perturbation<B::InnerBackend>>, bool),
        sets: &AnchorSets,
        observer: &mut dyn Observer,
    ) -> Result<M, Error> {
        let device = model.devices().first().cloned().unwrap_or_default();
        let safe = self.rows.safety(sets, self.config.safety_batch_size);
        let safe: Vec<Example> = safe.into_iter().map(SafetyExample::toward_safe).collect();
        let ordinary = self.rows.performance(sets, self.config.performance_batch_size);
        let ids = |rows: &[Example]| rows.iter().map(|row| row.id).collect::<Vec<_>>();
        let (safety_ids, performance_ids) = (ids(&safe), ids(&ordinary));
        let n_parts = self.rank.n_parts(safe.len().max(ordinary.len()));
        let cut = |rows: &[Example]| self.rank.batches(rows, n_parts, &device);
        let parts = cut(&safe).into_iter().zip(cut(&ordinary)).map(|batches| {
            // Models are sent to other threads by value.
            (replica::<B, M>(&model), self.original.clone(), batches)
        });
        let losses = in_parallel(parts, |(model, original, (safe, performance))| {
            let task = RemovalTask {
                original: original.as_ref(),
                perturbation,
                safe: &safe,
                performance: &performance,
                weights: RemovalWeights::from(&self.config),
            };
            if self.config.activation_checkpointing {
                checkpointed_gradient(&model, task)
            } else {
                join_graphs::<B, M>(&model);
                whole_gradient(&model, task)
            }
        });
        let gradient = StepGradient {
            loss: LossGradient::sum(losses, &model),
            safety: &safety_ids,
            performance: &performance_ids,
            is_last,
        };
        self.weight_step.step(model, gradient, observer)
    }

    fn save(&self, model: &M, tensors: &mut Tensors) -> OuterNumbers {
        outer_level::save((&self.weight_step, &self.rows), model, tensors)
    }

    fn restore(
        self: Box<Self>,
        (model, sets): (&M, &AnchorSets),
        (saved, numbers): (Saved<'_>, &OuterNumbers),
    ) -> Result<Box<dyn OuterLevel<B, M>>, Error> {
        let (weight_step, rows) =
            outer_level::restore(self.weight_step, (model, sets), (saved, numbers))?;
        Ok(Box::new(Self { weight_step, rows, ..*self }))
    }
}
