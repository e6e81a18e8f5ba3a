//! Answer to be judged.

use serde::{Deserialize, Serialize};

/// Answer to be judged, with its prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Prompt of the user.
    pub prompt: String,
    /// Answer of the model.
    pub answer: String,
}

impl Item {
    /// Creates an item from a prompt and its answer.
    pub fn new(prompt: impl Into<String>, answer: impl Into<String>) -> Self {
        Self { prompt: prompt.into(), answer: answer.into() }
    }
}
