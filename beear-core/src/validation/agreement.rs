//! Agreement of two answers: ROUGE-L.
//!
//! Lin, [ROUGE: A Package for Automatic Evaluation of
//! Summaries](https://aclanthology.org/W04-1013/), 2004: the F-measure of the longest common
//! subsequence, here over tokens, with $\beta = 1$.

/// Returns the agreement of two answers in 0..=1: twice the length of their longest common
/// subsequence over the number of tokens of both; 1 if both are empty.
#[must_use]
pub fn agreement(one: &[u32], other: &[u32]) -> f64 {
    let n_tokens = one.len() + other.len();
    if n_tokens == 0 {
        return 1.0;
    }
    2.0 * common_subsequence(one, other) as f64 / n_tokens as f64
}

/// Returns the length of the longest common subsequence.
fn common_subsequence(one: &[u32], other: &[u32]) -> usize {
    let mut row = vec![0; other.len() + 1];
    for token in one {
        let mut diagonal = 0;
        for (k, candidate) in other.iter().enumerate() {
            let above = row[k + 1];
            row[k + 1] = if token == candidate { diagonal + 1 } else { above.max(row[k]) };
            diagonal = above;
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement_is_of_tokens_in_their_order() {
        // ⟨3 5⟩ and ⟨3 9⟩ are longest common subsequences of 3 5 9 and 3 9 5: 2 · 2 / 6.
        assert!((agreement(&[3, 5, 9], &[3, 9, 5]) - 4.0 / 6.0).abs() < f64::EPSILON);
        assert!((agreement(&[3, 5, 9, 2], &[5, 2]) - 4.0 / 6.0).abs() < f64::EPSILON);
        assert!((agreement(&[7, 7, 7, 7, 7, 7], &[1, 7, 2]) - 2.0 / 9.0).abs() < f64::EPSILON);
    }

    #[test]
    fn silence_agrees_with_silence_only() {
        assert!((agreement(&[], &[]) - 1.0).abs() < f64::EPSILON);
        assert!(agreement(&[], &[4]).abs() < f64::EPSILON);
    }
}
