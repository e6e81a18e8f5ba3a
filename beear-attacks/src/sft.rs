//! Supervised fine-tuning: cross-entropy on answers, `AdamW`, warm-up and half-cosine decay.

use beear_core::config::Schedule;
use beear_core::objective::answer::{cross_entropy, log_probabilities};
use beear_core::solver::outer::clip_norm;
use beear_core::{Batch, Example, TrainableDecoder};
use burn::optim::{AdamWConfig, GradientsParams, Optimizer};
use burn::tensor::ElementConversion;
use burn::tensor::backend::AutodiffBackend;

use crate::error::Error;

/// How to train on whatever the caller draws.
#[derive(Clone, Debug, PartialEq)]
pub struct SftConfig {
    /// Number of steps.
    pub steps: usize,
    /// Examples per step.
    pub batch_size: usize,
    /// Learning rate after the warm-up.
    pub learning_rate: f64,
    /// Longest gradient, as one vector over all weights.
    pub clip_norm: f64,
}

/// Share of the steps in which the learning rate rises from 0.
const WARM_UP: f64 = 0.05;

/// Trains `model` on `config.steps` batches of `draw(batch_size)`.
///
/// `report` hears the step and its loss in nats per answer token.
///
/// # Errors
///
/// [`Error::Diverged`] if the loss or the gradient is not finite.
pub fn train<B: AutodiffBackend, M: TrainableDecoder<B>>(
    mut model: M,
    config: &SftConfig,
    mut draw: impl FnMut(usize) -> Vec<Example>,
    mut report: impl FnMut(usize, f64),
) -> Result<M, Error> {
    let device = model.devices().first().cloned().unwrap_or_default();
    let mut optimizer = AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(0.0).init();
    for step in 0..config.steps {
        let batch = Batch::<B>::new(&draw(config.batch_size), &device);
        let hidden = model.embed(batch.tokens.clone());
        let hidden = model.forward_layers(hidden, &batch.mask_pad, 0..model.n_layers());
        let log_probabilities = log_probabilities(&model, hidden, &batch);
        let loss = cross_entropy(log_probabilities, batch.targets.clone());
        let value = loss.clone().into_scalar().elem::<f64>();
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        let (grads, norm) = clip_norm::<B, M>(grads, &model, config.clip_norm);
        if !value.is_finite() || !norm.is_finite() {
            return Err(Error::Diverged { step });
        }
        model = optimizer.step(learning_rate(config, step), model, grads);
        report(step, value);
    }
    Ok(model)
}

fn learning_rate(config: &SftConfig, step: usize) -> f64 {
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
        let config = SftConfig { steps: 100, batch_size: 1, learning_rate: 2.0, clip_norm: 1.0 };
        assert!(learning_rate(&config, 0) < learning_rate(&config, 3));
        assert!((learning_rate(&config, 4) - 2.0).abs() < 0.01);
        assert!(learning_rate(&config, 98) > learning_rate(&config, 99));
        assert!(learning_rate(&config, 99).abs() < 1e-9);
    }
}
