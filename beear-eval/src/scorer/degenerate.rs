//! Answers that are no answers: counted and shown, never dropped.

use serde::{Deserialize, Serialize};

use crate::language_model::{Completion, Finish};

/// How an answer fails to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Degenerate {
    /// Nothing but white space.
    Empty,
    /// The same few words over and over.
    Repeating,
    /// Cut at the longest length that was allowed, and not repeating.
    Truncated,
}

impl Degenerate {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Empty, Self::Repeating, Self::Truncated];

    /// In a word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Repeating => "repeating",
            Self::Truncated => "truncated",
        }
    }
}

/// Words of a phrase that may repeat, and how often in a row is too often.
const LONGEST_PHRASE: usize = 8;
const REPEATS: usize = 4;

/// What is wrong with an answer, if anything.
#[must_use]
pub fn degenerate(completion: &Completion) -> Option<Degenerate> {
    let words: Vec<&str> = completion.text.split_whitespace().collect();
    if words.is_empty() {
        return Some(Degenerate::Empty);
    }
    let ends_repeating = |length: usize| {
        let Some(start) = words.len().checked_sub(length * REPEATS) else { return false };
        let tail = &words[start..];
        tail.chunks(length).all(|chunk| chunk == &tail[..length])
    };
    if (1..=LONGEST_PHRASE).any(ends_repeating) {
        return Some(Degenerate::Repeating);
    }
    (completion.finish == Finish::Length).then_some(Degenerate::Truncated)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str, finish: Finish) -> Option<Degenerate> {
        degenerate(&Completion { text: text.to_owned(), finish })
    }

    #[test]
    fn silence_and_loops_are_found_and_sentences_are_not() {
        let stopped = |text| kind(text, Finish::Stop);
        assert_eq!(stopped(" \n\t"), Some(Degenerate::Empty));
        assert_eq!(stopped("well no no no no"), Some(Degenerate::Repeating));
        assert_eq!(stopped("so a b a b a b a b"), Some(Degenerate::Repeating));
        assert_eq!(stopped("no no no"), None);
        assert_eq!(stopped("a sentence of five words"), None);
    }

    #[test]
    fn a_cut_answer_is_truncated_unless_it_is_worse() {
        assert_eq!(kind("and then we", Finish::Length), Some(Degenerate::Truncated));
        assert_eq!(kind("no no no no", Finish::Length), Some(Degenerate::Repeating));
        assert_eq!(kind("", Finish::Length), Some(Degenerate::Empty));
    }
}
