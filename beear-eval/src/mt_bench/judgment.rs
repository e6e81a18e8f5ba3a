//! Common interface of both kinds of rows in a judge's files, and selection of the latest rows.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::calls::Call;
use super::error::MtBenchError;
use super::judgments::{JudgedBy, PairJudgment, SingleJudgment};
use super::lines::{append, parse, text_of};
use super::question_id::QuestionId;

/// Key of a row: the judged answers, the judge and the judge prompt. Two models are sorted, so that
/// the key does not depend on their order in the comparison.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JudgmentKey<'a> {
    /// Id of the question.
    pub question: &'a QuestionId,
    /// Number of the turn, from 1.
    pub turn: usize,
    /// Names of the models, one or two.
    pub models: Vec<&'a str>,
    /// Name of the judge model.
    pub judge: &'a str,
    /// Name of the judge prompt.
    pub prompt: &'a str,
}

/// Row of a judge's file.
pub trait Judgment: Clone + Serialize + DeserializeOwned {
    /// Suffix of the file name: `{judge}_{KIND}.jsonl`.
    const KIND: &'static str;

    /// Number of calls for a row.
    const N_CALLS: usize;

    /// Builds a row from its calls and their replies, `None` for a missing reply.
    ///
    /// # Panics
    ///
    /// Panics if the calls are not those of one row.
    fn of(calls: &[(&Call, Option<&str>)], by: JudgedBy<'_>) -> Self;

    /// Returns the key of the row.
    fn key(&self) -> JudgmentKey<'_>;

    /// Returns the judge's prompt and reply for each call.
    fn said(&self) -> Vec<(&str, &str)>;
}

/// Reads `{judge}_single.jsonl` or `{judge}_pair.jsonl`.
///
/// # Errors
///
/// Returns [`MtBenchError`], with a variant per problem.
pub fn read_judgments<R: Judgment>(path: &Path) -> Result<Vec<R>, MtBenchError> {
    parse_judgments(&text_of(path)?, path)
}

/// Parses the text of a judge's file; `path` is used in messages.
///
/// # Errors
///
/// Returns [`MtBenchError`], with a variant per problem.
pub fn parse_judgments<R: Judgment>(text: &str, path: &Path) -> Result<Vec<R>, MtBenchError> {
    Ok(parse(text, path)?.into_iter().map(|(_, judgment)| judgment).collect())
}

/// Appends a row to a judge's file, which is created if missing. The folder must exist.
///
/// # Errors
///
/// Returns [`MtBenchError::Io`] if the file cannot be written.
pub fn append_judgment(path: &Path, judgment: &impl Judgment) -> Result<(), MtBenchError> {
    append(path, judgment)
}

impl Judgment for SingleJudgment {
    const KIND: &'static str = "single";
    const N_CALLS: usize = 1;

    fn of(calls: &[(&Call, Option<&str>)], by: JudgedBy<'_>) -> Self {
        let [(call, reply)] = calls else { panic!("a rating takes one call") };
        Self::new(call, *reply, by)
    }

    fn key(&self) -> JudgmentKey<'_> {
        JudgmentKey {
            question: &self.question_id,
            turn: self.turn,
            models: vec![&self.model],
            judge: &self.judge.0,
            prompt: &self.judge.1,
        }
    }

    fn said(&self) -> Vec<(&str, &str)> {
        vec![(&self.user_prompt, &self.judgment)]
    }
}

impl Judgment for PairJudgment {
    const KIND: &'static str = "pair";
    const N_CALLS: usize = 2;

    fn of(calls: &[(&Call, Option<&str>)], by: JudgedBy<'_>) -> Self {
        let [first, second] = calls else { panic!("a comparison takes two calls") };
        Self::new([*first, *second], by)
    }

    fn key(&self) -> JudgmentKey<'_> {
        let mut models: Vec<&str> = vec![&self.model_1, &self.model_2];
        models.sort_unstable();
        JudgmentKey {
            question: &self.question_id,
            turn: self.turn,
            models,
            judge: &self.judge.0,
            prompt: &self.judge.1,
        }
    }

    fn said(&self) -> Vec<(&str, &str)> {
        let first = (self.g1_user_prompt.as_str(), self.g1_judgment.as_str());
        vec![first, (&self.g2_user_prompt, &self.g2_judgment)]
    }
}

/// Returns the last row of each key, in the order of the rows.
pub(super) fn latest<'a, R: Judgment>(rows: &[&'a R]) -> Vec<&'a R> {
    let mut known = BTreeSet::new();
    let mut latest = Vec::new();
    for row in rows.iter().rev().copied() {
        if known.insert(row.key()) {
            latest.push(row);
        }
    }
    latest.reverse();
    latest
}
