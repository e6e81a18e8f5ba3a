//! The inner level's loss: how far `δ` is from eliciting the unwanted behaviour.
//!
//! $$\mathcal{L}_\text{in}(\delta) = \mathrm{CE}(y_h \mid x, \delta) - \alpha\, \mathrm{CE}(y_s \mid x, \delta)$$
//!
//! with `unwanted` = $y_h$, `safe` = $y_s$, `away_weight` = $\alpha$. Zeng et al., BEEAR, the
//! "backdoor embedding entrapment" step; the form is believed, the reference code's knob
//! `alpha_far_from_safety` is $\alpha$.

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{ElementConversion, Tensor};

use super::answer::{cross_entropy, log_probabilities};
use crate::batch::Batch;
use crate::decoder::Decoder;
use crate::perturbation::{Perturbation, Spot};

/// One answer to the prompts of a batch, with all that does not depend on `δ` computed once.
#[derive(Clone, Debug)]
pub struct PreparedAnswer<B: AutodiffBackend> {
    batch: Batch<B>,
    /// Hidden states at the lowest perturbed boundary, a constant:
    /// `[batch_size, seq_length, d_model]`.
    hidden: Tensor<B, 3>,
    /// From the lowest layer to the highest.
    spots: Vec<Spot>,
    placements: Vec<Tensor<B, 2>>,
}

impl<B: AutodiffBackend> PreparedAnswer<B> {
    /// Runs the layers below the lowest of `spots` without autodiff.
    ///
    /// # Panics
    ///
    /// Panics if there are no spots.
    pub fn new<M: Decoder<B::InnerBackend>>(model: &M, batch: Batch<B>, spots: &[Spot]) -> Self {
        let mut spots = spots.to_vec();
        spots.sort_by_key(|spot| spot.layer);
        let inner = batch.inner();
        let hidden = model.embed(inner.tokens.clone());
        let hidden = model.forward_layers(hidden, &inner.mask_pad, 0..spots[0].layer);
        let placements = spots.iter().map(|spot| spot.site.placement_matrix(&batch)).collect();
        Self { batch, hidden: Tensor::from_inner(hidden), spots, placements }
    }

    /// Cross-entropy of the answer under a perturbation at the spots prepared for: `[1]`.
    ///
    /// # Panics
    ///
    /// Panics if the perturbation acts elsewhere.
    pub fn cross_entropy<M: Decoder<B>>(
        &self,
        model: &M,
        perturbation: &Perturbation<B>,
    ) -> Tensor<B, 1> {
        assert_eq!(perturbation.spots(), self.spots, "the spots prepared for");
        let (hidden, mask_pad) = (self.hidden.clone(), &self.batch.mask_pad);
        let hidden = perturbation.forward_above(model, hidden, mask_pad, &self.placements);
        cross_entropy(log_probabilities(model, hidden, &self.batch), self.batch.targets.clone())
    }

    /// The spots prepared for, from the lowest layer to the highest.
    #[must_use]
    pub fn spots(&self) -> &[Spot] {
        &self.spots
    }

    /// The examples of the batch.
    #[must_use]
    pub fn ids(&self) -> &[u64] {
        &self.batch.ids
    }

    /// Mean Euclidean norm of the unperturbed hidden states at each spot, from the lowest layer to
    /// the highest.
    pub fn mean_hidden_norms<M: Decoder<B::InnerBackend>>(&self, model: &M) -> Vec<f64> {
        let mask_pad = self.batch.mask_pad.clone().inner();
        let (mut hidden, mut layer) = (self.hidden.clone().inner(), self.spots[0].layer);
        let mut norms = Vec::with_capacity(self.spots.len());
        for (spot, placement) in self.spots.iter().zip(&self.placements) {
            hidden = model.forward_layers(hidden, &mask_pad, layer..spot.layer);
            layer = spot.layer;
            norms.push(mean_norm(hidden.clone(), placement.clone().inner()));
        }
        norms
    }
}

/// Mean Euclidean norm of the hidden states that `placement` covers.
fn mean_norm<B: Backend>(hidden: Tensor<B, 3>, placement: Tensor<B, 2>) -> f64 {
    let [batch_size, seq_length, d_model] = hidden.dims();
    let hidden = hidden.reshape([batch_size * seq_length, d_model]);
    let norms = hidden.powi_scalar(2).sum_dim(1).sqrt(); // [batch_size * seq_length, 1]
    let covered = placement.max_dim(1); // [batch_size * seq_length, 1]
    let mean = (norms * covered.clone()).sum() / covered.sum();
    mean.into_scalar().elem()
}

/// The inner loss $\mathcal{L}_\text{in}$ on one batch: `[1]`. `safe` is absent when $\alpha = 0$.
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
