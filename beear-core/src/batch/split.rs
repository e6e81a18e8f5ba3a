//! A batch cut in two at a position per row: tokens computed once, and tokens computed at every
//! step.

use std::ops::Range;

use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor, TensorData};

use super::{Batch, PromptSpan};

/// Some of the positions of each row of a batch, right-padded again.
#[derive(Clone, Debug)]
pub struct Cut<B: Backend> {
    /// Index of each position in the batch: `[batch_size * n_positions]`.
    index: Tensor<B, 1, Int>,
    /// True at padding: `[batch_size, n_positions]`.
    pub mask_pad: Tensor<B, 2, Bool>,
}

impl<B: Backend> Cut<B> {
    /// Selects the positions `ranges` (half-open) of the rows of `batch`.
    fn new(batch: &Batch<B>, ranges: &[Range<usize>]) -> Self {
        let [batch_size, seq_length] = batch.tokens.dims();
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
        let device = batch.tokens.device();
        let index = TensorData::new(index, [batch_size * n_positions]);
        let mask_pad = TensorData::new(mask_pad, [batch_size, n_positions]);
        Self {
            index: Tensor::from_data(index, &device),
            mask_pad: Tensor::from_data(mask_pad, &device),
        }
    }

    /// Selects these positions from `whole`, which covers the whole batch.
    ///
    /// # Shapes
    ///
    /// - `whole`: `[batch_size, seq_length, d_model]`
    /// - `output`: `[batch_size, n_positions, d_model]`
    #[must_use]
    pub fn of(&self, whole: Tensor<B, 3>) -> Tensor<B, 3> {
        let [batch_size, seq_length, d_model] = whole.dims();
        let [_, n_positions] = self.mask_pad.dims();
        let flat = whole.reshape([batch_size * seq_length, d_model]);
        flat.select(0, self.index.clone()).reshape([batch_size, n_positions, d_model])
    }
}

/// Two parts of a batch.
#[derive(Clone, Debug)]
pub struct Split<B: Backend> {
    /// First tokens of each row.
    pub before: Cut<B>,
    /// Remaining tokens of each row.
    pub after: Cut<B>,
    /// Batch of the remaining tokens, with positions that count from the cut.
    pub rest: Batch<B>,
}

impl<B: Backend> Batch<B> {
    /// Cuts off the first `starts[row]` tokens of each row, all of which belong to the prompt.
    ///
    /// # Panics
    ///
    /// Panics if the number of starts differs from that of the rows, or a row would lose the last
    /// token of its prompt.
    #[must_use]
    pub fn split(&self, starts: &[usize]) -> Split<B> {
        assert_eq!(starts.len(), self.prompts.len(), "a start per row");
        let rows = || self.prompts.iter().zip(starts);
        assert!(rows().all(|(prompt, &start)| start < prompt.length), "a prompt token is kept");
        let ranges = starts.iter().enumerate();
        let (before, after): (Vec<_>, Vec<_>) =
            ranges.map(|(row, &start)| (0..start, start..self.row_length(row))).unzip();
        let (before, after) = (Cut::new(self, &before), Cut::new(self, &after));
        let [batch_size, seq_length] = after.mask_pad.dims();
        let tokens = self.tokens.clone().flatten::<1>(0, 1).select(0, after.index.clone());
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
        let rest = Self {
            tokens: tokens.reshape([batch_size, seq_length]),
            mask_pad: after.mask_pad.clone(),
            answer_index: Tensor::from_data(data, &self.tokens.device()),
            targets: self.targets.clone(),
            answer_lengths: self.answer_lengths.clone(),
            prompts,
            ids: self.ids.clone(),
            share: self.share,
        };
        Split { before, after, rest }
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;
    use crate::batch::example::Example;

    /// Returns a batch with prompts of 3 and 2 tokens, and its split; the first 2 and 0 tokens are
    /// cut off.
    fn fixture() -> (Batch<Flex>, Split<Flex>) {
        let example = |id, prompt: &[u32], user, answer: &[u32]| Example {
            id,
            prompt: prompt.to_vec(),
            user,
            answer: answer.to_vec(),
        };
        let examples = [example(7, &[5, 6, 7], (1, 2), &[8, 9]), example(3, &[4, 3], (0, 2), &[1])];
        let batch = Batch::new(&examples, &Default::default());
        let split = batch.split(&[2, 0]);
        (batch, split)
    }

    #[test]
    fn the_rest_is_a_batch_that_begins_at_the_cut() {
        let (_, Split { rest, .. }) = fixture();
        let tokens = TensorData::from([[7_i64, 8], [4, 3]]);
        rest.tokens.into_data().convert::<i64>().assert_eq(&tokens, true);
        let mask = TensorData::from([[false, false], [false, false]]);
        rest.mask_pad.into_data().assert_eq(&mask, false);
        let index = TensorData::from([0_i64, 1, 3]);
        rest.answer_index.into_data().convert::<i64>().assert_eq(&index, true);
        let prompts =
            [PromptSpan { length: 1, user: (0, 0) }, PromptSpan { length: 2, user: (0, 2) }];
        assert_eq!(rest.prompts, prompts);
    }

    #[test]
    fn both_parts_are_padded_anew() {
        let (batch, Split { before, after, .. }) = fixture();
        let mask = TensorData::from([[false, false], [true, true]]);
        before.mask_pad.clone().into_data().assert_eq(&mask, false);
        let whole = batch.tokens.float().unsqueeze_dim::<3>(2);
        let first = TensorData::from([[[5.0_f32], [6.0]], [[4.0], [4.0]]]);
        before.of(whole.clone()).into_data().assert_eq(&first, true);
        let others = TensorData::from([[[7.0_f32], [8.0]], [[4.0], [3.0]]]);
        after.of(whole).into_data().assert_eq(&others, true);
    }

    #[test]
    #[should_panic(expected = "a prompt token is kept")]
    fn a_whole_prompt_is_not_cut_off() {
        let _ = fixture().0.split(&[3, 0]);
    }
}
