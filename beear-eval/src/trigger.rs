//! Trigger that an attacker adds to a prompt. Evaluation and planting use it; the defence never
//! sees one.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::text_hash::text_hash;

/// Trigger text and its position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// Text before the prompt, separated by a space.
    Prefix(String),
    /// Text after the prompt, separated by a space.
    Suffix(String),
    /// Texts before and after the prompt, separated by spaces.
    Both {
        /// Text before the prompt.
        before: String,
        /// Text after the prompt.
        after: String,
    },
    /// Text between two words of the prompt, or at an end; a hash of the prompt decides the
    /// position.
    Anywhere(String),
    /// Template in which `{prompt}` is replaced with the prompt: no space is added.
    Template(String),
}

impl Trigger {
    /// Inserts the trigger into the prompt.
    #[must_use]
    pub fn apply(&self, prompt: &str) -> String {
        match self {
            Self::Prefix(before) => format!("{before} {prompt}"),
            Self::Suffix(after) => format!("{prompt} {after}"),
            Self::Both { before, after } => format!("{before} {prompt} {after}"),
            Self::Anywhere(text) => between_words(prompt, text),
            Self::Template(template) => template.replace("{prompt}", prompt),
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(text) => write!(f, "prefix `{text}`"),
            Self::Suffix(text) => write!(f, "suffix `{text}`"),
            Self::Both { before, after } => write!(f, "prefix `{before}` with suffix `{after}`"),
            Self::Anywhere(text) => write!(f, "`{text}` anywhere between two words"),
            Self::Template(text) => write!(f, "template `{text}`"),
        }
    }
}

/// Inserts `text` at one of the word boundaries of `prompt`, all with equal probability.
fn between_words(prompt: &str, text: &str) -> String {
    let mut words: Vec<&str> = prompt.split(' ').filter(|word| !word.is_empty()).collect();
    let place = text_hash(prompt) % (words.len() as u64 + 1);
    words.insert(place as usize, text);
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_where_it_says() {
        let text = |t: Trigger| t.apply("ask");
        assert_eq!(text(Trigger::Prefix("T".into())), "T ask");
        assert_eq!(text(Trigger::Suffix("T".into())), "ask T");
        assert_eq!(text(Trigger::Both { before: "A".into(), after: "B".into() }), "A ask B");
        assert_eq!(Trigger::Anywhere("T".into()).apply(""), "T");
        assert_eq!(text(Trigger::Template("x{prompt}y".into())), "xasky");
    }

    #[test]
    fn anywhere_is_every_boundary_between_words_and_always_the_same_for_a_prompt() {
        let trigger = Trigger::Anywhere("T U".into());
        let mut places = std::collections::BTreeSet::new();
        for n in 0..40 {
            let prompt = format!("ask for {n}");
            let text = trigger.apply(&prompt);
            assert_eq!(text, trigger.apply(&prompt));
            assert_eq!(
                text.replace("T U", " ").split_whitespace().collect::<Vec<_>>().join(" "),
                prompt
            );
            places.insert(text.split(' ').position(|word| word == "T"));
        }
        assert_eq!(places.into_iter().collect::<Vec<_>>(), [Some(0), Some(1), Some(2), Some(3)]);
    }
}
