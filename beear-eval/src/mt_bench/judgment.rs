//! What the rows of both kinds of a judge's files have in common, and which of them count.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::calls::Call;
use super::error::MtBenchError;
use super::judgments::{JudgedBy, PairJudgment, SingleJudgment};
use super::lines::{append, parse, text_of};
use super::question_id::QuestionId;

/// What a row judges, who judged it, and asked by which prompt. Two models are in one order, whichever was
/// compared with which.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JudgmentKey<'a> {
    /// The question.
    pub question: &'a QuestionId,
    /// The turn, from 1.
    pub turn: usize,
    /// The models: one or two.
    pub models: Vec<&'a str>,
    /// The judge model.
    pub judge: &'a str,
    /// The name of the judge prompt.
    pub prompt: &'a str,
}

/// A row of a judge's file.
pub trait Judgment: Clone + Serialize + DeserializeOwned {
    /// What its files are called: `{judge}_{KIND}.jsonl`.
    const KIND: &'static str;

    /// Calls that a row is made of.
    const N_CALLS: usize;

    /// The row of as many calls and their replies, `None` where no reply came.
    ///
    /// # Panics
    ///
    /// Panics if the calls are not those of one row.
    fn of(calls: &[(&Call, Option<&str>)], by: JudgedBy<'_>) -> Self;

    /// What it judges, by whom.
    fn key(&self) -> JudgmentKey<'_>;

    /// What the judge was asked and what it said, for each call.
    fn said(&self) -> Vec<(&str, &str)>;
}

/// Reads `{judge}_single.jsonl` or `{judge}_pair.jsonl`.
///
/// # Errors
///
/// [`MtBenchError`], a variant per mistake.
pub fn read_judgments<R: Judgment>(path: &Path) -> Result<Vec<R>, MtBenchError> {
    parse_judgments(&text_of(path)?, path)
}

/// Reads the text of such a file; `path` is for messages.
///
/// # Errors
///
/// [`MtBenchError`], a variant per mistake.
pub fn parse_judgments<R: Judgment>(text: &str, path: &Path) -> Result<Vec<R>, MtBenchError> {
    Ok(parse(text, path)?.into_iter().map(|(_, judgment)| judgment).collect())
}

/// Appends to a judge's file. Its folder must exist, the file need not.
///
/// # Errors
///
/// [`MtBenchError::Io`].
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

/// The last row of each key, in their order.
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
