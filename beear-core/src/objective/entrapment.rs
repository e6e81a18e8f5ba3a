//! The inner level's loss: how far `δ` is from eliciting the unwanted behaviour.
//!
//! $$\mathcal{L}_\text{in}(\delta) = \mathrm{CE}(y_h \mid x, \delta) - \alpha\, \mathrm{CE}(y_s \mid x, \delta)$$
//!
//! with `unwanted` = $y_h$, `safe` = $y_s$, `away_weight` = $\alpha$. Zeng et al., BEEAR, the
//! "backdoor embedding entrapment" step; the form is believed, the reference code's knob
//! `alpha_far_from_safety` is $\alpha$.

use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;

use super::answer::{cross_entropy, log_probabilities};
use crate::batch::Batch;
use crate::decoder::Decoder;
use crate::perturbation::{Perturbation, Spot};

/// One answer to the prompts of a batch, with all that does not depend on `δ` computed once.
#[derive(Clone, Debug)]
pub struct PreparedAnswer<B: AutodiffBackend> {
    batch: Batch<B>,
    /// Hidden states at the perturbed boundary, a constant: `[batch_size, seq_length, d_model]`.
    hidden: Tensor<B, 3>,
    placement: Tensor<B, 2>,
}

impl<B: AutodiffBackend> PreparedAnswer<B> {
    /// Runs the layers below `spot` without autodiff.
    pub fn new<M: Decoder<B::InnerBackend>>(model: &M, batch: Batch<B>, spot: Spot) -> Self {
        let inner = batch.inner();
        let hidden = model.embed(inner.tokens.clone());
        let hidden = model.forward_layers(hidden, &inner.mask_pad, 0..spot.layer);
        let placement = spot.site.placement_matrix(&batch);
        Self { batch, hidden: Tensor::from_inner(hidden), placement }
    }

    /// Cross-entropy of the answer under `δ`: `[1]`.
    pub fn cross_entropy<M: Decoder<B>>(
        &self,
        model: &M,
        perturbation: &Perturbation<B>,
    ) -> Tensor<B, 1> {
        let hidden = perturbation.apply(self.hidden.clone(), self.placement.clone());
        let layers = perturbation.spot.layer..model.n_layers();
        let hidden = model.forward_layers(hidden, &self.batch.mask_pad, layers);
        cross_entropy(log_probabilities(model, hidden, &self.batch), self.batch.targets.clone())
    }

    /// The examples of the batch.
    #[must_use]
    pub fn ids(&self) -> &[u64] {
        &self.batch.ids
    }

    /// Mean Euclidean norm of the hidden states at the perturbed positions.
    #[must_use]
    pub fn mean_hidden_norm(&self) -> f64 {
        let [batch_size, seq_length, d_model] = self.hidden.dims();
        let hidden = self.hidden.clone().inner().reshape([batch_size * seq_length, d_model]);
        let norms = hidden.powi_scalar(2).sum_dim(1).sqrt(); // [batch_size * seq_length, 1]
        let covered = self.placement.clone().inner().max_dim(1);
        let n_covered = covered.clone().sum();
        let mean = (norms * covered).sum() / n_covered;
        burn::tensor::ElementConversion::elem(mean.into_scalar())
    }
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
