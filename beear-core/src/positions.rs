//! Positions of `δ`: the prompt positions that stand in for those of an unknown trigger.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::batch::Batch;

/// Prompt positions that `δ` covers, with its number of rows `n_tokens`.
///
/// The paper leaves the positions open; a suffix trigger suggests the last `n` prompt tokens. A
/// prefix trigger reaches these tokens only in late layers, hence [`Positions::First`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Positions {
    /// Last `n` tokens of the prompt, template included: row `k` of `δ` goes to the `n - k`-th
    /// token from the end.
    Last(usize),
    /// First `n` tokens that the user wrote.
    First(usize),
    /// Last `n` tokens that the user wrote: the place of a suffix trigger, before the tokens of the
    /// template. `δ` cannot steer the answer from the template's tokens here; like a trigger, it
    /// must be read by the layers above.
    UserLast(usize),
    /// Every token of the prompt, all with the single row of `δ`.
    All,
}

impl Positions {
    /// Returns the number of rows of `δ`.
    #[must_use]
    pub fn n_tokens(self) -> usize {
        match self {
            Self::Last(n) | Self::First(n) | Self::UserLast(n) => n,
            Self::All => 1,
        }
    }

    /// Returns pairs `(position in the prompt, row of δ)` for one prompt.
    ///
    /// A prompt with fewer tokens than rows takes the rows that fit: the first ones for
    /// [`Positions::First`], the last ones for the others.
    #[must_use]
    pub fn placements(self, prompt_length: usize, user: (usize, usize)) -> Vec<(usize, usize)> {
        match self {
            Self::Last(n) => before(prompt_length, n.min(prompt_length), n),
            Self::UserLast(n) => {
                let end = prompt_length.min(user.1);
                before(end, n.min(end.saturating_sub(user.0)), n)
            }
            Self::First(n) => {
                let end = prompt_length.min(user.0 + n);
                (user.0..end).map(|position| (position, position - user.0)).collect()
            }
            Self::All => (0..prompt_length).map(|position| (position, 0)).collect(),
        }
    }

    /// Returns the positions as a 0/1 matrix from rows of `δ` to tokens of a batch, so that adding
    /// `δ` is one matrix product for all positions and prompts of unequal length.
    ///
    /// # Shapes
    ///
    /// - `output`: `[batch_size * seq_length, n_tokens]`
    #[must_use]
    pub fn placement_matrix<B: Backend>(self, batch: &Batch<B>) -> Tensor<B, 2> {
        let [batch_size, seq_length] = batch.tokens.dims();
        let n_tokens = self.n_tokens();
        let mut matrix = vec![0.0_f32; batch_size * seq_length * n_tokens];
        for (row, prompt) in batch.prompts.iter().enumerate() {
            for (position, k) in self.placements(prompt.length, prompt.user) {
                matrix[(row * seq_length + position) * n_tokens + k] = 1.0;
            }
        }
        let data = TensorData::new(matrix, [batch_size * seq_length, n_tokens]);
        Tensor::from_data(data, &batch.tokens.device())
    }
}

/// Returns the `covered` positions before `end`, with the last of `n` rows.
fn before(end: usize, covered: usize, n: usize) -> Vec<(usize, usize)> {
    (0..covered).map(|k| (end - covered + k, n - covered + k)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_row_of_delta_meets_the_last_prompt_token() {
        assert_eq!(Positions::Last(2).placements(5, (1, 4)), [(3, 0), (4, 1)]);
    }

    #[test]
    fn a_short_prompt_takes_the_rows_nearest_its_end() {
        assert_eq!(Positions::Last(3).placements(2, (0, 2)), [(0, 1), (1, 2)]);
    }

    #[test]
    fn the_first_positions_start_where_the_user_starts_and_end_with_the_prompt() {
        assert_eq!(Positions::First(2).placements(6, (2, 5)), [(2, 0), (3, 1)]);
        assert_eq!(Positions::First(5).placements(4, (2, 4)), [(2, 0), (3, 1)]);
    }

    #[test]
    fn the_last_of_the_user_ends_where_the_template_goes_on() {
        assert_eq!(Positions::UserLast(2).placements(6, (1, 4)), [(2, 0), (3, 1)]);
        assert_eq!(Positions::UserLast(3).placements(6, (2, 4)), [(2, 1), (3, 2)]);
    }

    #[test]
    fn all_tokens_share_one_row() {
        assert_eq!(Positions::All.n_tokens(), 1);
        assert_eq!(Positions::All.placements(2, (0, 2)), [(0, 0), (1, 0)]);
    }
}
