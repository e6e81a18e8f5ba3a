//! What becomes of ratings: the averages of FastChat's `show_result.py`, each beside how many ratings it
//! rests on and how many it lacks.
//!
//! As there, a rating of -1 is dropped, and a row counts as often as it is in the file.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::judgments::SingleJudgment;
use super::questions::{Question, QuestionId};
use crate::measure::{Better, Measure, Outcome, Statistic};
use crate::table::markdown;

/// An average of ratings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Average {
    /// The mean of the valid rows.
    pub mean: Option<f64>,
    /// Rows with a rating, every duplicate counted.
    pub n_valid: usize,
    /// Rows without one: the judge was not reached, or did not say.
    pub n_failed: usize,
    /// Rows that judge what an earlier row judges.
    pub n_duplicates: usize,
    /// Turns that the questions have.
    pub n_expected: usize,
    /// Of those, turns without a row.
    pub n_missing: usize,
    /// Rows that judge no turn of the questions. They count, as in FastChat.
    pub n_unknown: usize,
}

impl Average {
    /// The mean, the rows it rests on out of those expected, and what is wrong with them.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mean = self.mean.map_or("none".to_owned(), |mean| format!("{mean:.3}"));
        let wrong = [
            (self.n_failed, "failed"),
            (self.n_missing, "missing"),
            (self.n_duplicates, "duplicate"),
            (self.n_unknown, "unknown"),
        ];
        let wrong = wrong.into_iter().filter(|(n, _)| *n > 0);
        let text = format!("{mean}, n = {}/{}", self.n_valid, self.n_expected);
        wrong.fold(text, |text, (n, what)| format!("{text}, {n} {what}"))
    }

    fn of(rows: &[&SingleJudgment], expected: &BTreeSet<(&QuestionId, usize)>) -> Self {
        let judged: BTreeSet<_> = rows.iter().map(|row| (&row.question_id, row.turn)).collect();
        let ratings: Vec<f64> = rows.iter().filter_map(|row| row.rating()).collect();
        let n_valid = ratings.len();
        let is_unknown = |row: &&&SingleJudgment| !expected.contains(&(&row.question_id, row.turn));
        Self {
            mean: (n_valid > 0).then(|| ratings.iter().sum::<f64>() / n_valid as f64),
            n_valid,
            n_failed: rows.len() - n_valid,
            n_duplicates: rows.len() - judged.len(),
            n_expected: expected.len(),
            n_missing: expected.difference(&judged).count(),
            n_unknown: rows.iter().filter(is_unknown).count(),
        }
    }
}

/// The averages of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelAverages {
    /// The model.
    pub model: String,
    /// Of its answers to the first turn.
    pub first_turn: Average,
    /// Of its answers to the second turn.
    pub second_turn: Average,
    /// Of all rows, whatever their turn: not the mean of the two where one has more rows.
    pub all: Average,
    /// Of all rows of a category, by its name. Rows of unknown questions are in none.
    pub categories: BTreeMap<String, Average>,
}

/// The averages of all models of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SingleResult {
    /// By their average over all rows, best first; models without any rating, which FastChat leaves out,
    /// last.
    pub models: Vec<ModelAverages>,
}

impl SingleResult {
    /// The averages of `judgments` of answers to `questions`.
    #[must_use]
    pub fn of(judgments: &[SingleJudgment], questions: &[Question]) -> Self {
        let names: BTreeSet<&str> = judgments.iter().map(|row| row.model.as_str()).collect();
        let mut models: Vec<ModelAverages> =
            names.into_iter().map(|model| model_averages(model, judgments, questions)).collect();
        let key = |averages: &ModelAverages| averages.all.mean.unwrap_or(f64::NEG_INFINITY);
        models.sort_by(|a, b| key(b).total_cmp(&key(a)));
        Self { models }
    }

    /// A table of the turns and a table of the categories.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let line = |first: &str, rest: Vec<String>| [vec![first.to_owned()], rest].concat();
        let head = ["turn 1", "turn 2", "average"].map(str::to_owned).to_vec();
        let turns = self.models.iter().map(|m| {
            let cells = [&m.first_turn, &m.second_turn, &m.all];
            line(&m.model, cells.map(Average::to_text).to_vec())
        });
        let turns = std::iter::once(line("model", head)).chain(turns);
        let names: BTreeSet<&String> =
            self.models.iter().flat_map(|m| m.categories.keys()).collect();
        let models = self.models.iter().map(|m| m.model.clone()).collect();
        let categories = names.into_iter().map(|name| {
            let cell = |m: &ModelAverages| m.categories.get(name).map(Average::to_text);
            line(name, self.models.iter().map(|m| cell(m).unwrap_or_default()).collect())
        });
        let categories = std::iter::once(line("category", models)).chain(categories);
        format!("{}\n{}", markdown(turns.collect()), markdown(categories.collect()))
    }
}

fn model_averages(
    model: &str,
    judgments: &[SingleJudgment],
    questions: &[Question],
) -> ModelAverages {
    let rows: Vec<&SingleJudgment> = judgments.iter().filter(|row| row.model == model).collect();
    let expected = expected_turns(questions);
    let of_turn = |turn: usize| {
        let rows: Vec<_> = rows.iter().copied().filter(|row| row.turn == turn).collect();
        let expected = expected.iter().copied().filter(|(_, t)| *t == turn).collect();
        Average::of(&rows, &expected)
    };
    let names: BTreeSet<&str> = questions.iter().map(|q| q.category.as_str()).collect();
    let of_category = |name: &str| {
        let of_it = questions.iter().filter(|question| question.category == name);
        let ids: BTreeSet<&QuestionId> = of_it.map(|question| &question.question_id).collect();
        let rows: Vec<_> =
            rows.iter().copied().filter(|row| ids.contains(&row.question_id)).collect();
        let expected = expected.iter().copied().filter(|(id, _)| ids.contains(id)).collect();
        Average::of(&rows, &expected)
    };
    ModelAverages {
        model: model.to_owned(),
        first_turn: of_turn(1),
        second_turn: of_turn(2),
        all: Average::of(&rows, &expected),
        categories: names.into_iter().map(|name| (name.to_owned(), of_category(name))).collect(),
    }
}

/// The turns that are judged: the first of every question, the second of those that have two.
fn expected_turns(questions: &[Question]) -> BTreeSet<(&QuestionId, usize)> {
    let last = |question: &Question| if question.turns.len() == 2 { 2 } else { 1 };
    let turns = |q| (1..=last(q)).map(move |turn| (&q.question_id, turn));
    questions.iter().flat_map(turns).collect()
}

/// The ratings of a model as measures to compare with another's, one per judge and turn, with an outcome
/// per `question/turn`: the mean of its ratings if it has several, so that every question counts once.
#[must_use]
pub fn mt_bench_measures(judgments: &[SingleJudgment], model: &str) -> Vec<Measure> {
    let mut ratings: BTreeMap<(&str, usize), BTreeMap<&QuestionId, Vec<f64>>> = BTreeMap::new();
    for row in judgments.iter().filter(|row| row.model == model) {
        let of_turn = ratings.entry((&row.judge.0, row.turn)).or_default();
        if let Some(rating) = row.rating() {
            of_turn.entry(&row.question_id).or_default().push(rating);
        }
    }
    let measure = |((judge, turn), ratings): ((&str, usize), BTreeMap<&QuestionId, Vec<f64>>)| {
        let outcome = |(id, ratings): (&QuestionId, Vec<f64>)| Outcome {
            id: format!("{id}/{turn}"),
            value: ratings.iter().sum::<f64>() / ratings.len() as f64,
            weight: 1.0,
        };
        Measure {
            name: "mt_bench".to_owned(),
            by: format!("{judge} turn {turn}"),
            statistic: Statistic::Mean,
            better: Better::Higher,
            outcomes: ratings.into_iter().map(outcome).collect(),
        }
    };
    ratings.into_iter().map(measure).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::questions::parse_questions;
    use super::*;

    fn questions() -> Vec<Question> {
        let text = concat!(
            r#"{"question_id":1,"category":"math","turns":["a","b"]}"#,
            "\n",
            r#"{"question_id":2,"category":"stem","turns":["a","b"]}"#,
            "\n",
            r#"{"question_id":3,"category":"stem","turns":["a"]}"#,
        );
        parse_questions(text, Path::new("file")).unwrap()
    }

    fn row(model: &str, id: u64, turn: usize, score: f64) -> SingleJudgment {
        SingleJudgment {
            question_id: QuestionId::Number(id),
            model: model.to_owned(),
            judge: ("j".to_owned(), "p".to_owned()),
            user_prompt: String::new(),
            judgment: String::new(),
            score,
            turn,
            tstamp: 0.0,
        }
    }

    fn rows() -> Vec<SingleJudgment> {
        vec![
            row("low", 1, 1, 3.0),
            row("silent", 1, 1, -1.0),
            row("high", 1, 1, 8.0),
            row("high", 1, 1, 5.0),
            row("high", 1, 2, 7.5),
            row("high", 2, 1, -1.0),
            row("high", 9, 2, 9.0),
        ]
    }

    fn average(mean: Option<f64>, counts: [usize; 6]) -> Average {
        let [n_valid, n_failed, n_duplicates, n_expected, n_missing, n_unknown] = counts;
        Average { mean, n_valid, n_failed, n_duplicates, n_expected, n_missing, n_unknown }
    }

    #[test]
    fn averages_say_what_they_rest_on() {
        let result = SingleResult::of(&rows(), &questions());
        let names: Vec<&str> = result.models.iter().map(|m| m.model.as_str()).collect();
        assert_eq!(names, ["high", "low", "silent"]);
        let high = &result.models[0];
        // Turn 1: 8 and 5 of question 1, -1 of question 2, none of question 3.
        assert_eq!(high.first_turn, average(Some(6.5), [2, 1, 1, 3, 1, 0]));
        // Turn 2: 7.5 of question 1, none of question 2, 9 of a question that is not asked.
        assert_eq!(high.second_turn, average(Some(8.25), [2, 0, 0, 2, 1, 1]));
        assert_eq!(high.all, average(Some(29.5 / 4.0), [4, 1, 1, 5, 2, 1]));
        assert_eq!(high.categories["math"], average(Some(20.5 / 3.0), [3, 0, 1, 2, 0, 0]));
        assert_eq!(high.categories["stem"], average(None, [0, 1, 0, 3, 2, 0]));
        assert_eq!(result.models[2].all, average(None, [0, 1, 0, 5, 4, 0]));
    }

    #[test]
    fn a_table_shows_every_failure() {
        let text = SingleResult::of(&rows(), &questions()).to_markdown();
        assert!(
            text.contains("| high   | 6.500, n = 2/3, 1 failed, 1 missing, 1 duplicate |"),
            "{text}"
        );
        assert!(text.contains("| 8.250, n = 2/2, 1 missing, 1 unknown |"), "{text}");
        assert!(text.contains("| none, n = 0/3, 1 failed, 2 missing "), "{text}");
        let nothing = SingleResult::of(&[], &questions()).to_markdown();
        assert!(nothing.starts_with("| model | turn 1 |"), "{nothing}");
    }

    #[test]
    fn a_measure_has_an_outcome_per_question_and_turn() {
        let measures = mt_bench_measures(&rows(), "high");
        let found: Vec<(&str, Vec<(&str, f64)>)> = measures
            .iter()
            .map(|m| (&*m.by, m.outcomes.iter().map(|o| (&*o.id, o.value)).collect()))
            .collect();
        let expected =
            [("j turn 1", vec![("1/1", 6.5)]), ("j turn 2", vec![("1/2", 7.5), ("9/2", 9.0)])];
        assert_eq!(found, expected);
        assert!(measures.iter().all(|m| (&*m.name, m.better) == ("mt_bench", Better::Higher)));
        assert!(mt_bench_measures(&rows(), "silent")[0].outcomes.is_empty());
    }
}
