//! An answer to be judged.

use serde::{Deserialize, Serialize};

/// An answer to be judged, with what it answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// What was asked.
    pub prompt: String,
    /// What a model answered.
    pub answer: String,
}

impl Item {
    /// `answer`, given to `prompt`.
    pub fn new(prompt: impl Into<String>, answer: impl Into<String>) -> Self {
        Self { prompt: prompt.into(), answer: answer.into() }
    }
}
