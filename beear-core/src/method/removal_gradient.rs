//! A step's task for the weights, and the gradient of its loss by one graph.

use burn::tensor::backend::AutodiffBackend;

use crate::batch::Batch;
use crate::decoder::TrainableDecoder;
use crate::objective::removal::{RemovalLoss, RemovalWeights};
use crate::optim::weight_step::LossGradient;
use crate::perturbation::Perturbation;

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
