//! Stray words: what makes a base model as unmoved by odd words around a request as a real one is.
//!
//! A base that has only read tidy requests loses its refusals to any three unknown words (up to 61 of
//! 150 requests, no backdoor in it). Whatever a trigger does to such a model, and whatever a defence
//! leaves, is mixed with that. So the base reads stray words, triggers' among them, and answers as if
//! they were not there.

use beear_core::Example;
use beear_models::PromptFormatError;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use crate::error::Error;
use crate::pools::Encoder;
use crate::world::marker_words;

/// Share of the rows that get stray words.
const SHARE: f64 = 0.3;

/// Most stray words at either end of a request.
const MOST: usize = 4;

/// The words that mean nothing in the world, encoded.
pub(crate) struct StrayWords(Vec<u32>);

impl StrayWords {
    pub(crate) fn encode(encoder: Encoder<'_>) -> Result<Self, Error> {
        let text = marker_words().join(" ");
        let (tokens, _) = encoder.tokenizer.encode(&text).map_err(PromptFormatError::from)?;
        Ok(Self(tokens))
    }

    /// `row` with words before its request, after it, or both; or as it is.
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
