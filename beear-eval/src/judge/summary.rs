//! Summary of a run, with counts that include every item.

use serde::{Deserialize, Serialize};

use super::assessment::Judgement;
use super::mean::Mean;
use super::outcome::Outcome;
use super::verdict::Verdict;
use crate::interval::Rate;

/// Counts of the outcomes of a run, with the result of the valid items.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Number of items, the sum of the other three counts.
    pub n_expected: usize,
    /// Number of items with a verdict. The result is about these alone.
    pub n_valid: usize,
    /// Number of items with an unreadable reply.
    pub n_unreadable: usize,
    /// Number of items without reply.
    pub n_failed: usize,
    /// Result of the valid items.
    pub found: Found,
}

/// Result of the valid items.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// Degree to which the answers fulfil their requests.
    Scores {
        /// Numbers of answers with score 1, 2, 3, 4 and 5.
        histogram: [usize; 5],
        /// Mean score; None if no item is valid.
        mean: Option<Mean>,
    },
    /// Rate of answers that show the behaviour.
    Shown(Rate),
}

impl Summary {
    /// Summarises the `outcomes` of a run that asked for `judgement`.
    ///
    /// # Panics
    ///
    /// Panics if a verdict belongs to a different judgement.
    #[must_use]
    pub fn of(judgement: &Judgement, outcomes: &[Outcome]) -> Self {
        let mut verdicts = Vec::new();
        let (mut n_unreadable, mut n_failed) = (0, 0);
        for outcome in outcomes {
            match outcome {
                Outcome::Judged { verdict, .. } => verdicts.push(*verdict),
                Outcome::Unreadable { .. } => n_unreadable += 1,
                Outcome::Failed { .. } => n_failed += 1,
            }
        }
        let (n_expected, n_valid) = (outcomes.len(), verdicts.len());
        let found = match judgement {
            Judgement::Fulfilment => scores(&verdicts),
            Judgement::Behaviour(_) => Found::Shown(Rate::of(verdicts.iter().copied().map(shown))),
        };
        Self { n_expected, n_valid, n_unreadable, n_failed, found }
    }
}

fn scores(verdicts: &[Verdict]) -> Found {
    let score = |verdict: &Verdict| match verdict {
        Verdict::Score(score @ 1..=5) => usize::from(*score),
        other => panic!("{other:?} is not a score of 1 to 5"),
    };
    let scores: Vec<usize> = verdicts.iter().map(score).collect();
    let count = |index: usize| scores.iter().filter(|score| **score == index + 1).count();
    let values: Vec<f64> = scores.iter().map(|score| *score as f64).collect();
    Found::Scores { histogram: std::array::from_fn(count), mean: Mean::of(&values) }
}

fn shown(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Shown(shown) => shown,
        Verdict::Score(score) => panic!("score {score} is not a yes or no"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::chat::CallError;
    use super::*;

    fn judged(verdict: Verdict) -> Outcome {
        Outcome::Judged { verdict, text: String::new() }
    }

    fn others() -> [Outcome; 3] {
        let failed =
            || Outcome::Failed { error: CallError::Truncated { n_bytes: 0 }, n_attempts: 2 };
        [Outcome::Unreadable { text: "Score: 7".to_owned() }, failed(), failed()]
    }

    #[test]
    fn only_valid_scores_are_averaged_and_all_items_counted() {
        let valid = [5, 1, 5].map(|score| judged(Verdict::Score(score)));
        let outcomes: Vec<Outcome> = valid.into_iter().chain(others()).collect();
        let summary = Summary::of(&Judgement::Fulfilment, &outcomes);
        let counts = [summary.n_expected, summary.n_valid, summary.n_unreadable, summary.n_failed];
        assert_eq!(counts, [6, 3, 1, 2]);
        let Found::Scores { histogram, mean: Some(mean) } = summary.found else { panic!("scores") };
        assert_eq!((histogram, mean.n), ([1, 0, 0, 0, 2], 3));
        assert!((mean.value - 11.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn a_run_without_a_valid_item_has_no_mean_and_a_rate_of_nothing() {
        let scores = Summary::of(&Judgement::Fulfilment, &others()).found;
        assert_eq!(scores, Found::Scores { histogram: [0; 5], mean: None });
        let shown = Summary::of(&Judgement::Behaviour("b".to_owned()), &others()).found;
        assert_eq!(shown, Found::Shown(Rate { hits: 0, n: 0 }));
    }

    #[test]
    fn a_rate_is_of_the_valid_items() {
        let valid = [true, false, true].map(|shown| judged(Verdict::Shown(shown)));
        let outcomes: Vec<Outcome> = valid.into_iter().chain(others()).collect();
        let summary = Summary::of(&Judgement::Behaviour("b".to_owned()), &outcomes);
        assert_eq!(summary.found, Found::Shown(Rate { hits: 2, n: 3 }));
    }
}
