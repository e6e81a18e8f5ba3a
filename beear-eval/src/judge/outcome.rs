//! Results of judged items.

use serde::{Deserialize, Serialize};

use super::asked::{Asking, CallOutcome};
use super::assessment::Assessment;
use super::chat::{CallError, JudgeId};
use super::verdict::Verdict;

/// Result of an item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The judge replied with a readable verdict.
    Judged {
        /// Verdict of the judge.
        verdict: Verdict,
        /// Full text of the reply.
        text: String,
    },
    /// The judge replied without a readable verdict.
    Unreadable {
        /// Full text of the reply.
        text: String,
    },
    /// The judge did not reply.
    Failed {
        /// Error of the last attempt.
        error: CallError,
        /// Number of attempts.
        n_attempts: usize,
    },
}

impl Outcome {
    /// Returns the outcome of an item from the result of its request, parsed according to
    /// `assessment`.
    #[must_use]
    pub fn of(assessment: &Assessment, asked: &CallOutcome) -> Self {
        match asked {
            CallOutcome::Replied { reply, .. } => {
                let text = reply.text.clone();
                match assessment.verdict(reply) {
                    Some(verdict) => Self::Judged { verdict, text },
                    None => Self::Unreadable { text },
                }
            }
            CallOutcome::Failed { error, n_attempts } => {
                Self::Failed { error: error.clone(), n_attempts: *n_attempts }
            }
        }
    }
}

/// Progress report of a run: an item is done.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Index of the item, from 0.
    pub index: usize,
    /// Outcome of the item.
    pub outcome: &'a Outcome,
    /// True if the reply came from the cache without a call.
    pub is_cached: bool,
    /// Number of finished items, this one included.
    pub n_done: usize,
    /// Total number of items.
    pub n_expected: usize,
}

/// Result of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Identity of the judge.
    pub judge: JudgeId,
    /// Name of the judge prompt.
    pub prompt: String,
    /// Outcome of each item, in order.
    pub outcomes: Vec<Outcome>,
    /// Number of calls, failed ones included.
    pub n_calls: usize,
    /// Number of items whose reply was already in the cache.
    pub n_cached: usize,
}

impl Report {
    /// Builds the report of the replies of `judge` to the requests of `assessment`.
    #[must_use]
    pub fn of(assessment: &Assessment, judge: &JudgeId, asking: &Asking) -> Self {
        Self {
            judge: judge.clone(),
            prompt: assessment.prompt().name.clone(),
            outcomes: asking.outcomes.iter().map(|asked| Outcome::of(assessment, asked)).collect(),
            n_calls: asking.n_calls,
            n_cached: asking.n_cached,
        }
    }
}
