//! What became of each request.

use serde::{Deserialize, Serialize};

use super::chat::{CallError, Reply};

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// The judge said something.
    Replied {
        /// What it said.
        reply: Reply,
        /// Whether no call was needed.
        is_cached: bool,
    },
    /// The judge said nothing.
    Failed {
        /// Why, at the last try.
        error: CallError,
        /// How often it was asked.
        n_attempts: usize,
    },
}

impl Asked {
    /// Whether no call was needed.
    #[must_use]
    pub fn is_cached(&self) -> bool {
        matches!(self, Self::Replied { is_cached: true, .. })
    }

    /// What the judge said, if it did.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Replied { reply, .. } => Some(&reply.text),
            Self::Failed { .. } => None,
        }
    }
}

/// What is told while a judge is asked: a request is done.
#[derive(Clone, Copy, Debug)]
pub struct AskProgress<'a> {
    /// Which request, from 0.
    pub index: usize,
    /// What became of it.
    pub asked: &'a Asked,
    /// How many requests are done, this one included.
    pub n_done: usize,
    /// How many there are.
    pub n_expected: usize,
}

/// What became of all requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asking {
    /// What became of each request, in their order.
    pub outcomes: Vec<Asked>,
    /// Calls that were made, those that failed included.
    pub n_calls: usize,
    /// Requests whose reply was in the cache before.
    pub n_cached: usize,
}
