//! Ids of questions.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Id of a question: a number in MT-Bench, a text in some benchmarks of the same format.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum QuestionId {
    /// Number, such as 81.
    Number(u64),
    /// Text, such as a hash.
    Text(String),
}

impl fmt::Display for QuestionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}
