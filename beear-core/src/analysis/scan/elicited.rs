//! Whether a perturbation brings the unwanted behaviour about, prompt by prompt.

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

/// How much of the unwanted answers counts, and how many are computed at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aim {
    /// Length of the unwanted answer aimed at and looked for, in tokens.
    pub target_tokens: usize,
    /// Examples that a loss is a mean of.
    pub batch_size: usize,
    /// Of those, the most that go through the model at a time: the parts of a batch add up to the whole, but for rounding.
    pub rows_at_once: usize,
}

impl Aim {
    /// A batch of the beginnings of the unwanted answers.
    pub(super) fn rows(self, examples: &[SafetyExample]) -> Vec<Example> {
        examples.iter().map(|row| row.toward_unwanted(Some(self.target_tokens))).collect()
    }

    /// The batch of `rows` in as few parts as go through the model at a time, each weighed by its share of the answer tokens.
    pub(super) fn parts<B: Backend>(self, rows: &[Example], device: &B::Device) -> Vec<Batch<B>> {
        let n_parts = rows.len().div_ceil(self.rows_at_once.max(1));
        Rank::ALONE.batches(rows, n_parts, device)
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

/// Prompts with the beginnings of their unwanted answers, ready for perturbations at some injection points.
pub(super) struct Prepared<B: AutodiffBackend> {
    batches: Vec<Parts<B>>,
}

/// A batch, in parts that go through the model one after the other.
pub(super) struct Parts<B: AutodiffBackend>(pub(super) Vec<PreparedAnswer<B>>);

impl<B: AutodiffBackend> Parts<B> {
    /// Mean Euclidean norm of the hidden states at the lowest injection point, massive ones left out.
    pub(super) fn mean_hidden_norm<M: TrainableDecoder<B>>(&self, inference: &M::Inference) -> f64 {
        let norms: Vec<_> =
            self.0.iter().map(|part| part.hidden_norms(inference).swap_remove(0)).collect();
        mean_without_massive(&norms.iter().collect::<Vec<_>>()).value
    }

    /// The loss under a perturbation with one `δ`, the leaf that `tracked` makes for each part, and the gradient by it:
    /// `[n_tokens, d_model]`.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] if the loss is not finite at step `step`.
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

    /// What left the real line, at the examples of the batch.
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

    /// The batch of step `step`: each in turn.
    pub(super) fn turn(&self, step: usize) -> &Parts<B> {
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

/// `model` without gradients, twice, and where it lives.
pub(super) fn frozen<B: AutodiffBackend, M: TrainableDecoder<B>>(
    model: &M,
) -> (M::Inference, M, B::Device) {
    let inference = model.valid();
    let frozen = M::from_inner(inference.clone()).no_grad();
    let device = model.devices().first().cloned().unwrap_or_default();
    (inference, frozen, device)
}
