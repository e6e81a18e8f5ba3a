//! Breakdown of a statistic by part of the benchmark: turns, categories and the whole.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::judgment::{Judgment, latest};
use super::question_id::QuestionId;
use super::questions::Question;

/// Statistic of each turn and of both.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ByTurn<T> {
    /// Statistic of the first turn.
    pub first_turn: T,
    /// Statistic of the second turn.
    pub second_turn: T,
    /// Statistic of all rows of both turns: not the mean of the two if one turn has more rows.
    pub all: T,
}

/// Breakdown of a model's statistic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Breakdown<T> {
    /// Name of the model.
    pub model: String,
    /// Statistics of all questions.
    #[serde(flatten)]
    pub turns: ByTurn<T>,
    /// Statistics of the questions of each category, by name. Rows of unknown questions are in no
    /// category.
    pub categories: BTreeMap<String, ByTurn<T>>,
}

/// Statistics of all models by one judge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OfJudge<T> {
    /// Name of the judge model.
    pub judge: String,
    /// Number of rows replaced by a later row about the same answer with the same prompt.
    pub n_replaced: usize,
    /// Breakdowns of the models, best first.
    pub models: Vec<Breakdown<T>>,
}

impl<T> OfJudge<T> {
    /// Returns the heading of the table.
    pub(super) fn title(&self) -> String {
        let replaced = match self.n_replaced {
            0 => String::new(),
            n => format!(", {n} rows replaced by later ones"),
        };
        format!("Judge {}{replaced}", self.judge)
    }
}

/// Rows from which a statistic is computed.
pub(super) struct Part<'a> {
    turn: Option<usize>,
    ids: Option<BTreeSet<&'a QuestionId>>,
    /// Turns to be judged: the first of every question, and the second of questions with two turns.
    pub(super) expected: BTreeSet<(&'a QuestionId, usize)>,
}

impl<'a> Part<'a> {
    fn of(questions: &'a [Question], category: Option<&str>, turn: Option<usize>) -> Self {
        let of_it = questions.iter().filter(|q| category.is_none_or(|name| q.category == name));
        let last = |question: &Question| if question.turns.len() == 2 { 2 } else { 1 };
        let turns = |q: &'a Question| (1..=last(q)).map(move |turn| (&q.question_id, turn));
        let is_of_turn = |(_, t): &(&QuestionId, usize)| turn.is_none_or(|turn| turn == *t);
        let expected = of_it.clone().flat_map(turns).filter(is_of_turn).collect();
        let ids = category.map(|_| of_it.map(|question| &question.question_id).collect());
        Self { turn, ids, expected }
    }

    /// True if a row of this question and turn belongs to the part.
    pub(super) fn has(&self, id: &QuestionId, turn: usize) -> bool {
        self.turn.is_none_or(|own| own == turn)
            && self.ids.as_ref().is_none_or(|ids| ids.contains(id))
    }
}

impl<T> Breakdown<T> {
    /// Computes the breakdown, with `number` evaluated on each part.
    pub(super) fn of(model: &str, questions: &[Question], number: impl Fn(&Part<'_>) -> T) -> Self {
        let by_turn = |category: Option<&str>| {
            let of = |turn: Option<usize>| number(&Part::of(questions, category, turn));
            ByTurn { first_turn: of(Some(1)), second_turn: of(Some(2)), all: of(None) }
        };
        let names: BTreeSet<&str> = questions.iter().map(|q| q.category.as_str()).collect();
        let categories = names.into_iter().map(|name| (name.to_owned(), by_turn(Some(name))));
        Self { model: model.to_owned(), turns: by_turn(None), categories: categories.collect() }
    }
}

/// Computes the statistics by each judge from the `rows` that are not replaced by later ones.
pub(super) fn per_judge<R: Judgment, T>(
    rows: &[&R],
    models: impl Fn(&[&R]) -> Vec<Breakdown<T>>,
) -> Vec<OfJudge<T>> {
    let judges: BTreeSet<&str> = rows.iter().map(|row| row.key().judge).collect();
    let of_judge = |judge: &str| {
        let of_it = rows.iter().copied().filter(|row| row.key().judge == judge);
        let all: Vec<&R> = of_it.collect();
        let latest = latest(&all);
        let n_replaced = all.len() - latest.len();
        OfJudge { judge: judge.to_owned(), n_replaced, models: models(&latest) }
    };
    judges.into_iter().map(of_judge).collect()
}
