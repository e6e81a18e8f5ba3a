//! Prompts with their answers as tensors: right-padded, with the answer addressed by position.

use std::ops::Range;

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Bool, Int, Tensor, TensorData};

use crate::example::Example;

/// The prompt part of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptSpan {
    /// Number of prompt tokens; the prompt starts at position 0.
    pub length: usize,
    /// The part the user wrote (half-open).
    pub user: (usize, usize),
}

/// A batch of examples.
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
    /// The answer tokens, row after row: `[n_answer]`.
    pub targets: Tensor<B, 1, Int>,
    /// Number of answer tokens of each row.
    pub answer_lengths: Vec<usize>,
    /// The prompt of each row.
    pub prompts: Vec<PromptSpan>,
    /// The example behind each row.
    pub ids: Vec<u64>,
}

/// Token id under the padding. Its embedding is computed and never attended to.
const PADDING: i64 = 0;

impl<B: Backend> Batch<B> {
    /// Stacks examples; the last answer token is a target only, never an input.
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
        }
    }
}

/// Some of the positions of each row of a batch, right-padded anew.
#[derive(Clone, Debug)]
pub struct Cut<B: Backend> {
    /// Where each stands in the batch: `[batch_size * n_positions]`.
    index: Tensor<B, 1, Int>,
    /// True where there is none: `[batch_size, n_positions]`.
    pub mask_pad: Tensor<B, 2, Bool>,
}

impl<B: Backend> Cut<B> {
    /// What `whole`, of the whole batch, is at these positions.
    ///
    /// # Shapes
    ///
    /// - `whole`: `[batch_size, seq_length, d_model]`
    /// - `output`: `[batch_size, n_positions, d_model]`
    #[must_use]
    pub fn of(&self, whole: &Tensor<B, 3>) -> Tensor<B, 3> {
        let [batch_size, seq_length, d_model] = whole.dims();
        let [_, n_positions] = self.mask_pad.dims();
        let flat = whole.clone().reshape([batch_size * seq_length, d_model]);
        flat.select(0, self.index.clone()).reshape([batch_size, n_positions, d_model])
    }
}

impl<B: Backend> Batch<B> {
    /// The positions `ranges` (half-open) of each row.
    ///
    /// # Panics
    ///
    /// Panics if there are not as many ranges as rows.
    #[must_use]
    pub fn cut(&self, ranges: &[Range<usize>]) -> Cut<B> {
        let [batch_size, seq_length] = self.tokens.dims();
        assert_eq!(ranges.len(), batch_size, "a range per row");
        let n_positions = ranges.iter().map(Range::len).max().unwrap_or(0);
        let mut index = Vec::with_capacity(batch_size * n_positions);
        let mut mask_pad = Vec::with_capacity(batch_size * n_positions);
        for (row, range) in ranges.iter().enumerate() {
            for k in 0..n_positions {
                let position = if k < range.len() { range.start + k } else { 0 };
                index.push((row * seq_length + position) as i64);
                mask_pad.push(k >= range.len());
            }
        }
        let device = self.tokens.device();
        let index = TensorData::new(index, [batch_size * n_positions]);
        let mask_pad = TensorData::new(mask_pad, [batch_size, n_positions]);
        Cut {
            index: Tensor::from_data(index, &device),
            mask_pad: Tensor::from_data(mask_pad, &device),
        }
    }

    /// Number of tokens of a row, padding left out.
    #[must_use]
    pub fn row_length(&self, row: usize) -> usize {
        self.prompts[row].length + self.answer_lengths[row] - 1
    }

    /// The batch without the first `starts[row]` tokens of each row, all of them of the prompt.
    ///
    /// # Panics
    ///
    /// Panics if a row would not keep the last token of its prompt.
    #[must_use]
    pub fn without_first(&self, starts: &[usize]) -> Self {
        let rows = || self.prompts.iter().zip(starts);
        assert!(rows().all(|(prompt, &start)| start < prompt.length), "a prompt token is kept");
        let ranges: Vec<_> =
            starts.iter().enumerate().map(|(row, &start)| start..self.row_length(row)).collect();
        let Cut { index, mask_pad } = self.cut(&ranges);
        let [batch_size, seq_length] = mask_pad.dims();
        let tokens = self.tokens.clone().flatten::<1>(0, 1).select(0, index);
        let prompts = rows().map(|(prompt, &start)| PromptSpan {
            length: prompt.length - start,
            user: (prompt.user.0.saturating_sub(start), prompt.user.1.saturating_sub(start)),
        });
        let prompts: Vec<PromptSpan> = prompts.collect();
        let answer_index = prompts.iter().zip(&self.answer_lengths).enumerate();
        let answer_index = answer_index.flat_map(|(row, (prompt, n_answer))| {
            let first = (row * seq_length + prompt.length - 1) as i64;
            first..first + *n_answer as i64
        });
        let answer_index: Vec<i64> = answer_index.collect();
        let n_answer = answer_index.len();
        let data = TensorData::new(answer_index, [n_answer]);
        Self {
            tokens: tokens.reshape([batch_size, seq_length]),
            answer_index: Tensor::from_data(data, &mask_pad.device()),
            mask_pad,
            targets: self.targets.clone(),
            answer_lengths: self.answer_lengths.clone(),
            prompts,
            ids: self.ids.clone(),
        }
    }
}

impl<B: AutodiffBackend> Batch<B> {
    /// The same batch without automatic differentiation.
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

    #[test]
    fn the_first_tokens_of_prompts_can_be_left_out() {
        let mut examples = [example(7, &[5, 6, 7], &[8, 9]), example(3, &[4, 3], &[1])];
        examples[0].user = (1, 2);
        let batch = Batch::<Cpu>::new(&examples, &Default::default()).without_first(&[2, 0]);
        let tokens = TensorData::from([[7_i64, 8], [4, 3]]);
        batch.tokens.into_data().convert::<i64>().assert_eq(&tokens, true);
        let mask = TensorData::from([[false, false], [false, false]]);
        batch.mask_pad.into_data().assert_eq(&mask, false);
        let index = TensorData::from([0_i64, 1, 3]);
        batch.answer_index.into_data().convert::<i64>().assert_eq(&index, true);
        let prompts =
            [PromptSpan { length: 1, user: (0, 0) }, PromptSpan { length: 2, user: (0, 2) }];
        assert_eq!(batch.prompts, prompts);
    }

    #[test]
    fn a_cut_pads_anew() {
        let examples = [example(7, &[5, 6, 7], &[8, 9]), example(3, &[4], &[1])];
        let batch = Batch::<Cpu>::new(&examples, &Default::default());
        let cut = batch.cut(&[1..3, 0..1]);
        let mask = TensorData::from([[false, false], [false, true]]);
        cut.mask_pad.clone().into_data().assert_eq(&mask, false);
        let whole = batch.tokens.float().unsqueeze_dim(2);
        let kept = cut.of(&whole).into_data();
        kept.assert_eq(&TensorData::from([[[6.0_f32], [7.0]], [[4.0], [4.0]]]), true);
    }
}
