//! The loss of the outer level: behave under `δ`, stay helpful without it.
//!
//! $$\mathcal{L}_\text{out}(\theta) =
//! \mathrm{CE}(y_s \mid x, \delta^\ast) + w\, \mathrm{CE}(y_p \mid x_p) +
//! \lambda\, \mathrm{KL}\big(p_{\theta_0}(\cdot \mid x_p) \,\|\, p_\theta(\cdot \mid x_p)\big)$$
//!
//! with `safe` = $y_s$, `performance_weight` = $w$, `divergence_weight` = $\lambda$ and the
//! original weights $\theta_0$. The paper has $w = 1$ and $\lambda = 0$; the divergence preserves
//! ordinary answers that a few hundred examples do not cover.

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{ElementConversion, Tensor};
use serde::{Deserialize, Serialize};

use super::answer::{cross_entropy, kl_divergence, log_probabilities};
use crate::batch::Batch;
use crate::config::RemoveConfig;
use crate::decoder::Context;
use crate::decoder::Decoder;
use crate::perturbation::Perturbation;

/// Weights of the terms of the outer loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RemovalWeights {
    /// Weight $w$ of the cross-entropy of the performance set.
    pub performance: f64,
    /// Weight $\lambda$ of the divergence from the original model.
    pub divergence: f64,
}

impl From<&RemoveConfig> for RemovalWeights {
    fn from(config: &RemoveConfig) -> Self {
        Self { performance: config.performance_weight, divergence: config.divergence_weight }
    }
}

/// Terms of the outer loss, in nats per answer token.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RemovalTerms {
    /// Cross-entropy of the safe answers under `δ`.
    pub safety: f64,
    /// Cross-entropy of the performance answers.
    pub performance: f64,
    /// Divergence from the original model on the performance answers.
    pub divergence: f64,
    /// Additional term of a baseline's loss, before weighting; see [`crate::baselines`]. `None` for
    /// BEEAR.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub penalty: Option<f64>,
}

impl RemovalTerms {
    /// Adds the terms of two parts of a batch, which are already weighted by their shares.
    pub(crate) fn plus(self, other: Self) -> Self {
        let penalty = self.penalty.into_iter().chain(other.penalty);
        Self {
            safety: self.safety + other.safety,
            performance: self.performance + other.performance,
            divergence: self.divergence + other.divergence,
            penalty: penalty.reduce(|one, other| one + other),
        }
    }
}

/// Terms of the outer loss as tensors, each `[1]`, before weighting.
#[derive(Debug)]
pub struct RemovalLoss<B: AutodiffBackend> {
    safety: Tensor<B, 1>,
    performance: Tensor<B, 1>,
    divergence: Option<Tensor<B, 1>>,
}

impl<B: AutodiffBackend> RemovalLoss<B> {
    /// Evaluates the terms, each multiplied by the [`share`](Batch::share) of its batch;
    /// `perturbation` is absent for plain safety fine-tuning, `original` if $\lambda = 0$.
    pub fn new<M, N>(
        model: &M,
        original: Option<&N>,
        perturbation: Option<&Perturbation<B>>,
        safe: &Batch<B>,
        performance: &Batch<B>,
    ) -> Self
    where
        M: Decoder<B>,
        N: Decoder<B::InnerBackend>,
    {
        let hidden = forward(model, safe, perturbation);
        let safety = cross_entropy(log_probabilities(model, hidden, safe), safe.targets.clone());
        Self::with_safety(safety.mul_scalar(safe.share), model, original, performance)
    }

    /// Evaluates all terms except that of the safe answers, which is given as `safety`: `[1]`.
    pub(crate) fn with_safety<M, N>(
        safety: Tensor<B, 1>,
        model: &M,
        original: Option<&N>,
        performance: &Batch<B>,
    ) -> Self
    where
        M: Decoder<B>,
        N: Decoder<B::InnerBackend>,
    {
        let new = log_probabilities(model, forward(model, performance, None), performance);
        let divergence = original.map(|original| {
            let batch = performance.inner();
            let reference = log_probabilities(original, forward(original, &batch, None), &batch);
            kl_divergence(Tensor::from_inner(reference), new.clone())
        });
        let share = performance.share;
        let divergence = divergence.map(|divergence| divergence.mul_scalar(share));
        let performance = cross_entropy(new, performance.targets.clone()).mul_scalar(share);
        Self { safety, performance, divergence }
    }

    /// Returns the weighted sum of the terms: `[1]`.
    #[must_use]
    pub fn total(&self, weights: RemovalWeights) -> Tensor<B, 1> {
        let total = self.safety.clone() + self.performance.clone().mul_scalar(weights.performance);
        match &self.divergence {
            Some(divergence) => total + divergence.clone().mul_scalar(weights.divergence),
            None => total,
        }
    }

    /// Returns the terms as numbers; the divergence is 0 if it was not computed.
    #[must_use]
    pub fn terms(&self) -> RemovalTerms {
        let number = |tensor: &Tensor<B, 1>| tensor.clone().into_scalar().elem::<f64>();
        RemovalTerms {
            safety: number(&self.safety),
            performance: number(&self.performance),
            divergence: self.divergence.as_ref().map_or(0.0, number),
            penalty: None,
        }
    }
}

/// Returns the hidden states of `batch` at the last boundary, under a perturbation if there is one.
///
/// # Shapes
///
/// - `output`: `[batch_size, seq_length, d_model]`
pub fn forward<B: Backend, M: Decoder<B>>(
    model: &M,
    batch: &Batch<B>,
    perturbation: Option<&Perturbation<B>>,
) -> Tensor<B, 3> {
    let hidden = model.embed(batch.tokens.clone());
    let Some(perturbation) = perturbation else {
        return model.forward_layers(hidden, &batch.mask_pad, 0..model.n_layers());
    };
    let hidden = model.forward_layers(hidden, &batch.mask_pad, 0..perturbation.first_layer());
    let placements = perturbation.placements(batch);
    perturbation.forward_above(model, hidden, &Context::whole(&batch.mask_pad), &placements)
}
