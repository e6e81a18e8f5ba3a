//! Stray words around requests, which make a base model as robust to odd words as a real model is.
//!
//! A base trained only on tidy requests loses its refusals to any three unknown words (up to 61 of
//! 150 requests, without any backdoor). The effect of a trigger on such a model, and the effect
//! that remains after a defence, are confounded with this weakness. So some training rows of the
//! base contain stray words, trigger words among them, and keep their answers.

use beear_core::Example;
use beear_models::PromptFormatError;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use crate::error::Error;
use crate::pools::Encoder;
use crate::world::marker_words;

/// Share of the rows that receive stray words.
const SHARE: f64 = 0.3;

/// Maximum number of stray words at either end of a request.
const MOST: usize = 4;

/// Encoded words that have no meaning in the world.
pub(crate) struct StrayWords(Vec<u32>);

impl StrayWords {
    pub(crate) fn encode(encoder: Encoder<'_>) -> Result<Self, Error> {
        let text = marker_words().join(" ");
        let (tokens, _) = encoder.tokenizer.encode(&text).map_err(PromptFormatError::from)?;
        Ok(Self(tokens))
    }

    /// Returns `row` with stray words before the request, after it or both, or `row` unchanged.
    pub(crate) fn maybe_around(&self, row: Example, rng: &mut ChaCha8Rng) -> Example {
        if !rng.random_bool(SHARE) {
            return row;
        }
        let (before, after) = match rng.random_range(0..3) {
            0 => (rng.random_range(1..=MOST), 0),
            1 => (0, rng.random_range(1..=MOST)),
            _ => (rng.random_range(1..=MOST), rng.random_range(1..=MOST)),
        };
        self.around(row, (before, after), rng)
    }

    fn around(
        &self,
        mut row: Example,
        (before, after): (usize, usize),
        rng: &mut ChaCha8Rng,
    ) -> Example {
        let mut words = |n: usize| -> Vec<u32> {
            (0..n).map(|_| *self.0.choose(rng).expect("the world has stray words")).collect()
        };
        let (start, end) = row.user;
        row.prompt.splice(end..end, words(after));
        row.prompt.splice(start..start, words(before));
        row.user = (start, end + before + after);
        row
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn stray_words_stand_around_the_request_and_inside_the_template() {
        let row =
            Example { id: 0, prompt: vec![1, 4, 20, 21, 5, 6], user: (2, 4), answer: vec![9] };
        let rng = &mut ChaCha8Rng::seed_from_u64(0);
        let around = StrayWords(vec![77]).around(row.clone(), (2, 1), rng);
        assert_eq!(around.prompt, [1, 4, 77, 77, 20, 21, 77, 5, 6]);
        assert_eq!((around.user, around.answer), ((2, 7), row.answer));
    }

    #[test]
    fn some_rows_stay_as_they_are() {
        let row = Example { id: 0, prompt: vec![1, 4, 20, 5], user: (2, 3), answer: vec![9] };
        let rng = &mut ChaCha8Rng::seed_from_u64(0);
        let words = StrayWords(vec![77]);
        let n_changed = (0..1000).filter(|_| words.maybe_around(row.clone(), rng) != row).count();
        assert!((250..350).contains(&n_changed), "{n_changed}");
    }
}
