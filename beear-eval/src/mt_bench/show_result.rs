//! Results of ratings: the averages of FastChat's `show_result.py`, and BEEAR's own, each with the
//! numbers of its ratings and of missing ones.
//!
//! As in FastChat, a rating of -1 is dropped. In FastChat's averages every row of the file counts,
//! including duplicates, regardless of the judge. In BEEAR's a later row replaces an earlier one of
//! the same question, model, turn, judge and prompt, and two judges are never averaged.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::breakdown::{Breakdown, ByTurn, OfJudge, Part, per_judge};
use super::judgments::SingleJudgment;
use super::questions::Question;
use crate::table::markdown;

/// Average of ratings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Average {
    /// Mean of the valid rows; None if there are none.
    pub mean: Option<f64>,
    /// Number of rows with a rating, duplicates included.
    pub n_valid: usize,
    /// Number of rows without a rating: the judge was not reached, or gave none.
    pub n_failed: usize,
    /// Number of rows about the same answer as an earlier row.
    pub n_duplicates: usize,
    /// Number of turns of the questions in this part.
    pub n_expected: usize,
    /// Number of expected turns without a row.
    pub n_missing: usize,
    /// Number of rows about turns that are not in the questions. They count, as in FastChat.
    pub n_unknown: usize,
}

impl Average {
    /// Formats the mean, the number of valid out of expected rows, and the problems of the rows.
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

    /// True if the part has neither rows nor expected turns.
    fn is_of_nothing(&self) -> bool {
        self.n_valid + self.n_failed + self.n_expected == 0
    }

    fn of(rows: &[&SingleJudgment], part: &Part<'_>) -> Self {
        let is_of_part = |row: &&&SingleJudgment| part.has(&row.question_id, row.turn);
        let rows: Vec<&SingleJudgment> = rows.iter().filter(is_of_part).copied().collect();
        let expected = &part.expected;
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

/// Averages of a model.
pub type ModelAverages = Breakdown<Average>;

/// Averages of all models of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SingleResult {
    /// FastChat's averages, in which every row counts, by descending average over all rows; models
    /// without any rating, which FastChat leaves out, are last.
    pub models: Vec<ModelAverages>,
    /// BEEAR's averages for each judge.
    pub judges: Vec<OfJudge<Average>>,
}

impl SingleResult {
    /// Computes the averages of `judgments` of answers to `questions`.
    #[must_use]
    pub fn of(judgments: &[SingleJudgment], questions: &[Question]) -> Self {
        let rows: Vec<&SingleJudgment> = judgments.iter().collect();
        let judges = per_judge(&rows, |rows| averages(rows, questions));
        Self { models: averages(&rows, questions), judges }
    }

    /// Formats a table of the turns and a table of the categories for each judge, and FastChat's
    /// table of the turns.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let of_judge = |judge: &OfJudge<Average>| {
            let OfJudge { models, .. } = judge;
            let tables = format!("{}\n{}", turn_table(models), category_table(models));
            format!("{}:\n\n{tables}\n", judge.title())
        };
        let ours: String = self.judges.iter().map(of_judge).collect();
        format!(
            "{ours}As FastChat averages, every row of every judge:\n\n{}",
            turn_table(&self.models)
        )
    }
}

fn averages(rows: &[&SingleJudgment], questions: &[Question]) -> Vec<ModelAverages> {
    let names: BTreeSet<&str> = rows.iter().map(|row| row.model.as_str()).collect();
    let of_model = |model: &str| {
        let rows: Vec<_> = rows.iter().copied().filter(|row| row.model == model).collect();
        Breakdown::of(model, questions, |part| Average::of(&rows, part))
    };
    let mut models: Vec<ModelAverages> = names.into_iter().map(of_model).collect();
    let key = |averages: &ModelAverages| averages.turns.all.mean.unwrap_or(f64::NEG_INFINITY);
    models.sort_by(|a, b| key(b).total_cmp(&key(a)));
    models
}

fn turn_table(models: &[ModelAverages]) -> String {
    let head = ["model", "turn 1", "turn 2", "average"].map(str::to_owned).to_vec();
    let line = |m: &ModelAverages| {
        let ByTurn { first_turn, second_turn, all } = &m.turns;
        let cells = [first_turn, second_turn, all].map(Average::to_text);
        [vec![m.model.clone()], cells.to_vec()].concat()
    };
    markdown(std::iter::once(head).chain(models.iter().map(line)).collect())
}

/// Formats a table of the categories and their non-empty turns, with a column per model.
fn category_table(models: &[ModelAverages]) -> String {
    type OfTurn = fn(&ByTurn<Average>) -> &Average;
    let turns: [(&str, OfTurn); 3] =
        [("", |c| &c.all), (", turn 1", |c| &c.first_turn), (", turn 2", |c| &c.second_turn)];
    let names: BTreeSet<&String> = models.iter().flat_map(|m| m.categories.keys()).collect();
    let head = models.iter().map(|m| m.model.clone());
    let mut lines = vec![std::iter::once("category".to_owned()).chain(head).collect()];
    for name in names {
        for (ending, of_turn) in turns {
            let averages: Vec<&Average> =
                models.iter().filter_map(|m| Some(of_turn(m.categories.get(name)?))).collect();
            if !averages.iter().all(|average| average.is_of_nothing()) {
                let cells = averages.into_iter().map(Average::to_text);
                lines.push(std::iter::once(format!("{name}{ending}")).chain(cells).collect());
            }
        }
    }
    markdown(lines)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::question_id::QuestionId;
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
        // Turn 1: 8 and 5 for question 1, -1 for question 2, none for question 3.
        assert_eq!(high.turns.first_turn, average(Some(6.5), [2, 1, 1, 3, 1, 0]));
        // Turn 2: 7.5 for question 1, none for question 2, 9 for a question outside the set.
        assert_eq!(high.turns.second_turn, average(Some(8.25), [2, 0, 0, 2, 1, 1]));
        assert_eq!(high.turns.all, average(Some(29.5 / 4.0), [4, 1, 1, 5, 2, 1]));
        assert_eq!(high.categories["math"].all, average(Some(20.5 / 3.0), [3, 0, 1, 2, 0, 0]));
        assert_eq!(high.categories["stem"].all, average(None, [0, 1, 0, 3, 2, 0]));
        assert_eq!(result.models[2].turns.all, average(None, [0, 1, 0, 5, 4, 0]));
    }

    #[test]
    fn in_ours_a_later_row_replaces_an_earlier_one_and_judges_stay_apart() {
        let other =
            |row: SingleJudgment| SingleJudgment { judge: ("k".to_owned(), "p".to_owned()), ..row };
        let rows = [rows(), vec![other(row("high", 1, 1, 2.0))]].concat();
        let result = SingleResult::of(&rows, &questions());
        let judges: Vec<(&str, usize)> =
            result.judges.iter().map(|j| (&*j.judge, j.n_replaced)).collect();
        assert_eq!(judges, [("j", 1), ("k", 0)]);
        // FastChat averages 8, 5 and 2.
        assert_eq!(result.models[0].turns.first_turn.mean, Some(5.0));
        let high = result.judges[0].models.iter().find(|m| m.model == "high").unwrap();
        assert_eq!(high.turns.first_turn, average(Some(5.0), [1, 1, 0, 3, 1, 0]));
        let math = &high.categories["math"];
        assert_eq!(math.first_turn, average(Some(5.0), [1, 0, 0, 1, 0, 0]));
        assert_eq!(math.second_turn, average(Some(7.5), [1, 0, 0, 1, 0, 0]));
        assert_eq!(result.judges[1].models[0].turns.all, average(Some(2.0), [1, 0, 0, 5, 4, 0]));
        let text = result.to_markdown();
        assert!(text.starts_with("Judge j, 1 rows replaced by later ones:\n\n| model "), "{text}");
        assert!(text.contains("| math, turn 2 | 7.500, n = 1/1 "), "{text}");
        // A later failure also replaces an earlier row.
        let later = [row("a", 1, 1, 8.0), row("a", 1, 1, -1.0)];
        let ours = &SingleResult::of(&later, &questions()).judges[0];
        assert_eq!((ours.models[0].turns.all.mean, ours.n_replaced), (None, 1));
    }

    #[test]
    fn a_table_shows_every_failure() {
        let text = SingleResult::of(&rows(), &questions()).to_markdown();
        let fastchat = text.split("As FastChat").nth(1).unwrap();
        assert!(
            fastchat.contains("| high   | 6.500, n = 2/3, 1 failed, 1 missing, 1 duplicate |"),
            "{text}"
        );
        assert!(text.contains("| 8.250, n = 2/2, 1 missing, 1 unknown |"), "{text}");
        assert!(text.contains("| none, n = 0/3, 1 failed, 2 missing "), "{text}");
        let nothing = SingleResult::of(&[], &questions()).to_markdown();
        assert!(nothing.starts_with("As FastChat averages"), "{nothing}");
    }
}
