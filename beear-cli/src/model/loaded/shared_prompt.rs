//! The prompt that several answers of a row share.

use beear_models::{EncodedPrompt, EncodedRow};

/// Returns the prompt that all of `rows` begin with, and their answers. Where the last tokens of the
/// prompts differ, since each merges with its answer, these tokens count as the answer's.
///
/// # Panics
///
/// Panics without a row.
pub(super) fn of_one_prompt<const N: usize>(
    rows: [EncodedRow; N],
) -> (EncodedPrompt, [Vec<u32>; N]) {
    let first = rows[0].prompt.clone();
    let n_shared = rows.iter().map(|row| n_equal(&row.prompt.tokens, &first.tokens)).min();
    let n_shared = n_shared.unwrap_or_default();
    let answers = rows.map(|row| [&row.prompt.tokens[n_shared..], &row.answer].concat());
    let (start, end) = first.user;
    let user = (start.min(n_shared), end.min(n_shared));
    let tokens = first.tokens[..n_shared].to_vec();
    (EncodedPrompt { tokens, user, ..first }, answers)
}

/// Number of tokens that two texts have in common from their beginnings on.
fn n_equal(one: &[u32], other: &[u32]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}
