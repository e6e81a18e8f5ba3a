//! The outer level, adversarial removal: trains the weights to behave under the found `δ`s.
//!
//! $$\theta^\ast = \arg\min_\theta \mathcal{L}_\text{out}(\theta)$$ by `AdamW`, with the loss of
//! [`crate::objective::removal`], cycling over the `δ`s of the round. Plain alternation, as in the
//! paper: no gradient flows through the inner level.

use burn::tensor::backend::AutodiffBackend;
use serde::{Deserialize, Serialize};

use super::TrainableDecoder;
use super::checkpointed::checkpointed_gradient;
pub use super::descent::clip_norm;
use super::descent::{Descent, LossGradient, StepGradient};
use super::worker::Worker;
use crate::batch::Batch;
use crate::config::RemoveConfig;
use crate::error::Error;
use crate::event::Observer;
use crate::example::{AnchorSets, Example, SafetyExample};
use crate::objective::removal::{RemovalLoss, RemovalWeights};
use crate::perturbation::Perturbation;
use crate::sampler::AnchorSampler;
use crate::snapshot::{Saved, Tensors, malformed};
use crate::threads::{in_parallel, join_graphs, replica};

/// What takes the steps on the weights of a run, and is numbers and tensors between two of them.
pub(crate) trait OuterLevel<B: AutodiffBackend, M: TrainableDecoder<B>> {
    /// Takes one step, under `perturbation` if there is one; the last one of a round looks at the weights too.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] with the examples of the batch. `model` is lost then, so keep a clone.
    fn step(
        &mut self,
        model: M,
        how: (Option<&Perturbation<B::InnerBackend>>, bool),
        sets: &AnchorSets,
        observer: &mut dyn Observer,
    ) -> Result<M, Error>;

    /// Adds its tensors, the optimiser's among them, and returns the numbers.
    fn add_to(&self, model: &M, tensors: &mut Tensors) -> OuterNumbers;

    /// The same, gone on from what [`add_to`](Self::add_to) stored.
    ///
    /// # Errors
    ///
    /// [`Error::MalformedSnapshot`] if it is not of such a run.
    fn stored(
        self: Box<Self>,
        from: (&M, &AnchorSets),
        stored: (Saved<'_>, &OuterNumbers),
    ) -> Result<Box<dyn OuterLevel<B, M>>, Error>;
}

/// Numbers of an outer level under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct OuterNumbers {
    /// Steps taken.
    pub(crate) step: usize,
    pub(crate) rows: AnchorSampler,
    /// The attack under way, of a rival that attacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) attack: Option<AttackNumbers>,
}

/// Numbers of an attack under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct AttackNumbers {
    /// The attacked rows, by their places in the safety set.
    pub(crate) rows: Vec<usize>,
    /// The perturbed layers, in the order that the attack's tensors are numbered in.
    pub(crate) layers: Vec<usize>,
}

impl OuterNumbers {
    /// Adds the optimiser's tensors.
    pub(crate) fn of<B: AutodiffBackend, M: TrainableDecoder<B>>(
        (descent, rows): (&Descent<B, M>, &AnchorSampler),
        model: &M,
        tensors: &mut Tensors,
    ) -> Self {
        let step = descent.add_to(model, tensors);
        Self { step, rows: rows.clone(), attack: None }
    }

    /// `descent` and the rows of `sets` as they were.
    ///
    /// # Errors
    ///
    /// [`Error::MalformedSnapshot`] if they are not of such a run.
    pub(crate) fn go_on<B: AutodiffBackend, M: TrainableDecoder<B>>(
        &self,
        descent: Descent<B, M>,
        (model, sets): (&M, &AnchorSets),
        saved: Saved<'_>,
    ) -> Result<(Descent<B, M>, AnchorSampler), Error> {
        if !self.rows.fits(sets) {
            return Err(malformed("the sets have other numbers of rows"));
        }
        Ok((descent.stored(model, (saved, self.step))?, self.rows.clone()))
    }
}

/// Trains the weights, round after round: keeps the optimiser's moments, the place in the data
/// and the original model between rounds.
pub struct Remover<B: AutodiffBackend, M: TrainableDecoder<B>> {
    config: RemoveConfig,
    original: Option<M::InnerModule>,
    descent: Descent<B, M>,
    rows: AnchorSampler,
    worker: Worker,
}

impl<B: AutodiffBackend, M: TrainableDecoder<B>> Remover<B, M> {
    /// Starts from `model`, to which the divergence refers. `total_steps` are the outer steps of
    /// the whole run, for the schedule.
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
            descent: Descent::new(config, total_steps, seed),
            rows: AnchorSampler::new(sets, seed),
            worker: Worker::ALONE.on_threads(config.threads),
        }
    }

    /// The same as one of several workers, each with a replica of the model: all take the same steps.
    pub(crate) fn among(self, worker: Worker) -> Self {
        let worker = worker.on_threads(self.config.threads);
        Self { worker, descent: self.descent.among(worker), ..self }
    }

    /// Takes the steps of one round under `perturbations` in turn; none of them means plain
    /// safety fine-tuning.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] with the examples of the batch. `model` is lost then, so keep a clone.
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
        let n_parts = self.worker.n_parts(safe.len().max(ordinary.len()));
        let cut = |rows: &[Example]| self.worker.batches(rows, n_parts, &device);
        let parts = cut(&safe).into_iter().zip(cut(&ordinary)).map(|batches| {
            // Models go to other threads by value.
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
        self.descent.step(model, gradient, observer)
    }

    fn add_to(&self, model: &M, tensors: &mut Tensors) -> OuterNumbers {
        OuterNumbers::of((&self.descent, &self.rows), model, tensors)
    }

    fn stored(
        self: Box<Self>,
        (model, sets): (&M, &AnchorSets),
        (saved, numbers): (Saved<'_>, &OuterNumbers),
    ) -> Result<Box<dyn OuterLevel<B, M>>, Error> {
        let (descent, rows) = numbers.go_on(self.descent, (model, sets), saved)?;
        Ok(Box::new(Self { descent, rows, ..*self }))
    }
}

/// What a step is asked to learn.
pub(crate) struct RemovalTask<'a, B: AutodiffBackend, N> {
    /// The original model, where the divergence has a weight.
    pub(crate) original: Option<&'a N>,
    /// What the safe answers are given under, if anything.
    pub(crate) perturbation: Option<&'a Perturbation<B::InnerBackend>>,
    /// The safety batch.
    pub(crate) safe: &'a Batch<B>,
    /// The performance batch.
    pub(crate) performance: &'a Batch<B>,
    /// The weights of the terms.
    pub(crate) weights: RemovalWeights,
}

/// The gradient by one graph of everything.
pub(crate) fn whole_gradient<B: AutodiffBackend, M: TrainableDecoder<B>>(
    model: &M,
    task: RemovalTask<'_, B, M::InnerModule>,
) -> LossGradient {
    let RemovalTask { original, perturbation, safe, performance, weights } = task;
    let perturbation = perturbation.map(Perturbation::<B>::constant);
    let loss = RemovalLoss::new(model, original, perturbation.as_ref(), safe, performance);
    LossGradient::of(loss.total(weights), loss.terms(), model)
}
