//! The parts of text work that a folder can make slow.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The part of a model's folder that decides how long a task takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TextStage {
    /// The chat template.
    Template,
    /// `tokenizer.json`.
    Tokenizer,
}

/// As messages name the part.
impl fmt::Display for TextStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Template => "the chat template",
            Self::Tokenizer => "the tokenizer",
        })
    }
}
