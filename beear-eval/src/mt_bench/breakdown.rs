//! A number of every model for each part of the benchmark: its turns, its categories, all of it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::judgment::{Judgment, latest};
use super::question_id::QuestionId;
use super::questions::Question;

/// A number of each turn and of both.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ByTurn<T> {
    /// Of the first turn.
    pub first_turn: T,
    /// Of the second turn.
    pub second_turn: T,
    /// Of all rows, whatever their turn: not the mean of the two where one has more rows.
    pub all: T,
}

/// The numbers of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Breakdown<T> {
    /// The model.
    pub model: String,
    /// Of all questions.
    #[serde(flatten)]
    pub turns: ByTurn<T>,
    /// Of the questions of a category, by its name. Rows of unknown questions are in none.
    pub categories: BTreeMap<String, ByTurn<T>>,
}

/// What one judge says of all models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OfJudge<T> {
    /// The judge model.
    pub judge: String,
    /// Rows that do not count, since a later one judges the same by the same prompt.
    pub n_replaced: usize,
    /// Best first.
    pub models: Vec<Breakdown<T>>,
}

impl<T> OfJudge<T> {
    /// What stands above its table.
    pub(super) fn title(&self) -> String {
        let replaced = match self.n_replaced {
            0 => String::new(),
            n => format!(", {n} rows replaced by later ones"),
        };
        format!("Judge {}{replaced}", self.judge)
    }
}

/// Which rows a number is of.
pub(super) struct Part<'a> {
    turn: Option<usize>,
    ids: Option<BTreeSet<&'a QuestionId>>,
    /// The turns that are judged: the first of every question, the second of those that have two.
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

    /// Whether a row of this question and turn is of the part.
    pub(super) fn has(&self, id: &QuestionId, turn: usize) -> bool {
        self.turn.is_none_or(|own| own == turn)
            && self.ids.as_ref().is_none_or(|ids| ids.contains(id))
    }
}

impl<T> Breakdown<T> {
    /// The `number` of each part.
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

/// The numbers by each judge, of `rows` that nothing replaces.
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
