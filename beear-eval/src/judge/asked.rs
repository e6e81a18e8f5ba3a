//! Results of requests to a judge.

use serde::{Deserialize, Serialize};

use super::chat::{CallError, Reply};

/// Result of a request to a judge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallOutcome {
    /// The judge replied.
    Replied {
        /// Reply of the judge.
        reply: Reply,
        /// True if the reply came from the cache without a call.
        is_cached: bool,
    },
    /// The judge did not reply.
    Failed {
        /// Error of the last attempt.
        error: CallError,
        /// Number of attempts.
        n_attempts: usize,
    },
}

impl CallOutcome {
    /// True if the reply came from the cache without a call.
    #[must_use]
    pub fn is_cached(&self) -> bool {
        matches!(self, Self::Replied { is_cached: true, .. })
    }

    /// Returns the text of the reply; None if the request failed.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Replied { reply, .. } => Some(&reply.text),
            Self::Failed { .. } => None,
        }
    }
}

/// Progress report: a request is done.
#[derive(Clone, Copy, Debug)]
pub struct AskProgress<'a> {
    /// Index of the request, from 0.
    pub index: usize,
    /// Result of the request.
    pub asked: &'a CallOutcome,
    /// Number of finished requests, this one included.
    pub n_done: usize,
    /// Total number of requests.
    pub n_expected: usize,
}

/// Results of all requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asking {
    /// Result of each request, in order.
    pub outcomes: Vec<CallOutcome>,
    /// Number of calls, failed ones included.
    pub n_calls: usize,
    /// Number of requests whose reply was already in the cache.
    pub n_cached: usize,
}
