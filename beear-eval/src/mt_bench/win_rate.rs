//! Results of comparisons: the wins, losses and ties of FastChat's `show_result.py`, and BEEAR's
//! own.
//!
//! As in FastChat, a comparison is dropped if the judge gave no verdict in a game, and is a tie if
//! the two games disagree. In FastChat's numbers every row of the file counts, including
//! duplicates, regardless of the judge. In BEEAR's a later row replaces an earlier one of the same
//! question, models in either order, turn, judge and prompt, and judges are kept apart.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::breakdown::{Breakdown, OfJudge, Part, per_judge};
use super::judgment::Judgment;
use super::judgments::{PairJudgment, Winner};
use super::questions::Question;
use crate::interval::Rate;
use crate::table::markdown;

/// Results of a model's comparisons.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Number of comparisons won.
    pub win: usize,
    /// Number of comparisons lost.
    pub loss: usize,
    /// Number of comparisons without a winner, including those with two disagreeing games.
    pub tie: usize,
    /// Number of valid comparisons, the sum of the other three.
    pub n_valid: usize,
    /// Wilson 95 % interval of the win rate; None without valid comparisons.
    pub win_interval: Option<(f64, f64)>,
    /// Number of comparisons without a verdict of the judge. They are in no rate.
    pub n_failed: usize,
    /// Number of comparisons with the turn and models, in either order, of an earlier row.
    pub n_duplicates: usize,
    /// Number of turns of the questions in this part, once for each opposing model; None without
    /// questions.
    pub n_expected: Option<usize>,
}

impl Tally {
    /// Returns the share of comparisons won; NaN without valid comparisons.
    #[must_use]
    pub fn win_rate(&self) -> f64 {
        self.win as f64 / self.n_valid as f64
    }

    /// Returns the share of comparisons lost; NaN without valid comparisons.
    #[must_use]
    pub fn loss_rate(&self) -> f64 {
        self.loss as f64 / self.n_valid as f64
    }

    /// Returns the share of comparisons won, with each tie as half a win; NaN without valid
    /// comparisons.
    #[must_use]
    pub fn win_rate_adjusted(&self) -> f64 {
        (self.win as f64 + 0.5 * self.tie as f64) / self.n_valid as f64
    }

    /// Counts the results of `model` in the `rows` of the part; rows without the model are skipped.
    fn of((model, rows): (&str, &[&PairJudgment]), part: &Part<'_>) -> Self {
        let mut tally = Self::default();
        let mut known = BTreeSet::new();
        for row in rows.iter().filter(|row| part.has(&row.question_id, row.turn)) {
            let sides = [(&row.model_1, Winner::Model1), (&row.model_2, Winner::Model2)];
            for (_, side) in sides.into_iter().filter(|(name, _)| *name == model) {
                match row.winner() {
                    Winner::Error => tally.n_failed += 1,
                    Winner::Tie => tally.tie += 1,
                    winner if winner == side => tally.win += 1,
                    _ => tally.loss += 1,
                }
            }
            let is_new = known.insert((&row.question_id, row.turn, row.key().models));
            tally.n_duplicates += usize::from(!is_new);
        }
        tally.n_valid = tally.win + tally.loss + tally.tie;
        let wins = Rate { hits: tally.win, n: tally.n_valid };
        tally.win_interval = (wins.n > 0).then(|| wins.interval());
        tally
    }
}

/// Results of a model in each part of the benchmark.
pub type ModelTallies = Breakdown<Tally>;

/// Results of all models of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairResult {
    /// FastChat's results, in which every row counts, by descending adjusted win rate; models
    /// without a valid comparison, which FastChat leaves out, are last.
    pub models: Vec<ModelTallies>,
    /// BEEAR's results for each judge.
    pub judges: Vec<OfJudge<Tally>>,
}

/// Selection of comparisons, with the questions that determine the expected number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PairSelection<'a> {
    /// Model that must take part in each comparison; it has no results of its own.
    pub baseline: Option<&'a str>,
    /// Models that may be `model_1`; None for all.
    pub models: Option<&'a [String]>,
    /// Compared questions, for the categories and the expected number of comparisons.
    pub questions: Option<&'a [Question]>,
}

impl PairResult {
    /// Counts the selected `judgments`.
    #[must_use]
    pub fn of(judgments: &[PairJudgment], selection: PairSelection<'_>) -> Self {
        let PairSelection { baseline, models, .. } = selection;
        let takes_part = |row: &&PairJudgment| {
            models.is_none_or(|models| models.contains(&row.model_1))
                && baseline.is_none_or(|name| [&*row.model_1, &*row.model_2].contains(&name))
        };
        let rows: Vec<&PairJudgment> = judgments.iter().filter(takes_part).collect();
        let judges = per_judge(&rows, |rows| tallies(rows, selection));
        Self { models: tallies(&rows, selection), judges }
    }

    /// Formats a table of the models with their turns and categories for each judge, and FastChat's
    /// table.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let of_judge = |judge: &OfJudge<Tally>| {
            let parts: Vec<(String, &Tally)> = judge.models.iter().flat_map(parts).collect();
            format!("{}:\n\n{}\n", judge.title(), table(&parts))
        };
        let ours: String = self.judges.iter().map(of_judge).collect();
        let all = self.models.iter().map(|m| (m.model.clone(), &m.turns.all));
        let fastchat = table(&all.collect::<Vec<_>>());
        format!("{ours}As FastChat counts, every row of every judge:\n\n{fastchat}")
    }
}

fn tallies(rows: &[&PairJudgment], selection: PairSelection<'_>) -> Vec<ModelTallies> {
    let questions = selection.questions.unwrap_or_default();
    let names = rows.iter().flat_map(|row| [row.model_1.as_str(), row.model_2.as_str()]);
    let names: BTreeSet<&str> = names.filter(|name| selection.baseline != Some(*name)).collect();
    let of_model = |model: &str| {
        let with_it = rows.iter().copied();
        let with_it = with_it.filter(|row| [&*row.model_1, &*row.model_2].contains(&model));
        let with_it: Vec<&PairJudgment> = with_it.collect();
        let pairs: BTreeSet<Vec<&str>> = with_it.iter().map(|row| row.key().models).collect();
        Breakdown::of(model, questions, |part| {
            let n_expected = selection.questions.map(|_| part.expected.len() * pairs.len());
            Tally { n_expected, ..Tally::of((model, &with_it), part) }
        })
    };
    let mut models: Vec<ModelTallies> = names.into_iter().map(of_model).collect();
    let key = |tallies: &ModelTallies| match &tallies.turns.all {
        tally if tally.n_valid == 0 => f64::NEG_INFINITY,
        tally => tally.win_rate_adjusted(),
    };
    models.sort_by(|a, b| key(b).total_cmp(&key(a)));
    models
}

/// Returns the parts of the benchmark in which a model has comparisons, or should have.
fn parts(of: &ModelTallies) -> Vec<(String, &Tally)> {
    let turns = [("", &of.turns.all), (", turn 1", &of.turns.first_turn)];
    let turns = turns.into_iter().chain([(", turn 2", &of.turns.second_turn)]);
    let turns = turns.map(|(ending, tally)| (format!("{}{ending}", of.model), tally));
    let categories = of.categories.iter();
    let categories = categories.map(|(name, c)| (format!("{}, {name}", of.model), &c.all));
    let n = |tally: &Tally| tally.n_valid + tally.n_failed + tally.n_expected.unwrap_or(0);
    turns.chain(categories).filter(|(_, tally)| n(tally) > 0).collect()
}

/// Formats FastChat's columns, with the interval of the win rate, the comparisons out of those
/// expected, and the numbers of failures and duplicates.
fn table(tallies: &[(String, &Tally)]) -> String {
    let head = [
        "model",
        "win",
        "loss",
        "tie",
        "win_rate",
        "loss_rate",
        "win_rate_adjusted",
        "win_rate, 95 %",
        "n",
        "failed",
        "duplicate",
    ];
    let rate = |rate: f64| if rate.is_nan() { "none".to_owned() } else { format!("{rate:.3}") };
    let line = |(name, tally): &(String, &Tally)| {
        let interval = tally.win_interval.map(|(low, high)| format!("[{low:.3}, {high:.3}]"));
        let n_expected = tally.n_expected.map(|n| format!("/{n}"));
        vec![
            name.clone(),
            tally.win.to_string(),
            tally.loss.to_string(),
            tally.tie.to_string(),
            rate(tally.win_rate()),
            rate(tally.loss_rate()),
            rate(tally.win_rate_adjusted()),
            interval.unwrap_or_default(),
            format!("{}{}", tally.n_valid, n_expected.unwrap_or_default()),
            tally.n_failed.to_string(),
            tally.n_duplicates.to_string(),
        ]
    };
    let head = head.map(str::to_owned).to_vec();
    markdown(std::iter::once(head).chain(tallies.iter().map(line)).collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::question_id::QuestionId;
    use super::super::questions::parse_questions;
    use super::*;

    fn row(id: u64, [model_1, model_2]: [&str; 2], winners: [Winner; 2]) -> PairJudgment {
        let [g1_winner, g2_winner] = winners;
        PairJudgment {
            question_id: QuestionId::Number(id),
            model_1: model_1.to_owned(),
            model_2: model_2.to_owned(),
            g1_winner,
            g2_winner,
            judge: ("j".to_owned(), "p".to_owned()),
            g1_user_prompt: String::new(),
            g1_judgment: String::new(),
            g2_user_prompt: String::new(),
            g2_judgment: String::new(),
            turn: 1,
            tstamp: 0.0,
        }
    }

    fn rows() -> Vec<PairJudgment> {
        use Winner::{Error, Model1, Model2, Tie};
        vec![
            row(1, ["a", "b"], [Model1, Model1]),
            row(1, ["a", "b"], [Model2, Model1]),
            row(2, ["a", "b"], [Tie, Tie]),
            row(3, ["a", "b"], [Model1, Error]),
            row(1, ["c", "a"], [Model2, Model2]),
            row(1, ["d", "b"], [Error, Error]),
        ]
    }

    fn five(t: &Tally) -> [usize; 5] {
        [t.win, t.loss, t.tie, t.n_failed, t.n_duplicates]
    }

    fn counts(models: &[ModelTallies]) -> Vec<(&str, [usize; 5])> {
        models.iter().map(|m| (&*m.model, five(&m.turns.all))).collect()
    }

    fn all() -> PairSelection<'static> {
        PairSelection::default()
    }

    #[test]
    fn wins_losses_and_ties_are_counted_for_both_models() {
        let all = PairResult::of(&rows(), all());
        let expected = [
            ("a", [2, 0, 2, 1, 1]),
            ("b", [0, 1, 2, 2, 1]),
            ("c", [0, 1, 0, 0, 0]),
            ("d", [0, 0, 0, 1, 0]),
        ];
        assert_eq!(counts(&all.models), expected);
        let a = &all.models[0].turns.all;
        let rates = [a.win_rate(), a.loss_rate(), a.win_rate_adjusted()];
        assert!(
            rates.iter().zip([0.5, 0.0, 0.75]).all(|(a, b)| (a - b).abs() < 1e-12),
            "{rates:?}"
        );
        let text = all.to_markdown();
        let text = text.split("As FastChat").nth(1).unwrap();
        assert!(
            text.contains("| a     | 2   | 0    | 2   | 0.500    | 0.000     | 0.750 "),
            "{text}"
        );
        assert!(text.contains("| d     | 0   | 0    | 0   | none "), "{text}");
        assert_eq!((a.n_expected, all.models[3].turns.all.win_interval), (None, None));
        // Wilson interval of 2 of 4: centre 1/2, half width z/(2·sqrt(4 + z²)).
        let (low, high) = a.win_interval.unwrap();
        assert!((low - 0.1500).abs() < 1e-4 && (high - 0.8500).abs() < 1e-4, "{low} {high}");
    }

    #[test]
    fn in_ours_a_later_row_replaces_an_earlier_one_in_either_order_and_judges_stay_apart() {
        use Winner::{Model1, Model2};
        let question = |id: u64, category: &str| {
            format!(r#"{{"question_id":{id},"category":"{category}","turns":["a","b"]}}"#)
        };
        let text = [question(1, "math"), question(2, "stem")].join("\n");
        let questions = parse_questions(&text, Path::new("file")).unwrap();
        let second = PairJudgment { turn: 2, ..row(1, ["a", "b"], [Model1, Model1]) };
        let judge = ("k".to_owned(), "p".to_owned());
        let rows = [
            row(1, ["a", "b"], [Model2, Model2]),
            row(1, ["b", "a"], [Model2, Model2]),
            second,
            row(2, ["a", "c"], [Model2, Model1]),
            PairJudgment { judge, ..row(1, ["a", "b"], [Model2, Model2]) },
        ];
        let selection = PairSelection { questions: Some(&questions), ..all() };
        let result = PairResult::of(&rows, selection);
        let judges: Vec<(&str, usize)> =
            result.judges.iter().map(|j| (&*j.judge, j.n_replaced)).collect();
        assert_eq!(judges, [("j", 1), ("k", 0)]);
        let a = result.judges[0].models.iter().find(|m| m.model == "a").unwrap();
        let turns = [&a.turns.first_turn, &a.turns.second_turn, &a.turns.all];
        assert_eq!(turns.map(five), [[1, 0, 1, 0, 0], [1, 0, 0, 0, 0], [2, 0, 1, 0, 0]]);
        // Two opposing models, two questions of two turns.
        assert_eq!(turns.map(|t| t.n_expected), [Some(4), Some(4), Some(8)]);
        let math = &a.categories["math"];
        assert_eq!([&math.first_turn, &math.all].map(five), [[1, 0, 0, 0, 0], [2, 0, 0, 0, 0]]);
        assert_eq!(math.all.n_expected, Some(4));
        assert_eq!(five(&a.categories["stem"].second_turn), [0; 5]);
        // In FastChat's numbers all rows count, and duplicates are reported.
        let a = result.models.iter().find(|m| m.model == "a").unwrap();
        assert_eq!(five(&a.turns.all), [2, 2, 1, 0, 2]);
        let text = result.to_markdown();
        assert!(text.starts_with("Judge j, 1 rows replaced by later ones:\n\n| model "), "{text}");
        let line = text.lines().find(|line| line.starts_with("| a, math ")).unwrap();
        assert!(line.contains("| 2/4 | 0 "), "{line}");
    }

    #[test]
    fn a_baseline_and_a_list_leave_the_others_out() {
        let against_a = PairResult::of(&rows(), PairSelection { baseline: Some("a"), ..all() });
        assert_eq!(counts(&against_a.models), [("b", [0, 1, 2, 1, 1]), ("c", [0, 1, 0, 0, 0])]);
        let list = ["c".to_owned()];
        let of_c = PairResult::of(&rows(), PairSelection { models: Some(&list), ..all() });
        assert_eq!(counts(&of_c.models), [("a", [1, 0, 0, 0, 0]), ("c", [0, 1, 0, 0, 0])]);
    }
}
