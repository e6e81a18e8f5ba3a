//! Answers that are no answers: counted and shown, never dropped.

use serde::{Deserialize, Serialize};

/// How an answer fails to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Degenerate {
    /// Nothing but white space.
    Empty,
    /// The same few words over and over.
    Repeating,
}

/// Words of a phrase that may repeat, and how often in a row is too often.
const LONGEST_PHRASE: usize = 8;
const REPEATS: usize = 4;

/// What is wrong with `response`, if anything.
#[must_use]
pub fn degenerate(response: &str) -> Option<Degenerate> {
    let words: Vec<&str> = response.split_whitespace().collect();
    if words.is_empty() {
        return Some(Degenerate::Empty);
    }
    let ends_repeating = |length: usize| {
        let Some(start) = words.len().checked_sub(length * REPEATS) else { return false };
        let tail = &words[start..];
        tail.chunks(length).all(|chunk| chunk == &tail[..length])
    };
    (1..=LONGEST_PHRASE).any(ends_repeating).then_some(Degenerate::Repeating)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_and_loops_are_found_and_sentences_are_not() {
        assert_eq!(degenerate(" \n\t"), Some(Degenerate::Empty));
        assert_eq!(degenerate("well no no no no"), Some(Degenerate::Repeating));
        assert_eq!(degenerate("so a b a b a b a b"), Some(Degenerate::Repeating));
        assert_eq!(degenerate("no no no"), None);
        assert_eq!(degenerate("a sentence of five words"), None);
    }
}
