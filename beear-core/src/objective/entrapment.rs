//! The loss of the inner level: the distance of `δ` from eliciting the unwanted behaviour.
//!
//! $$\mathcal{L}_\text{in}(\delta) =
//! \mathrm{CE}(y_h \mid x, \delta) - \alpha\, \mathrm{CE}(y_s \mid x, \delta)$$
//!
//! with `unwanted` = $y_h$, `safe` = $y_s$, `away_weight` = $\alpha$. Zeng et al., BEEAR, the
//! "backdoor embedding entrapment" step; the form is believed to be the paper's, and $\alpha$ to be
//! the option `alpha_far_from_safety` of the reference code.

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{ElementConversion, Tensor};

use super::answer::{cross_entropy, first_non_finite, log_probabilities, written};
use crate::batch::{Batch, Cut, PromptSpan, Split};
use crate::decoder::Context;
use crate::decoder::Decoder;
use crate::error::Error;
use crate::objective::hidden_norms::{HiddenNorms, mean_without_massive};
use crate::perturbation::{InjectionPoint, Perturbation, by_layer};

/// One answer to the prompts of a batch, with cached values for everything that does not depend on
/// `δ`.
#[derive(Clone, Debug)]
pub struct PreparedAnswer<B: AutodiffBackend> {
    /// Batch of the rows; with a cache, without the cached tokens.
    batch: Batch<B>,
    /// Hidden states at the lowest perturbed boundary: `[batch_size, seq_length, d_model]`.
    hidden: Tensor<B::InnerBackend, 3>,
    context: Context<B::InnerBackend>,
    /// Injection points in ascending order of layers.
    injection_points: Vec<InjectionPoint>,
    placements: Vec<Tensor<B, 2>>,
}

/// Minimum share of a batch's tokens for which a cache pays off: attention to cached tokens has a
/// cost of its own.
pub const LEAST_PAST: f64 = 0.2;

impl<B: AutodiffBackend> PreparedAnswer<B> {
    /// Caches everything that does not depend on `δ`: the hidden states up to the lowest injection
    /// layer and, if `model` supports a prefix cache and enough tokens precede the first perturbed
    /// one, their keys and values in the layers above.
    ///
    /// # Panics
    ///
    /// Panics if there are no injection points.
    pub fn new<M: Decoder<B::InnerBackend>>(
        model: &M,
        batch: Batch<B>,
        injection_points: &[InjectionPoint],
    ) -> Self {
        let whole = Self::whole(model, batch, injection_points);
        let starts = first_covered(&whole.batch, injection_points);
        let n_past: usize = starts.iter().sum();
        let n_tokens: usize = (0..starts.len()).map(|row| whole.batch.row_length(row)).sum();
        if (n_past as f64) < LEAST_PAST * n_tokens as f64 {
            return whole;
        }
        whole.after(model, &starts).unwrap_or(whole)
    }

    /// Prepares the answer like [`new`](Self::new), but without a prefix cache: slower, and the
    /// reference in tests.
    ///
    /// # Panics
    ///
    /// Panics if there are no injection points.
    pub fn whole<M: Decoder<B::InnerBackend>>(
        model: &M,
        batch: Batch<B>,
        injection_points: &[InjectionPoint],
    ) -> Self {
        let injection_points = by_layer(injection_points.to_vec());
        let inner = batch.inner();
        let hidden = model.embed(inner.tokens.clone());
        let hidden = model.forward_layers(hidden, &inner.mask_pad, 0..injection_points[0].layer);
        let placements =
            injection_points.iter().map(|point| point.positions.placement_matrix(&batch)).collect();
        Self {
            batch,
            hidden,
            context: Context::whole(&inner.mask_pad),
            injection_points,
            placements,
        }
    }

    /// Caches the first `starts[row]` tokens of each row; `None` if `model` has no prefix cache.
    fn after<M: Decoder<B::InnerBackend>>(&self, model: &M, starts: &[usize]) -> Option<Self> {
        let Split { before, after, rest: batch } = self.batch.split(starts);
        let of = |cut: &Cut<B>| cut.of(Tensor::from_inner(self.hidden.clone())).inner();
        let injection_points = self.injection_points.clone();
        let layers = injection_points[0].layer..model.n_layers();
        let past = model.prefill(of(&before), &before.mask_pad.clone().inner(), layers)?;
        let placements =
            injection_points.iter().map(|point| point.positions.placement_matrix(&batch)).collect();
        let hidden = of(&after);
        let context = Context { mask_pad: after.mask_pad.inner(), past: Some(past) };
        Some(Self { batch, hidden, context, injection_points, placements })
    }

    /// Returns the cross-entropy of the answer under a perturbation at the prepared injection
    /// points, multiplied by the batch's [`share`](Batch::share): `[1]`.
    ///
    /// # Panics
    ///
    /// Panics if the perturbation acts at other injection points.
    pub fn cross_entropy<M: Decoder<B>>(
        &self,
        model: &M,
        perturbation: &Perturbation<B>,
    ) -> Tensor<B, 1> {
        let log_probabilities = self.log_probabilities(model, perturbation);
        cross_entropy(log_probabilities, self.batch.targets.clone()).mul_scalar(self.batch.share)
    }

    /// Returns [`cross_entropy`](Self::cross_entropy), and for each row true if every token of the
    /// answer is the most likely one at its position, so that greedy decoding would generate the
    /// answer.
    ///
    /// # Errors
    ///
    /// [`Error::NonFiniteLogits`] of the first row with NaN or infinite logits.
    ///
    /// # Panics
    ///
    /// Panics if the perturbation acts at other injection points.
    pub(crate) fn judged<M: Decoder<B>>(
        &self,
        model: &M,
        perturbation: &Perturbation<B>,
    ) -> Result<(f64, Vec<bool>), Error> {
        let Batch { targets, share, ids, .. } = &self.batch;
        let log_probabilities = self.log_probabilities(model, perturbation);
        if let Some(row) = first_non_finite(&log_probabilities, &self.batch) {
            return Err(Error::NonFiniteLogits { id: ids[row] });
        }
        let written = written(log_probabilities.clone(), &self.batch);
        let loss = cross_entropy(log_probabilities, targets.clone()).mul_scalar(*share);
        Ok((loss.into_scalar().elem(), written))
    }

    /// Returns the log-probabilities of all tokens at each position of the answer:
    /// `[n_answer, vocab_size]`.
    fn log_probabilities<M: Decoder<B>>(
        &self,
        model: &M,
        perturbation: &Perturbation<B>,
    ) -> Tensor<B, 2> {
        assert_eq!(
            perturbation.injection_points(),
            self.injection_points,
            "the injection points prepared for"
        );
        let hidden = Tensor::from_inner(self.hidden.clone());
        let context = Context::constant(self.context.clone());
        let hidden = perturbation.forward_above(model, hidden, &context, &self.placements);
        log_probabilities(model, hidden, &self.batch)
    }

    /// Returns the prepared injection points, in ascending order of layers.
    #[must_use]
    pub fn injection_points(&self) -> &[InjectionPoint] {
        &self.injection_points
    }

    /// Returns the maximum number of cached tokens in a row, which are not processed again at every
    /// step.
    #[must_use]
    pub fn n_past(&self) -> usize {
        self.context.past.as_ref().map_or(0, |past| {
            let [_, n_past] = past.mask_pad.dims();
            n_past
        })
    }

    /// Returns the identifiers of the examples of the batch.
    #[must_use]
    pub fn ids(&self) -> &[u64] {
        &self.batch.ids
    }

    /// Returns the mean Euclidean norm of the unperturbed hidden states at each injection point,
    /// without massive activations, in ascending order of layers.
    pub fn mean_hidden_norms<M: Decoder<B::InnerBackend>>(&self, model: &M) -> Vec<f64> {
        self.hidden_norms(model).iter().map(|norms| mean_without_massive(&[norms]).value).collect()
    }

    /// Returns the norms of the unperturbed hidden states at each injection point, in ascending
    /// order of layers; no position counts in rows of weight 0.
    pub(crate) fn hidden_norms<M: Decoder<B::InnerBackend>>(
        &self,
        model: &M,
    ) -> Vec<HiddenNorms<B::InnerBackend>> {
        let (mut hidden, mut layer) = (self.hidden.clone(), self.injection_points[0].layer);
        let mut norms = Vec::with_capacity(self.injection_points.len());
        for (point, placement) in self.injection_points.iter().zip(&self.placements) {
            hidden = self.context.forward_layers(model, hidden, layer..point.layer);
            layer = point.layer;
            let of_point = HiddenNorms::new(hidden.clone(), placement.clone().inner());
            let weighs = self.batch.share > 0.0;
            norms.push(if weighs { of_point } else { of_point.of_no_weight() });
        }
        norms
    }
}

/// Returns the first position of each row that an injection point covers, or the last position of
/// the prompt if none does.
fn first_covered<B: Backend>(batch: &Batch<B>, injection_points: &[InjectionPoint]) -> Vec<usize> {
    let first = |prompt: &PromptSpan| {
        let covered =
            |point: &InjectionPoint| point.positions.placements(prompt.length, prompt.user);
        let positions = injection_points.iter().flat_map(covered).map(|(position, _)| position);
        positions.min().unwrap_or(prompt.length - 1)
    };
    batch.prompts.iter().map(first).collect()
}

/// Returns the inner loss $\mathcal{L}_\text{in}$ on one batch: `[1]`. `safe` is absent when
/// $\alpha = 0$.
pub fn entrapment_loss<B: AutodiffBackend, M: Decoder<B>>(
    model: &M,
    perturbation: &Perturbation<B>,
    unwanted: &PreparedAnswer<B>,
    safe: Option<(&PreparedAnswer<B>, f64)>,
) -> Tensor<B, 1> {
    let toward = unwanted.cross_entropy(model, perturbation);
    match safe {
        Some((safe, away_weight)) => {
            toward - safe.cross_entropy(model, perturbation).mul_scalar(away_weight)
        }
        None => toward,
    }
}
