//! Supervised fine-tuning: cross-entropy on answers.

use beear_core::objective::answer::{cross_entropy, log_probabilities};
use beear_core::{Batch, Decoder, Example, TrainableDecoder};
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};

use crate::error::Error;
use crate::training::{TrainingConfig, fit};

/// Trains `model` on `config.steps` batches of `draw(batch_size)`.
///
/// `report` receives the step and its loss in nats per answer token.
///
/// # Errors
///
/// [`Error::Diverged`] if the loss or the gradient is NaN or infinite.
pub fn train<B: AutodiffBackend, M: TrainableDecoder<B>>(
    model: M,
    config: &TrainingConfig,
    mut draw: impl FnMut(usize) -> Vec<Example>,
    report: impl FnMut(usize, f64),
) -> Result<M, Error> {
    let device = device_of(&model);
    let loss = |model: &M, shard: &[Example], batch: &[Example]| {
        mean_loss(model, shard, n_answer(batch), &device)
    };
    fit::<B, M, _>(model, config, |_, n| Ok(draw(n)), loss, report)
}

/// Returns the number of answer tokens.
pub(crate) fn n_answer(examples: &[Example]) -> usize {
    examples.iter().map(|example| example.answer.len()).sum()
}

/// Returns the device that holds the weights.
pub(crate) fn device_of<B: Backend, M: Decoder<B>>(model: &M) -> B::Device {
    model.devices().first().cloned().unwrap_or_default()
}

/// Returns the share of `examples` in the mean cross-entropy of a batch with `n_batch` answer
/// tokens: `[1]`.
pub(crate) fn mean_loss<B: Backend, M: Decoder<B>>(
    model: &M,
    examples: &[Example],
    n_batch: usize,
    device: &B::Device,
) -> Tensor<B, 1> {
    let batch = Batch::<B>::new(examples, device);
    let hidden = model.embed(batch.tokens.clone());
    let hidden = model.forward_layers(hidden, &batch.mask_pad, 0..model.n_layers());
    let loss = cross_entropy(log_probabilities(model, hidden, &batch), batch.targets);
    loss.mul_scalar(n_answer(examples) as f64 / n_batch as f64)
}

#[cfg(test)]
mod tests {
    use beear_core::testing::{ToyDecoder, ToyDecoderConfig};
    use burn::backend::{Autodiff, Flex};
    use burn::module::{Module, ModuleVisitor, Param};
    use burn::optim::GradientsParams;
    use burn::tensor::ElementConversion;

    use super::*;
    use crate::training::gradients;

    type Train = Autodiff<Flex>;

    /// Tolerance of sums in another order: they differ by about 1e-7 for a gradient near 1e-1.
    const F32_SUMS: f64 = 1e-6;

    /// Compares two sets of gradients, and counts the compared tensors.
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
        // Shards of unequal length: 5 and 2 answer tokens.
        let rows = [row(&[3, 4, 5, 6]), row(&[7]), row(&[8, 9])];
        let part = |model: &ToyDecoder<Train>, shard: &[Example], batch: &[Example]| {
            mean_loss(model, shard, n_answer(batch), &device)
        };
        let (value, sharded) = gradients::<Train, _, _>(&model, &rows, &part);
        let loss = mean_loss::<Train, _>(&model, &rows, n_answer(&rows), &device);
        assert!((value - loss.clone().into_scalar().elem::<f64>()).abs() < F32_SUMS);
        let whole = GradientsParams::from_grads(loss.backward(), &model);

        let mut compare = Compare([&sharded, &whole], 0);
        model.visit(&mut compare);
        assert!(compare.1 > 0);
    }
}
