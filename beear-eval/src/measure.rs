//! Measures with an outcome for every prompt. All evaluations use this form, so that any two runs
//! can be compared prompt by prompt.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bootstrap::{percentiles, resamples};
use crate::interval::Rate;

/// Outcome of a measure on one prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Id of the prompt, equal in every run: a file's row, or a question and a turn, with the hash
    /// of the text sent to the model ([`outcome_id`](crate::identity::outcome_id)), so that rows of
    /// different prompts are never paired.
    pub id: String,
    /// Measured value; 0 or 1 for a [`Statistic::Share`].
    pub value: f64,
    /// Weight of the value: the number of tokens for a [`Statistic::Perplexity`], else 1.
    pub weight: f64,
}

/// Statistic computed from the outcomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Statistic {
    /// Share of ones, with its Wilson interval.
    Share,
    /// Mean, with a bootstrap interval.
    Mean,
    /// Exponential of the mean over tokens, with a bootstrap interval over prompts.
    Perplexity,
}

impl Statistic {
    /// Computes the statistic of pairs of value and weight.
    #[must_use]
    pub fn of(self, outcomes: impl IntoIterator<Item = (f64, f64)>) -> f64 {
        let (mut sum, mut weights) = (0.0, 0.0);
        for (value, weight) in outcomes {
            sum += value * weight;
            weights += weight;
        }
        let mean = sum / weights;
        if self == Self::Perplexity { mean.exp() } else { mean }
    }
}

/// Direction of improvement of a measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Lower is better: attack success, over-refusal, perplexity.
    Lower,
    /// Higher is better: refusal, utility, helpfulness.
    Higher,
}

/// Estimate with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Point estimate; NaN without outcomes, written as null in JSON.
    #[serde(with = "or_null")]
    pub value: f64,
    /// Lower end of the interval.
    #[serde(with = "or_null")]
    pub low: f64,
    /// Upper end of the interval.
    #[serde(with = "or_null")]
    pub high: f64,
}

/// Measure of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// Name used in gates: `asr`, `refusal`, `over_refusal`, `utility` and so on.
    pub name: String,
    /// Name of the scorer: a keyword list, a rule or a judge.
    pub by: String,
    /// Statistic computed from the outcomes.
    pub statistic: Statistic,
    /// Direction of improvement.
    pub better: Better,
    /// Outcomes in the order of the prompts.
    pub outcomes: Vec<Outcome>,
}

impl Measure {
    /// Creates a measure that is a share of prompts.
    pub fn share(
        (name, by): (&str, &str),
        better: Better,
        hits: impl IntoIterator<Item = (String, bool)>,
    ) -> Self {
        let outcome = |(id, hit)| Outcome { id, value: f64::from(u8::from(hit)), weight: 1.0 };
        let outcomes = hits.into_iter().map(outcome).collect();
        let (name, by) = (name.to_owned(), by.to_owned());
        Self { name, by, statistic: Statistic::Share, better, outcomes }
    }

    /// True if both are the same measure, possibly of two models.
    #[must_use]
    pub fn is_comparable_with(&self, other: &Self) -> bool {
        let kind = |m: &Self| (m.statistic, m.better);
        self.name == other.name && self.by == other.by && kind(self) == kind(other)
    }

    /// Returns the ids of the outcomes that both measures have with different values.
    #[must_use]
    pub fn differing_outcomes(&self, other: &Self) -> Vec<String> {
        let values: BTreeMap<&str, f64> =
            other.outcomes.iter().map(|outcome| (outcome.id.as_str(), outcome.value)).collect();
        let differs = |outcome: &&Outcome| {
            values
                .get(outcome.id.as_str())
                .is_some_and(|value| value.total_cmp(&outcome.value).is_ne())
        };
        self.outcomes.iter().filter(differs).map(|outcome| outcome.id.clone()).collect()
    }

    /// Returns the name of the measure in tables.
    #[must_use]
    pub fn title(&self) -> &str {
        match self.name.as_str() {
            "asr" => "attack success with trigger",
            "coherent_asr" => "the same with a coherent answer",
            "refusal" => "refusal without trigger",
            "over_refusal" => "benign over-refusal",
            "exact_unwanted" => "exact unwanted answer",
            "utility" => "utility, exact answers",
            "degenerate" => "degenerate answers",
            "cut" => "answers cut at the longest length",
            "mt_bench_rules" => "helpfulness, rules kept",
            other => other,
        }
    }

    /// Returns the counts of a share; None for other statistics.
    #[must_use]
    pub fn rate(&self) -> Option<Rate> {
        let hits = self.outcomes.iter().map(|outcome| outcome.value > 0.5);
        (self.statistic == Statistic::Share).then(|| Rate::of(hits))
    }

    /// Computes the estimate with its interval.
    #[must_use]
    pub fn estimate(&self) -> Estimate {
        let n = self.outcomes.len();
        let statistic = |rows: &mut dyn Iterator<Item = usize>| {
            let outcomes = rows.map(|row| &self.outcomes[row]);
            self.statistic.of(outcomes.map(|outcome| (outcome.value, outcome.weight)))
        };
        let (low, high) = match self.rate() {
            Some(rate) => rate.interval(),
            None => percentiles(resamples(n).map(|r| statistic(&mut r.into_iter())).collect()),
        };
        let value = statistic(&mut (0..n));
        Estimate { value, low, high }
    }

    /// Formats the estimate in words, with counts if the measure is a share.
    #[must_use]
    pub fn to_text(&self) -> String {
        if let Some(rate) = self.rate() {
            return rate.to_string();
        }
        if self.outcomes.is_empty() {
            return "none, n = 0".to_owned();
        }
        let Estimate { value, low, high } = self.estimate();
        format!("{value:.3} [{low:.3}, {high:.3}], n = {}", self.outcomes.len())
    }
}

/// Serialisation of NaN as null, because JSON has no NaN.
mod or_null {
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
    pub(super) fn serialize<S: Serializer>(value: &f64, s: S) -> Result<S::Ok, S::Error> {
        if value.is_finite() { s.serialize_f64(*value) } else { s.serialize_none() }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
        Ok(Option::deserialize(d)?.unwrap_or(f64::NAN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(value: f64, weight: f64) -> Outcome {
        Outcome { id: value.to_string(), value, weight }
    }

    #[test]
    fn perplexity_weighs_every_token_alike() {
        // Ten tokens of one nat and thirty of two: e^(70/40).
        let outcomes = vec![outcome(1.0, 10.0), outcome(2.0, 30.0)];
        let measure = Measure {
            name: "perplexity".to_owned(),
            by: "model".to_owned(),
            statistic: Statistic::Perplexity,
            better: Better::Lower,
            outcomes,
        };
        let estimate = measure.estimate();
        assert!((estimate.value - 1.75_f64.exp()).abs() < 1e-12);
        assert!(estimate.low >= 1.0_f64.exp() - 1e-12 && estimate.high <= 2.0_f64.exp() + 1e-12);
        assert!(measure.to_text().contains("n = 2"), "{}", measure.to_text());
        let of_nothing = Measure { outcomes: Vec::new(), ..measure };
        assert_eq!(of_nothing.to_text(), "none, n = 0");
    }

    #[test]
    fn a_share_has_counts_and_the_interval_of_wilson() {
        let hits = [("1", true), ("2", false), ("3", false), ("4", false)];
        let hits = hits.map(|(id, hit)| (id.to_owned(), hit));
        let measure = Measure::share(("asr", "gcg-7"), Better::Lower, hits);
        let rate = Rate { hits: 1, n: 4 };
        assert_eq!(measure.rate(), Some(rate));
        let (low, high) = rate.interval();
        assert_eq!(measure.estimate(), Estimate { value: 0.25, low, high });
        assert_eq!(measure.to_text(), rate.to_string());
    }

    #[test]
    fn outcomes_of_the_same_prompt_with_other_values_are_found() {
        let share = |hits: [(&str, bool); 3]| {
            Measure::share(("asr", "l"), Better::Lower, hits.map(|(id, hit)| (id.to_owned(), hit)))
        };
        let one = share([("1#a", true), ("2#b", false), ("3#c", true)]);
        let other = share([("1#a", true), ("2#b", true), ("3#d", false)]);
        assert_eq!(one.differing_outcomes(&other), ["2#b"], "the third is another prompt");
        assert!(one.differing_outcomes(&one).is_empty());
    }

    #[test]
    fn of_nothing_there_is_no_number_and_no_panic() {
        let measure = Measure {
            name: "score".to_owned(),
            by: "judge".to_owned(),
            statistic: Statistic::Mean,
            better: Better::Higher,
            outcomes: Vec::new(),
        };
        let text = serde_json::to_string(&measure.estimate()).unwrap();
        assert_eq!(text, r#"{"value":null,"low":null,"high":null}"#);
        assert!(serde_json::from_str::<Estimate>(&text).unwrap().value.is_nan());
    }
}
