//! What became of the calls of a benchmark, none left out.

use anyhow::Result;
use beear_eval::judge::{CallError, CallOutcome};
use beear_eval::mt_bench::{Call, Judged, QuestionId};
use serde::Serialize;

use crate::options::judge_args::judged_something;

/// Counts of calls, the first being the sum of the next three.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct JudgingCounts {
    /// Calls that the benchmark takes.
    n_expected: usize,
    /// Calls with a reply that can be read.
    n_valid: usize,
    /// Calls with another reply.
    n_unreadable: usize,
    /// Calls without reply.
    n_failed: usize,
    /// Calls that an earlier run has made, with a reply that can be read.
    n_kept: usize,
    /// Those without reply.
    failures: Vec<Failure>,
}

/// A call without reply, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Failure {
    question_id: QuestionId,
    judged: Judged,
    turn: usize,
    error: CallError,
    n_attempts: usize,
}

impl JudgingCounts {
    /// Of `n_expected` calls, those that were `open` having become what is `asked`.
    pub(crate) fn of(n_expected: usize, open: &[&Call], asked: &[CallOutcome]) -> Self {
        let (mut n_unreadable, mut failures) = (0, Vec::new());
        for (call, asked) in open.iter().zip(asked) {
            match asked {
                CallOutcome::Replied { reply, .. } => {
                    n_unreadable += usize::from(!call.output_format.is_read(&reply.text));
                }
                CallOutcome::Failed { error, n_attempts } => failures.push(Failure {
                    question_id: call.question_id.clone(),
                    judged: call.judged.clone(),
                    turn: call.turn,
                    error: error.clone(),
                    n_attempts: *n_attempts,
                }),
            }
        }
        let n_failed = failures.len();
        Self {
            n_expected,
            n_valid: n_expected - n_unreadable - n_failed,
            n_unreadable,
            n_failed,
            n_kept: n_expected - open.len(),
            failures,
        }
    }

    /// That at least one call has a reply that can be read.
    ///
    /// # Errors
    ///
    /// If there were calls and none has.
    pub(crate) fn judged_something(&self) -> Result<()> {
        judged_something(self.n_valid, self.n_expected)
    }

    /// The counts in a line.
    pub(crate) fn to_text(&self) -> String {
        let Self { n_expected, n_valid, n_unreadable, n_failed, n_kept, .. } = self;
        format!(
            "{n_valid} of {n_expected} calls judged ({n_kept} by an earlier run), {n_unreadable} unreadable, \
             {n_failed} failed"
        )
    }
}
