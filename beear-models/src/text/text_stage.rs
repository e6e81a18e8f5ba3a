//! Stages of text work whose duration depends on the model's folder.

use std::fmt;

use serde::{Deserialize, Serialize};

/// File of a model's folder that decides the duration of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TextStage {
    /// Chat template of the model.
    Template,
    /// File `tokenizer.json`.
    Tokenizer,
}

/// Formats the stage for messages.
impl fmt::Display for TextStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Template => "the chat template",
            Self::Tokenizer => "the tokenizer",
        })
    }
}
