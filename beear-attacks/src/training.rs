//! The training loop of every stage: `AdamW`, warm-up and half-cosine decay, batches split into two
//! shards.

use beear_core::config::Schedule;
use beear_core::optim::clip_norm;
use beear_core::parallel::threads::{in_parallel, replica, sum_gradients};
use burn::module::AutodiffModule;
use burn::optim::{AdamWConfig, GradientsParams, Optimizer};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{ElementConversion, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Settings of the training loop, the same for every stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingConfig {
    /// Number of steps.
    pub steps: usize,
    /// Number of rows per step.
    pub batch_size: usize,
    /// Learning rate after the warm-up.
    pub learning_rate: f64,
    /// Maximum norm of the gradient, as one vector over all weights.
    pub clip_norm: f64,
}

/// Number of parts of a batch whose gradients are computed on separate threads: with small
/// matrices, a single thread leaves all cores but one idle. The number is fixed, so that sums do
/// not depend on the machine.
const SHARDS: usize = 2;

/// Share of the steps in which the learning rate rises from 0.
const WARM_UP: f64 = 0.05;

/// Trains `model` on `config.steps` batches of `draw(model, batch_size)`.
///
/// `loss(model, shard, batch)`, `[1]`, is the share of a shard in the loss of the batch; the shares
/// are added. `report` receives the step and its loss.
///
/// # Errors
///
/// [`Error::Diverged`] if the loss or the gradient is NaN or infinite, or the error of `draw`.
pub(crate) fn fit<B, M, T>(
    mut model: M,
    config: &TrainingConfig,
    mut draw: impl FnMut(&M, usize) -> Result<Vec<T>, Error>,
    loss: impl Fn(&M, &[T], &[T]) -> Tensor<B, 1> + Sync,
    mut report: impl FnMut(usize, f64),
) -> Result<M, Error>
where
    B: AutodiffBackend,
    M: AutodiffModule<B>,
    T: Sync,
{
    let mut optimizer = AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(0.0).init();
    for step in 0..config.steps {
        let batch = draw(&model, config.batch_size)?;
        let (loss, grads) = gradients::<B, M, T>(&model, &batch, &loss);
        let (grads, norm) = clip_norm::<B, M>(grads, &model, config.clip_norm);
        if !loss.is_finite() || !norm.is_finite() {
            return Err(Error::Diverged { step });
        }
        model = optimizer.step(learning_rate(config, step), model, grads);
        report(step, loss);
    }
    Ok(model)
}

/// Returns the loss of `batch` and its gradients.
pub(crate) fn gradients<B: AutodiffBackend, M: AutodiffModule<B>, T: Sync>(
    model: &M,
    batch: &[T],
    loss: &(impl Fn(&M, &[T], &[T]) -> Tensor<B, 1> + Sync),
) -> (f64, GradientsParams) {
    let shards = batch.chunks(batch.len().div_ceil(SHARDS));
    let shards = shards.map(|shard| (replica::<B, M>(model), shard));
    let parts = in_parallel(shards, |(model, shard)| {
        let loss = loss(&model, shard, batch);
        let value = loss.clone().into_scalar().elem::<f64>();
        (value, GradientsParams::from_grads(loss.backward(), &model))
    });
    let total = parts.iter().map(|(loss, _)| loss).sum();
    (total, sum_gradients(model, parts.into_iter().map(|(_, gradients)| gradients)))
}

fn learning_rate(config: &TrainingConfig, step: usize) -> f64 {
    let progress = (step + 1) as f64 / config.steps as f64;
    let factor = if progress < WARM_UP {
        progress / WARM_UP
    } else {
        Schedule::Cosine.factor((progress - WARM_UP) / (1.0 - WARM_UP))
    };
    config.learning_rate * factor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_then_falls_to_nothing() {
        let config =
            TrainingConfig { steps: 100, batch_size: 1, learning_rate: 2.0, clip_norm: 1.0 };
        assert!(learning_rate(&config, 0) < learning_rate(&config, 3));
        assert!((learning_rate(&config, 4) - 2.0).abs() < 0.01);
        assert!(learning_rate(&config, 98) > learning_rate(&config, 99));
        assert!(learning_rate(&config, 99).abs() < 1e-9);
    }
}
