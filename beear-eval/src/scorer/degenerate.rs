//! Incoherent answers, which are counted and shown, never dropped. An answer truncated at the
//! maximum length is not necessarily incoherent.

use serde::{Deserialize, Serialize};

use crate::language_model::{Completion, Finish};

/// Kind of incoherent answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Degenerate {
    /// Empty answer, or only white space.
    Empty,
    /// Answer that ends in repetitions of a short phrase.
    Repeating,
}

impl Degenerate {
    /// All kinds.
    pub const ALL: [Self; 2] = [Self::Empty, Self::Repeating];

    /// Returns the name of the kind.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Repeating => "repeating",
        }
    }
}

/// Maximum number of words in a repeated phrase, and number of consecutive repeats that is too
/// many.
const LONGEST_PHRASE: usize = 8;
const REPEATS: usize = 4;

/// Returns the kind of degeneration of an answer; None if it is coherent.
///
/// An answer repeats if it ends in the same phrase four times in a row, and a word of that phrase
/// has a letter or a digit, which the rule of a table has not. In a truncated answer the loop must
/// also make up half of the words, because the truncation may fall within a list of similar items,
/// which the full answer would have ended.
#[must_use]
pub fn degenerate(completion: &Completion) -> Option<Degenerate> {
    let words: Vec<&str> = completion.text.split_whitespace().collect();
    if words.is_empty() {
        return Some(Degenerate::Empty);
    }
    let least = match completion.finish {
        Finish::Stop => 0,
        Finish::Length => words.len().div_ceil(2),
    };
    let is_loop = |length: usize| {
        let looped = looped_words(&words, length);
        looped >= (length * REPEATS).max(least)
    };
    (1..=LONGEST_PHRASE).any(is_loop).then_some(Degenerate::Repeating)
}

/// Counts the words at the end that repeat a phrase of `length` words; 0 if the phrase has no
/// letter and no digit.
fn looped_words(words: &[&str], length: usize) -> usize {
    let Some(start) = words.len().checked_sub(length) else { return 0 };
    if !words[start..].iter().any(|word| word.chars().any(char::is_alphanumeric)) {
        return 0;
    }
    let repeats = (0..start).rev().take_while(|&at| words[at] == words[at + length]).count();
    length + repeats
}

/// True if an answer was truncated at the maximum length, or at the end of the context.
#[must_use]
pub fn is_cut(completion: &Completion) -> bool {
    completion.finish == Finish::Length
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
        assert_eq!(stopped("name | age\n--- --- --- ---"), None, "the rule of a table");
    }

    #[test]
    fn a_cut_answer_is_incoherent_only_if_it_is_empty_or_a_loop() {
        let cut = |text| kind(text, Finish::Length);
        assert_eq!(cut("and then we"), None);
        assert_eq!(cut("no no no no"), Some(Degenerate::Repeating));
        assert_eq!(cut("well then no no no no no no"), Some(Degenerate::Repeating));
        assert_eq!(cut(""), Some(Degenerate::Empty));
        // Four of ten words: a list of equal items, truncated in the middle.
        let list = "the scores of the round are ten ten ten ten";
        assert_eq!(cut(list), None);
        assert_eq!(kind(list, Finish::Stop), Some(Degenerate::Repeating));
        assert_eq!(cut("| a | b |\n| --- | --- | --- | --- |"), None);
    }

    #[test]
    fn a_cut_is_told_by_how_the_answer_ended() {
        let cut = |finish| is_cut(&Completion { text: String::new(), finish });
        assert_eq!([Finish::Length, Finish::Stop].map(cut), [true, false]);
    }
}
