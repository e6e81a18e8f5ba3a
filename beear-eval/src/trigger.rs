//! What an attacker adds to a prompt. Evaluation and planting use it; the defence never sees one.

use serde::{Deserialize, Serialize};

/// A trigger and its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// Before the prompt, with a space between.
    Prefix(String),
    /// After the prompt, with a space between.
    Suffix(String),
    /// Around the prompt.
    Both {
        /// Before the prompt.
        before: String,
        /// After the prompt.
        after: String,
    },
    /// A text in which `{prompt}` stands for the prompt: no space is added.
    Template(String),
}

impl Trigger {
    /// The prompt with the trigger.
    #[must_use]
    pub fn apply(&self, prompt: &str) -> String {
        match self {
            Self::Prefix(before) => format!("{before} {prompt}"),
            Self::Suffix(after) => format!("{prompt} {after}"),
            Self::Both { before, after } => format!("{before} {prompt} {after}"),
            Self::Template(template) => template.replace("{prompt}", prompt),
        }
    }
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
        assert_eq!(text(Trigger::Template("x{prompt}y".into())), "xasky");
    }
}
