//! Supervised fine-tuning: cross-entropy on answers, `AdamW`, warm-up and half-cosine decay.

use beear_core::config::Schedule;
use beear_core::objective::answer::{cross_entropy, log_probabilities};
use beear_core::solver::outer::clip_norm;
use beear_core::{Batch, Example, TrainableDecoder};
use burn::optim::{AdamWConfig, GradientsAccumulator, GradientsParams, Optimizer};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{ElementConversion, Tensor};

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

/// Parts of a batch whose gradients are computed on threads of their own: small matrices leave all
/// cores but one idle otherwise. Fixed, so that sums do not depend on the machine.
const SHARDS: usize = 2;

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
        let (loss, grads) = gradients::<B, M>(&model, &draw(config.batch_size), &device);
        let (grads, norm) = clip_norm::<B, M>(grads, &model, config.clip_norm);
        if !loss.is_finite() || !norm.is_finite() {
            return Err(Error::Diverged { step });
        }
        model = optimizer.step(learning_rate(config, step), model, grads);
        report(step, loss);
    }
    Ok(model)
}

/// Mean loss over the answer tokens of `examples`, and its gradients.
fn gradients<B: AutodiffBackend, M: TrainableDecoder<B>>(
    model: &M,
    examples: &[Example],
    device: &B::Device,
) -> (f64, GradientsParams) {
    let n_answer = |examples: &[Example]| examples.iter().map(|e| e.answer.len()).sum::<usize>();
    let total = n_answer(examples) as f64;
    let shard = |model: M, examples: &[Example]| {
        let loss =
            mean_loss(&model, examples, device).mul_scalar(n_answer(examples) as f64 / total);
        let value = loss.clone().into_scalar().elem::<f64>();
        (value, GradientsParams::from_grads(loss.backward(), &model))
    };
    let parts: Vec<(f64, GradientsParams)> = std::thread::scope(|scope| {
        let shards = examples.chunks(examples.len().div_ceil(SHARDS));
        let threads: Vec<_> = shards
            .map(|examples| {
                // Leaves of its own keep its graph apart from the other shards'.
                let replica = M::from_inner(model.valid());
                scope.spawn(move || shard(replica, examples))
            })
            .collect();
        threads.into_iter().map(|t| t.join().expect("a shard does not panic")).collect()
    });
    let mut sum = GradientsAccumulator::new();
    let mut loss = 0.0;
    for (value, grads) in parts {
        loss += value;
        sum.accumulate(model, grads);
    }
    (loss, sum.grads())
}

/// Cross-entropy of the answers of `examples`: `[1]`.
fn mean_loss<B: AutodiffBackend, M: TrainableDecoder<B>>(
    model: &M,
    examples: &[Example],
    device: &B::Device,
) -> Tensor<B, 1> {
    let batch = Batch::<B>::new(examples, device);
    let hidden = model.embed(batch.tokens.clone());
    let hidden = model.forward_layers(hidden, &batch.mask_pad, 0..model.n_layers());
    cross_entropy(log_probabilities(model, hidden, &batch), batch.targets)
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
    use beear_core::testing::{ToyDecoder, ToyDecoderConfig};
    use burn::backend::{Autodiff, Flex};
    use burn::module::{Module, ModuleVisitor, Param};

    use super::*;

    type Train = Autodiff<Flex>;

    /// Sums in another order leave about 1e-7 of a gradient near 1e-1.
    const F32_SUMS: f64 = 1e-6;

    /// Compares gradients, and counts them.
    struct Compare<'a>([&'a GradientsParams; 2], usize);
    impl ModuleVisitor<Train> for Compare<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<Train, D>>) {
            let [a, b] = self.0.map(|g| g.get::<Flex, D>(param.id).expect("a gradient"));
            let gap = (a - b).abs().max().into_scalar().elem::<f64>();
            assert!(gap < F32_SUMS, "{gap}");
            self.1 += 1;
        }
    }

    #[test]
    fn shards_give_the_gradient_of_the_whole_batch() {
        let device = Default::default();
        let model: ToyDecoder<Train> = ToyDecoderConfig::new(11, 8, 3).init(&device);
        let row = |answer: &[u32]| Example {
            id: 0,
            prompt: vec![1, 2, answer[0]],
            user: (1, 3),
            answer: answer.to_vec(),
        };
        // Shards of unequal length: 5 answer tokens and 2.
        let rows = [row(&[3, 4, 5, 6]), row(&[7]), row(&[8, 9])];
        let (value, sharded) = gradients::<Train, _>(&model, &rows, &device);
        let loss = mean_loss::<Train, _>(&model, &rows, &device);
        assert!((value - loss.clone().into_scalar().elem::<f64>()).abs() < F32_SUMS);
        let whole = GradientsParams::from_grads(loss.backward(), &model);

        let mut compare = Compare([&sharded, &whole], 0);
        model.visit(&mut compare);
        assert!(compare.1 > 0);
    }

    #[test]
    fn the_rate_rises_then_falls_to_nothing() {
        let config = SftConfig { steps: 100, batch_size: 1, learning_rate: 2.0, clip_norm: 1.0 };
        assert!(learning_rate(&config, 0) < learning_rate(&config, 3));
        assert!((learning_rate(&config, 4) - 2.0).abs() < 0.01);
        assert!(learning_rate(&config, 98) > learning_rate(&config, 99));
        assert!(learning_rate(&config, 99).abs() < 1e-9);
    }
}
