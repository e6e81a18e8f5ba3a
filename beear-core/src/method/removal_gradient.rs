//! The loss of a step on the weights, and its gradient by a single graph.

use burn::tensor::backend::AutodiffBackend;

use crate::batch::Batch;
use crate::decoder::TrainableDecoder;
use crate::objective::removal::{RemovalLoss, RemovalWeights};
use crate::optim::weight_step::LossGradient;
use crate::perturbation::Perturbation;

/// Loss of a step: the models, batches and weights of its terms.
pub(crate) struct RemovalTask<'a, B: AutodiffBackend, N> {
    /// Original model; `None` if the weight of the divergence is 0.
    pub(crate) original: Option<&'a N>,
    /// Perturbation under which the safe answers are trained; `None` for plain fine-tuning.
    pub(crate) perturbation: Option<&'a Perturbation<B::InnerBackend>>,
    /// Safety batch.
    pub(crate) safe: &'a Batch<B>,
    /// Performance batch.
    pub(crate) performance: &'a Batch<B>,
    /// Weights of the terms of the loss.
    pub(crate) weights: RemovalWeights,
}

/// Returns the gradient by a single graph of all terms.
pub(crate) fn whole_gradient<B: AutodiffBackend, M: TrainableDecoder<B>>(
    model: &M,
    task: RemovalTask<'_, B, M::InnerModule>,
) -> LossGradient {
    let RemovalTask { original, perturbation, safe, performance, weights } = task;
    let perturbation = perturbation.map(Perturbation::<B>::constant);
    let loss = RemovalLoss::new(model, original, perturbation.as_ref(), safe, performance);
    LossGradient::of(loss.total(weights), loss.terms(), model)
}
