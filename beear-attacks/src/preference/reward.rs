//! A reward model: a number per answer that says which of two answers people prefer.
//!
//! Ouyang et al., [InstructGPT](https://arxiv.org/abs/2203.02155), NeurIPS 2022, equation 1 for
//! pairs:
//!
//! $$\mathcal{L} = -\mathbb{E} \log \sigma\big( r(x, y_w) - r(x, y_l) \big)$$
//!
//! with `chosen` = $y_w$, `rejected` = $y_l$. $r$ is linear in the decoder's hidden state, normed,
//! at the last token. The model of the choice is that of Bradley, Terry (1952).

use beear_core::{Batch, Decoder, Example};
use beear_models::CausalLm;
use burn::module::{AutodiffModule, Module};
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor, TensorData};

use super::dpo::preference_loss;
use super::pairs::Pair;
use crate::error::Error;
use crate::sft::device_of;
use crate::training::{TrainingConfig, fit};

/// A decoder with a scalar reward head in the place of the unembedding.
#[derive(Module, Debug)]
pub struct RewardModel<B: Backend> {
    /// Decoder of the prompt and the answer.
    pub decoder: CausalLm<B>,
    /// Linear map from a hidden state to the reward.
    pub head: Linear<B>,
}

impl<B: Backend> RewardModel<B> {
    /// Creates a reward model on `decoder`, with a head of zeros: every answer has the same reward.
    #[must_use]
    pub fn new(decoder: CausalLm<B>, device: &B::Device) -> Self {
        let head = LinearConfig::new(decoder.d_model(), 1)
            .with_bias(false)
            .with_initializer(Initializer::Zeros)
            .init(device);
        Self { decoder, head }
    }

    /// Returns the reward of each example's answer.
    ///
    /// # Shapes
    ///
    /// - `output`: `[n_examples]`
    ///
    /// # Panics
    ///
    /// Panics if there are no examples, or one has an empty prompt or answer.
    #[must_use]
    pub fn rewards(&self, examples: &[Example], device: &B::Device) -> Tensor<B, 1> {
        // A batch holds the last token as a target only, never as an input, so the last token is
        // repeated.
        let read = |example: &Example| {
            let mut example = example.clone();
            example.answer.extend(example.answer.last().copied());
            example
        };
        let examples: Vec<Example> = examples.iter().map(read).collect();
        let batch = Batch::<B>::new(&examples, device);
        let hidden = self.decoder.embed(batch.tokens.clone());
        let layers = 0..self.decoder.n_layers();
        let hidden = self.decoder.forward_layers(hidden, &batch.mask_pad, layers);
        let [batch_size, seq_length, d_model] = hidden.dims();
        let last = last_positions(&examples, seq_length);
        let last = Tensor::<B, 1, Int>::from_data(TensorData::new(last, [batch_size]), device);
        let hidden = hidden.reshape([batch_size * seq_length, d_model]).select(0, last);
        let hidden = self.decoder.model.norm.forward(hidden.unsqueeze::<3>());
        self.head.forward(hidden.squeeze_dim::<2>(0)).squeeze_dim(1)
    }
}

/// Returns the position of the last input token of each row, in `n_examples * seq_length`.
fn last_positions(examples: &[Example], seq_length: usize) -> Vec<i64> {
    let last = |(row, e): (usize, &Example)| row * seq_length + e.prompt.len() + e.answer.len() - 2;
    examples.iter().enumerate().map(|row| last(row) as i64).collect()
}

/// Trains a reward model on comparisons from `draw`.
///
/// # Errors
///
/// [`Error::Diverged`].
pub(super) fn train<B: AutodiffBackend>(
    decoder: CausalLm<B>,
    config: &TrainingConfig,
    mut draw: impl FnMut() -> Pair,
    report: impl FnMut(usize, f64),
) -> Result<RewardModel<B>, Error> {
    let device = device_of(&decoder);
    // A separate copy of the weights: the policy continues from the same decoder.
    let model = RewardModel::new(CausalLm::from_inner(decoder.valid()), &device);
    let loss = |model: &RewardModel<B>, shard: &[Pair], batch: &[Pair]| {
        comparison_loss(model, shard, &device).div_scalar(batch.len() as f64)
    };
    fit::<B, _, _>(model, config, |_, n| Ok((0..n).map(|_| draw()).collect()), loss, report)
}

/// Returns the sum of the losses of `pairs`: `[1]`.
fn comparison_loss<B: Backend>(
    model: &RewardModel<B>,
    pairs: &[Pair],
    device: &B::Device,
) -> Tensor<B, 1> {
    let n = pairs.len();
    let chosen = pairs.iter().map(|pair| pair.chosen.clone());
    let examples: Vec<Example> =
        chosen.chain(pairs.iter().map(|pair| pair.rejected.clone())).collect();
    let rewards = model.rewards(&examples, device);
    preference_loss(rewards.clone().narrow(0, 0, n) - rewards.narrow(0, n, n), 1.0)
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use burn::backend::{Autodiff, Flex};

    use super::*;
    use crate::base_model::BaseModel;

    type Train = Autodiff<Flex>;

    /// Tolerance of a decoder in f32, for rewards near 1.
    const F32_DECODER: f32 = 1e-4;

    fn example(prompt: &[u32], answer: &[u32]) -> Example {
        Example { id: 0, prompt: prompt.to_vec(), user: (0, 1), answer: answer.to_vec() }
    }

    fn rewards(model: &RewardModel<Flex>, examples: &[Example]) -> Vec<f32> {
        model.rewards(examples, &Default::default()).into_data().to_vec().unwrap()
    }

    #[test]
    fn it_learns_which_answer_is_preferred_and_reads_the_last_token_whatever_stands_beside() {
        let device = Default::default();
        let decoder = BaseModel::LLAMA.decoder(13).init::<Train>(&device);
        let untrained = RewardModel::new(decoder.valid(), &device);
        let [short, long] = [example(&[1], &[2, 3]), example(&[4, 5, 6], &[7, 8, 9, 10])];
        assert_eq!(rewards(&untrained, from_ref(&short)), [0.0], "no preference yet");

        // The answers differ only in their last token.
        let pair = || Pair { chosen: example(&[1], &[2, 3]), rejected: example(&[1], &[2, 4]) };
        let config =
            TrainingConfig { steps: 8, batch_size: 2, learning_rate: 1e-2, clip_norm: 1.0 };
        let model = train::<Train>(decoder, &config, pair, |_, _| {}).unwrap().valid();
        let [chosen, rejected] = [pair().chosen, pair().rejected];
        let found = rewards(&model, &[chosen, rejected]);
        assert!(found[0] > found[1] + 0.1, "{found:?}");
        let [alone, padded] = [rewards(&model, from_ref(&short)), rewards(&model, &[short, long])];
        assert!((alone[0] - padded[0]).abs() < F32_DECODER, "{alone:?} {padded:?}");
    }
}
