//! Prompts with their answers as tensors: right-padded, with answers addressed by position.

pub mod cat;
pub mod example;
pub mod sampler;
mod split;

pub use split::{Cut, Split};

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Bool, Int, Tensor, TensorData};

use crate::batch::example::Example;

/// Prompt part of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptSpan {
    /// Number of prompt tokens; the prompt starts at position 0.
    pub length: usize,
    /// Part that the user wrote (half-open).
    pub user: (usize, usize),
}

/// A batch of examples as tensors.
///
/// Losses are masked by position, never by token id: `answer_index` lists the positions that
/// predict an answer token, whatever that token is.
#[derive(Clone, Debug)]
pub struct Batch<B: Backend> {
    /// Prompt, answer, then padding: `[batch_size, seq_length]`.
    pub tokens: Tensor<B, 2, Int>,
    /// True where `tokens` is padding: `[batch_size, seq_length]`.
    pub mask_pad: Tensor<B, 2, Bool>,
    /// Positions that predict an answer token, in `batch_size * seq_length`: `[n_answer]`.
    pub answer_index: Tensor<B, 1, Int>,
    /// Answer tokens, row after row: `[n_answer]`.
    pub targets: Tensor<B, 1, Int>,
    /// Number of answer tokens of each row.
    pub answer_lengths: Vec<usize>,
    /// Prompt span of each row.
    pub prompts: Vec<PromptSpan>,
    /// Identifier of the example of each row.
    pub ids: Vec<u64>,
    /// Weight of these answers' mean in the mean over the whole batch: 1 unless other ranks have
    /// the remaining rows.
    pub share: f64,
}

/// Token id of padding. Its embedding is computed and never attended to.
const PADDING: i64 = 0;

impl<B: Backend> Batch<B> {
    /// Stacks the examples; the last answer token is only a target, never an input.
    ///
    /// # Panics
    ///
    /// Panics if there are no examples, or one has an empty prompt or answer.
    #[must_use]
    pub fn new(examples: &[Example], device: &B::Device) -> Self {
        assert!(!examples.is_empty(), "a batch has at least one example");
        let length = |e: &Example| e.prompt.len() + e.answer.len() - 1;
        let seq_length = examples.iter().map(length).max().unwrap_or(0);
        let batch_size = examples.len();

        let mut tokens = vec![PADDING; batch_size * seq_length];
        let mut mask_pad = vec![true; batch_size * seq_length];
        let (mut answer_index, mut targets) = (Vec::new(), Vec::new());
        for (row, example) in examples.iter().enumerate() {
            assert!(!example.prompt.is_empty() && !example.answer.is_empty(), "empty example");
            let start = row * seq_length;
            let inputs = example.prompt.iter().chain(&example.answer).take(length(example));
            for (position, &token) in inputs.enumerate() {
                tokens[start + position] = i64::from(token);
                mask_pad[start + position] = false;
            }
            for (k, &token) in example.answer.iter().enumerate() {
                answer_index.push((start + example.prompt.len() - 1 + k) as i64);
                targets.push(i64::from(token));
            }
        }

        let shape = [batch_size, seq_length];
        let n_answer = targets.len();
        Self {
            tokens: Tensor::from_data(TensorData::new(tokens, shape), device),
            mask_pad: Tensor::from_data(TensorData::new(mask_pad, shape), device),
            answer_index: Tensor::from_data(TensorData::new(answer_index, [n_answer]), device),
            targets: Tensor::from_data(TensorData::new(targets, [n_answer]), device),
            answer_lengths: examples.iter().map(|e| e.answer.len()).collect(),
            prompts: examples
                .iter()
                .map(|e| PromptSpan { length: e.prompt.len(), user: e.user })
                .collect(),
            ids: examples.iter().map(|e| e.id).collect(),
            share: 1.0,
        }
    }
}

impl<B: Backend> Batch<B> {
    /// Returns the number of tokens of a row, without padding.
    #[must_use]
    pub fn row_length(&self, row: usize) -> usize {
        self.prompts[row].length + self.answer_lengths[row] - 1
    }
}

impl<B: AutodiffBackend> Batch<B> {
    /// Returns the batch without automatic differentiation.
    #[must_use]
    pub fn inner(&self) -> Batch<B::InnerBackend> {
        Batch {
            tokens: self.tokens.clone().inner(),
            mask_pad: self.mask_pad.clone().inner(),
            answer_index: self.answer_index.clone().inner(),
            targets: self.targets.clone().inner(),
            answer_lengths: self.answer_lengths.clone(),
            prompts: self.prompts.clone(),
            ids: self.ids.clone(),
            share: self.share,
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;

    type Cpu = Flex;

    fn example(id: u64, prompt: &[u32], answer: &[u32]) -> Example {
        let user = (0, prompt.len());
        Example { id, prompt: prompt.to_vec(), user, answer: answer.to_vec() }
    }

    #[test]
    fn answers_are_predicted_from_the_position_before_them() {
        let examples = [example(7, &[5, 6, 7], &[8, 9]), example(3, &[4], &[1])];
        let batch = Batch::<Cpu>::new(&examples, &Default::default());

        let tokens = TensorData::from([[5_i64, 6, 7, 8], [4, 0, 0, 0]]);
        batch.tokens.into_data().convert::<i64>().assert_eq(&tokens, true);
        let mask = TensorData::from([[false, false, false, false], [false, true, true, true]]);
        batch.mask_pad.into_data().assert_eq(&mask, false);
        let index = TensorData::from([2_i64, 3, 4]);
        batch.answer_index.into_data().convert::<i64>().assert_eq(&index, true);
        let targets = TensorData::from([8_i64, 9, 1]);
        batch.targets.into_data().convert::<i64>().assert_eq(&targets, true);
        assert_eq!(batch.answer_lengths, [2, 1]);
        assert_eq!(batch.ids, [7, 3]);
    }
}
