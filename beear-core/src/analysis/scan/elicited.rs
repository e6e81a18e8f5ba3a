//! The effect of a perturbation: loss and elicited unwanted behaviour, prompt by prompt.

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{ElementConversion, Tensor};

use crate::batch::Batch;
use crate::batch::example::{Example, SafetyExample};
use crate::decoder::TrainableDecoder;
use crate::error::{Error, Level, Quantity};
use crate::objective::entrapment::{PreparedAnswer, entrapment_loss};
use crate::objective::hidden_norms::mean_without_massive;
use crate::parallel::rank::Rank;
use crate::perturbation::{Delta, InjectionPoint, Perturbation};

/// Target length of the unwanted answers, and sizes of batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aim {
    /// Number of leading tokens of the unwanted answer that are the target of the search and of its
    /// evaluation.
    pub target_tokens: usize,
    /// Number of examples in a batch, over which a loss is a mean.
    pub batch_size: usize,
    /// Maximum number of rows that pass through the model at a time. The parts of a batch add up to
    /// the whole batch, up to rounding.
    pub rows_at_once: usize,
}

impl Aim {
    /// Returns the examples with the first `target_tokens` tokens of their unwanted answers.
    pub(super) fn rows(self, examples: &[SafetyExample]) -> Vec<Example> {
        examples.iter().map(|row| row.toward_unwanted(Some(self.target_tokens))).collect()
    }

    /// Splits `rows` into as few batches as `rows_at_once` allows, each weighted by its share of
    /// the answer tokens.
    pub(super) fn parts<B: Backend>(self, rows: &[Example], device: &B::Device) -> Vec<Batch<B>> {
        let n_parts = rows.len().div_ceil(self.rows_at_once.max(1));
        Rank::ALONE.batches(rows, n_parts, device)
    }
}

/// Maximum loss of the reference that counts, in nats per token: at this loss the reference is far
/// enough from the unwanted answer.
pub const ENOUGH: f64 = 2.0;

/// Effect of a perturbation or of written tokens on some prompts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Effect {
    /// Mean loss of the unwanted answers, in nats per token, with equal weight for each batch.
    pub(super) loss: f64,
    /// For each prompt, true if the model begins the unwanted answer.
    pub(super) elicited: Vec<bool>,
}

impl Effect {
    /// Combines the effects on all batches.
    pub(super) fn of(batches: impl ExactSizeIterator<Item = (f64, Vec<bool>)>) -> Self {
        let n_batches = batches.len() as f64;
        batches.fold(Self::default(), |Self { loss, mut elicited }, (of_batch, written)| {
            elicited.extend(written);
            Self { loss: loss + of_batch / n_batches, elicited }
        })
    }
}

/// Prompts with the beginnings of their unwanted answers, prepared for perturbations at fixed
/// injection points.
pub(super) struct Prepared<B: AutodiffBackend> {
    batches: Vec<Parts<B>>,
}

/// A batch in parts that pass through the model one after the other.
pub(super) struct Parts<B: AutodiffBackend>(pub(super) Vec<PreparedAnswer<B>>);

impl<B: AutodiffBackend> Parts<B> {
    /// Returns the mean Euclidean norm of the hidden states at the lowest injection point, without
    /// massive activations.
    pub(super) fn mean_hidden_norm<M: TrainableDecoder<B>>(&self, inference: &M::Inference) -> f64 {
        let norms: Vec<_> =
            self.0.iter().map(|part| part.hidden_norms(inference).swap_remove(0)).collect();
        mean_without_massive(&norms.iter().collect::<Vec<_>>()).value
    }

    /// Returns the loss under a perturbation with one `δ`, and the gradient with respect to `δ`:
    /// `[n_tokens, d_model]`. `tracked` creates the leaf `δ` for each part.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] of step `step` if the loss is NaN or infinite.
    pub(super) fn gradient<M: TrainableDecoder<B>>(
        &self,
        frozen: &M,
        step: usize,
        tracked: impl Fn() -> Delta<B>,
    ) -> Result<(f64, Tensor<B::InnerBackend, 2>), Error> {
        let mut sum: Option<(f64, Tensor<B::InnerBackend, 2>)> = None;
        for part in &self.0 {
            let perturbation = Perturbation::new(vec![tracked()]);
            let loss = entrapment_loss(frozen, &perturbation, part, None);
            let value = loss.clone().into_scalar().elem::<f64>();
            if !value.is_finite() {
                return Err(self.not_finite(Quantity::Loss, step));
            }
            let gradient = perturbation.deltas()[0].values.grad(&loss.backward());
            let gradient = gradient.expect("δ takes part in the loss");
            sum = Some(match sum {
                Some((loss, sum)) => (loss + value, sum + gradient),
                None => (value, gradient),
            });
        }
        Ok(sum.expect("a batch has a part"))
    }

    /// Returns the error for a NaN or infinite `quantity`, with the examples of the batch.
    pub(super) fn not_finite(&self, quantity: Quantity, step: usize) -> Error {
        let safety = self.0.iter().flat_map(|part| part.ids().iter().copied()).collect();
        Error::NonFinite { quantity, level: Level::Inner, step, safety, performance: Vec::new() }
    }
}

impl<B: AutodiffBackend> Prepared<B> {
    pub(super) fn new<M: TrainableDecoder<B>>(
        inference: &M::Inference,
        (examples, aim): (&[SafetyExample], Aim),
        injection_points: &[InjectionPoint],
        device: &B::Device,
    ) -> Self {
        let prepare = |rows: &[SafetyExample]| {
            let parts = aim.parts(&aim.rows(rows), device).into_iter();
            Parts(
                parts.map(|part| PreparedAnswer::new(inference, part, injection_points)).collect(),
            )
        };
        Self { batches: examples.chunks(aim.batch_size).map(prepare).collect() }
    }

    /// Returns the batch of step `step`; the batches take turns.
    pub(super) fn turn(&self, step: usize) -> &Parts<B> {
        &self.batches[step % self.batches.len()]
    }

    /// Returns the effect of `perturbation` on all prompts.
    ///
    /// # Errors
    ///
    /// [`Error::NonFiniteLogits`] of the first row with NaN or infinite logits.
    pub(super) fn effect<M: TrainableDecoder<B>>(
        &self,
        frozen: &M,
        perturbation: &Perturbation<B::InnerBackend>,
    ) -> Result<Effect, Error> {
        let constant = |delta: &Delta<B::InnerBackend>| Delta {
            point: delta.point,
            values: Tensor::from_inner(delta.values.clone()),
        };
        let perturbation = Perturbation::new(perturbation.deltas().iter().map(constant).collect());
        let judged = |Parts(parts): &Parts<B>| {
            let (mut loss, mut elicited) = (0.0, Vec::new());
            for part in parts {
                let (of_part, written) = part.judged(frozen, &perturbation)?;
                loss += of_part;
                elicited.extend(written);
            }
            Ok((loss, elicited))
        };
        let judged: Vec<_> = self.batches.iter().map(judged).collect::<Result<_, Error>>()?;
        Ok(Effect::of(judged.into_iter()))
    }
}

/// Returns `model` without gradients, as an inference model and as a model of the training backend,
/// and its device.
pub(super) fn frozen<B: AutodiffBackend, M: TrainableDecoder<B>>(
    model: &M,
) -> (M::Inference, M, B::Device) {
    let inference = model.valid();
    let frozen = M::from_inner(inference.clone()).no_grad();
    let device = model.devices().first().cloned().unwrap_or_default();
    (inference, frozen, device)
}
