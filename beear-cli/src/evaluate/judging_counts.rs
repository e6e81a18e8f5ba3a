//! Counts of all calls of a benchmark by their outcome.

use anyhow::Result;
use beear_eval::judge::{CallError, CallOutcome};
use beear_eval::mt_bench::{Call, Judged, QuestionId};
use serde::Serialize;

use crate::options::judge_args::judged_something;

/// Counts of calls. The first is the sum of the next three.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct JudgingCounts {
    /// Number of calls of the benchmark.
    n_expected: usize,
    /// Number of calls with a readable reply.
    n_valid: usize,
    /// Number of calls with an unreadable reply.
    n_unreadable: usize,
    /// Number of calls without a reply.
    n_failed: usize,
    /// Number of calls with a readable reply that an earlier run made.
    n_kept: usize,
    /// Calls without a reply.
    failures: Vec<Failure>,
}

/// A call without a reply, with the error.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Failure {
    question_id: QuestionId,
    judged: Judged,
    turn: usize,
    error: CallError,
    n_attempts: usize,
}

impl JudgingCounts {
    /// Counts `n_expected` calls. The `open` ones have the outcomes `asked`, in the same order; an
    /// earlier run made the others.
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

    /// Checks that at least one call has a readable reply.
    ///
    /// # Errors
    ///
    /// If there were calls and none has a readable reply.
    pub(crate) fn judged_something(&self) -> Result<()> {
        judged_something(self.n_valid, self.n_expected)
    }

    /// Formats the counts in one line.
    pub(crate) fn to_text(&self) -> String {
        let Self { n_expected, n_valid, n_unreadable, n_failed, n_kept, .. } = self;
        format!(
            "{n_valid} of {n_expected} calls judged ({n_kept} by an earlier run), {n_unreadable} unreadable, \
             {n_failed} failed"
        )
    }
}
