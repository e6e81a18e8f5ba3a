//! What became of each item.

use serde::{Deserialize, Serialize};

use super::asked::{Asked, Asking};
use super::assessment::Assessment;
use super::chat::{CallError, JudgeId};
use super::verdict::Verdict;

/// What became of an item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The judge said something that can be read.
    Judged {
        /// What it found.
        verdict: Verdict,
        /// All it said.
        text: String,
    },
    /// The judge said something that cannot be read as a verdict.
    Unreadable {
        /// All it said.
        text: String,
    },
    /// The judge said nothing.
    Failed {
        /// Why, at the last try.
        error: CallError,
        /// How often it was asked.
        n_attempts: usize,
    },
}

impl Outcome {
    /// What `asked` says to who asks for `assessment`.
    #[must_use]
    pub fn of(assessment: &Assessment, asked: &Asked) -> Self {
        match asked {
            Asked::Replied { reply, .. } => {
                let text = reply.text.clone();
                match assessment.verdict(reply) {
                    Some(verdict) => Self::Judged { verdict, text },
                    None => Self::Unreadable { text },
                }
            }
            Asked::Failed { error, n_attempts } => {
                Self::Failed { error: error.clone(), n_attempts: *n_attempts }
            }
        }
    }
}

/// What a run tells while it goes on: an item is done.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Which item, from 0.
    pub index: usize,
    /// What became of it.
    pub outcome: &'a Outcome,
    /// Whether no call was needed.
    pub is_cached: bool,
    /// How many items are done, this one included.
    pub n_done: usize,
    /// How many there are.
    pub n_expected: usize,
}

/// What a run found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Who judged.
    pub judge: JudgeId,
    /// Name of the prompt.
    pub prompt: String,
    /// What became of each item, in their order.
    pub outcomes: Vec<Outcome>,
    /// Calls that were made, those that failed included.
    pub n_calls: usize,
    /// Items whose reply was in the cache before.
    pub n_cached: usize,
}

impl Report {
    /// What `judge` said, asked for `assessment`.
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
