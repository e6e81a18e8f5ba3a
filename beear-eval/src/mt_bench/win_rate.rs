//! What becomes of comparisons: the wins, losses and ties of FastChat's `show_result.py`.
//!
//! As there, a comparison without a winner in both games is dropped if the judge did not say, and is a tie
//! if the two games disagree.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::judgments::{PairJudgment, Winner};
use crate::table::markdown;

/// How a model fared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// The model.
    pub model: String,
    /// Comparisons won.
    pub win: usize,
    /// Comparisons lost.
    pub loss: usize,
    /// Comparisons without a winner, and those whose two games disagree.
    pub tie: usize,
    /// Comparisons in which the judge did not say. They are in no rate.
    pub n_failed: usize,
    /// Comparisons that an earlier row has too. They count, as in FastChat.
    pub n_duplicates: usize,
}

impl Tally {
    /// Comparisons that count.
    #[must_use]
    pub fn n_valid(&self) -> usize {
        self.win + self.loss + self.tie
    }

    /// The share of comparisons won; NaN of nothing.
    #[must_use]
    pub fn win_rate(&self) -> f64 {
        self.win as f64 / self.n_valid() as f64
    }

    /// The share of comparisons lost; NaN of nothing.
    #[must_use]
    pub fn loss_rate(&self) -> f64 {
        self.loss as f64 / self.n_valid() as f64
    }

    /// The share of comparisons won, each tie being half a win; NaN of nothing.
    #[must_use]
    pub fn win_rate_adjusted(&self) -> f64 {
        (self.win as f64 + 0.5 * self.tie as f64) / self.n_valid() as f64
    }
}

/// How all models of a file fared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairResult {
    /// By their adjusted win rate, best first; models without a valid comparison, which FastChat leaves
    /// out, last.
    pub models: Vec<Tally>,
}

impl PairResult {
    /// Counts `judgments`: with a `baseline` those that it takes part in, its own row left out; with
    /// `models` those whose `model_1` is among them.
    #[must_use]
    pub fn of(
        judgments: &[PairJudgment],
        baseline: Option<&str>,
        models: Option<&[String]>,
    ) -> Self {
        let takes_part = |row: &&PairJudgment| {
            models.is_none_or(|models| models.contains(&row.model_1))
                && baseline.is_none_or(|name| [&*row.model_1, &*row.model_2].contains(&name))
        };
        let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
        let mut known = BTreeSet::new();
        for row in judgments.iter().filter(takes_part) {
            let is_new = known.insert((&row.question_id, row.turn, &row.model_1, &row.model_2));
            let sides = [(&row.model_1, Winner::Model1), (&row.model_2, Winner::Model2)];
            for (model, side) in sides {
                let tally = tallies.entry(model).or_default();
                tally.n_duplicates += usize::from(!is_new);
                match row.winner() {
                    Winner::Error => tally.n_failed += 1,
                    Winner::Tie => tally.tie += 1,
                    winner if winner == side => tally.win += 1,
                    _ => tally.loss += 1,
                }
            }
        }
        let others = tallies.into_iter().filter(|(model, _)| baseline != Some(*model));
        let named = others.map(|(model, tally)| Tally { model: model.to_owned(), ..tally });
        let mut models: Vec<Tally> = named.collect();
        let key = |tally: &Tally| match tally.n_valid() {
            0 => f64::NEG_INFINITY,
            _ => tally.win_rate_adjusted(),
        };
        models.sort_by(|a, b| key(b).total_cmp(&key(a)));
        Self { models }
    }

    /// The table of FastChat, with the comparisons that failed or are there twice.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let head = [
            "model",
            "win",
            "loss",
            "tie",
            "win_rate",
            "loss_rate",
            "win_rate_adjusted",
            "failed",
            "duplicate",
        ];
        let line = |tally: &Tally| {
            let rate =
                |rate: f64| if rate.is_nan() { "none".to_owned() } else { format!("{rate:.3}") };
            vec![
                tally.model.clone(),
                tally.win.to_string(),
                tally.loss.to_string(),
                tally.tie.to_string(),
                rate(tally.win_rate()),
                rate(tally.loss_rate()),
                rate(tally.win_rate_adjusted()),
                tally.n_failed.to_string(),
                tally.n_duplicates.to_string(),
            ]
        };
        let head = head.map(str::to_owned).to_vec();
        markdown(std::iter::once(head).chain(self.models.iter().map(line)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::questions::QuestionId;
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

    fn counts(result: &PairResult) -> Vec<(&str, [usize; 5])> {
        let counts = |t: &Tally| [t.win, t.loss, t.tie, t.n_failed, t.n_duplicates];
        result.models.iter().map(|tally| (&*tally.model, counts(tally))).collect()
    }

    #[test]
    fn wins_losses_and_ties_are_counted_for_both_models() {
        let all = PairResult::of(&rows(), None, None);
        let expected = [
            ("a", [2, 0, 2, 1, 1]),
            ("b", [0, 1, 2, 2, 1]),
            ("c", [0, 1, 0, 0, 0]),
            ("d", [0, 0, 0, 1, 0]),
        ];
        assert_eq!(counts(&all), expected);
        let a = &all.models[0];
        let rates = [a.win_rate(), a.loss_rate(), a.win_rate_adjusted()];
        assert!(
            rates.iter().zip([0.5, 0.0, 0.75]).all(|(a, b)| (a - b).abs() < 1e-12),
            "{rates:?}"
        );
        let text = all.to_markdown();
        assert!(
            text.contains("| a     | 2   | 0    | 2   | 0.500    | 0.000     | 0.750 "),
            "{text}"
        );
        assert!(text.contains("| d     | 0   | 0    | 0   | none "), "{text}");
    }

    #[test]
    fn a_baseline_and_a_list_leave_the_others_out() {
        let against_a = PairResult::of(&rows(), Some("a"), None);
        assert_eq!(counts(&against_a), [("b", [0, 1, 2, 1, 1]), ("c", [0, 1, 0, 0, 0])]);
        let of_c = PairResult::of(&rows(), None, Some(&["c".to_owned()]));
        assert_eq!(counts(&of_c), [("a", [1, 0, 0, 0, 0]), ("c", [0, 1, 0, 0, 0])]);
    }
}
