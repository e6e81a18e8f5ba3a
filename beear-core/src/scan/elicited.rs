//! Whether a perturbation brings the unwanted behaviour about, prompt by prompt.

use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;

use crate::batch::Batch;
use crate::error::{Error, Level, Quantity};
use crate::example::{Example, SafetyExample};
use crate::objective::entrapment::PreparedAnswer;
use crate::perturbation::{Delta, Perturbation, Spot};
use crate::solver::TrainableDecoder;

/// How much of the unwanted answers counts, and how many are computed at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aim {
    /// Length of the unwanted answer aimed at and looked for, in tokens.
    pub target_tokens: usize,
    /// Examples at a time.
    pub batch_size: usize,
}

impl Aim {
    /// A batch of the beginnings of the unwanted answers.
    pub(super) fn rows(self, examples: &[SafetyExample]) -> Vec<Example> {
        examples.iter().map(|row| row.toward_unwanted(Some(self.target_tokens))).collect()
    }
}

/// Loss at which the reference is as far from the unwanted answer as need be, in nats per token.
pub const ENOUGH: f64 = 2.0;

/// What was done to some prompts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Effect {
    /// Mean loss of the unwanted answers, nats per token, each batch weighing the same.
    pub(super) loss: f64,
    /// Of each prompt, whether its unwanted answer begins.
    pub(super) elicited: Vec<bool>,
}

impl Effect {
    /// That of all batches together.
    pub(super) fn of(batches: impl ExactSizeIterator<Item = (f64, Vec<bool>)>) -> Self {
        let n_batches = batches.len() as f64;
        batches.fold(Self::default(), |Self { loss, mut elicited }, (of_batch, written)| {
            elicited.extend(written);
            Self { loss: loss + of_batch / n_batches, elicited }
        })
    }
}

/// Prompts with the beginnings of their unwanted answers, ready for perturbations at some spots.
pub(super) struct Prepared<B: AutodiffBackend> {
    batches: Vec<PreparedAnswer<B>>,
}

impl<B: AutodiffBackend> Prepared<B> {
    pub(super) fn new<M: TrainableDecoder<B>>(
        inference: &M::Inference,
        (examples, aim): (&[SafetyExample], Aim),
        spots: &[Spot],
        device: &B::Device,
    ) -> Self {
        let prepare = |rows: &[SafetyExample]| {
            PreparedAnswer::new(inference, Batch::new(&aim.rows(rows), device), spots)
        };
        Self { batches: examples.chunks(aim.batch_size).map(prepare).collect() }
    }

    /// The batch of step `step`: each in turn.
    pub(super) fn turn(&self, step: usize) -> &PreparedAnswer<B> {
        &self.batches[step % self.batches.len()]
    }

    /// What `perturbation` does.
    ///
    /// # Errors
    ///
    /// [`Error::NonFiniteLogits`] of the first row that has any.
    pub(super) fn effect<M: TrainableDecoder<B>>(
        &self,
        frozen: &M,
        perturbation: &Perturbation<B::InnerBackend>,
    ) -> Result<Effect, Error> {
        let constant = |delta: &Delta<B::InnerBackend>| Delta {
            spot: delta.spot,
            values: Tensor::from_inner(delta.values.clone()),
        };
        let perturbation = Perturbation::new(perturbation.deltas().iter().map(constant).collect());
        let judged = self.batches.iter().map(|answer| answer.judged(frozen, &perturbation));
        Ok(Effect::of(judged.collect::<Result<Vec<_>, _>>()?.into_iter()))
    }
}

/// `model` without gradients, twice, and where it lives.
pub(super) fn frozen<B: AutodiffBackend, M: TrainableDecoder<B>>(
    model: &M,
) -> (M::Inference, M, B::Device) {
    let inference = model.valid();
    let frozen = M::from_inner(inference.clone()).no_grad();
    let device = model.devices().first().cloned().unwrap_or_default();
    (inference, frozen, device)
}

/// What left the real line, at which examples.
pub(super) fn not_finite<B: AutodiffBackend>(
    quantity: Quantity,
    step: usize,
    answer: &PreparedAnswer<B>,
) -> Error {
    let (safety, performance) = (answer.ids().to_vec(), Vec::new());
    Error::NonFinite { quantity, level: Level::Inner, step, safety, performance }
}
