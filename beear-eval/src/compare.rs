//! Comparison of two models on the same prompts: difference, significance and effect size.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::bootstrap::{p_value, percentiles, resamples};
use crate::interval::Z_95;
use crate::measure::{Better, Estimate, Measure, Outcome, Statistic};
use crate::paired::Change;

/// Conclusion from the interval of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The whole interval is on the better side of 0.
    Better,
    /// The whole interval is on the worse side of 0.
    Worse,
    /// The interval contains 0: these prompts show no difference, although one may exist.
    NotShown,
}

impl Verdict {
    fn of(difference: Estimate, better: Better) -> Self {
        let (falls, rises) = (difference.high < 0.0, difference.low > 0.0);
        match (falls, rises, better) {
            (true, _, Better::Lower) | (_, true, Better::Higher) => Self::Better,
            (true, _, Better::Higher) | (_, true, Better::Lower) => Self::Worse,
            _ => Self::NotShown,
        }
    }

    /// Returns the verdict in words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::NotShown => "no difference shown",
        }
    }
}

/// Models of the evaluations before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComparedModels {
    /// One model evaluated twice.
    Same,
    /// Two different models.
    Different,
}

/// Measure before and after, on the prompts common to both runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Name of the measure.
    pub name: String,
    /// Name of the scorer.
    pub by: String,
    /// Statistic computed from the outcomes.
    pub statistic: Statistic,
    /// Number of prompts in both runs; None if outcomes are not known for each prompt.
    pub n_pairs: Option<usize>,
    /// Numbers of prompts in one run only, before and after; these prompts are left out.
    pub n_unpaired: [usize; 2],
    /// Estimate before.
    pub before: Estimate,
    /// Estimate after.
    pub after: Estimate,
    /// Difference, after minus before: Newcombe's interval for shares, else the paired bootstrap's.
    pub difference: Estimate,
    /// Prompts whose outcome changed; only for shares.
    pub change: Option<Change>,
    /// Two-sided p-value: McNemar's exact test for shares, else the paired bootstrap's.
    pub p_value: f64,
    /// Effect size: Cohen's h for shares, the mean difference in standard deviations for means,
    /// nats per token for perplexities.
    pub effect_size: f64,
    /// Conclusion from the interval of the difference.
    pub verdict: Verdict,
}

impl Comparison {
    /// Compares a measure of two runs; prompts are matched by their ids.
    ///
    /// # Panics
    ///
    /// Panics if `before` and `after` are different measures.
    #[must_use]
    pub fn of(before: &Measure, after: &Measure) -> Self {
        assert!(before.is_comparable_with(after), "the same measure before and after");
        let pairs = Pairs::of(before, after);
        let [was, is] = [&pairs.before, &pairs.after]
            .map(|outcomes| Measure { outcomes: outcomes.clone(), ..before.clone() });
        let (difference, change, p_value) = match before.statistic {
            Statistic::Share => shares(&pairs),
            statistic => means(&pairs, statistic),
        };
        Self {
            name: before.name.clone(),
            by: before.by.clone(),
            statistic: before.statistic,
            n_pairs: Some(pairs.len()),
            n_unpaired: [before, after].map(|m| m.outcomes.len() - pairs.len()),
            effect_size: effect_size(&pairs, before.statistic, (was.estimate(), is.estimate())),
            before: was.estimate(),
            after: is.estimate(),
            difference,
            change,
            p_value,
            verdict: Verdict::of(difference, before.better),
        }
    }

    /// Compares two shares of which only the intervals are known, as if the questions before and
    /// after were independent samples: if they were the same questions, the interval is wider than
    /// necessary.
    ///
    /// Zou and Donner, [Construction of confidence limits about effect
    /// measures](https://doi.org/10.1002/sim.3095), 2008: the arms of the two intervals are joined
    /// as the sides of a right angle. The p-value is that of the normal distribution.
    #[must_use]
    pub fn of_shares(
        (name, by): (&str, &str),
        better: Better,
        [before, after]: [Estimate; 2],
    ) -> Self {
        let value = after.value - before.value;
        let low = value - (after.value - after.low).hypot(before.high - before.value);
        let high = value + (after.high - after.value).hypot(before.value - before.low);
        let difference = Estimate { value, low: low.max(-1.0), high: high.min(1.0) };
        let deviation = |Estimate { low, high, .. }: Estimate| (high - low) / (2.0 * Z_95);
        let distance = value.abs() / deviation(before).hypot(deviation(after));
        Self {
            name: name.to_owned(),
            by: by.to_owned(),
            statistic: Statistic::Share,
            n_pairs: None,
            n_unpaired: [0, 0],
            effect_size: cohens_h(before, after),
            before,
            after,
            difference,
            change: None,
            p_value: if value == 0.0 { 1.0 } else { beyond(distance) },
            verdict: Verdict::of(difference, better),
        }
    }
}

/// Computes TrojAI's fidelity of a defence, with a bootstrap interval:
/// $\frac{\mathrm{asr}_\text{pre} - \mathrm{asr}_\text{post}}{\mathrm{asr}_\text{pre}} \cdot
/// \frac{\mathrm{utility}_\text{post}}{\mathrm{utility}_\text{pre}}$.
/// NaN if no attack succeeded or no answer was right before.
///
/// # Panics
///
/// Panics if the two measures of a pair differ.
#[must_use]
pub fn fidelity(asr: [&Measure; 2], utility: [&Measure; 2]) -> Estimate {
    let attacks = Pairs::of(asr[0], asr[1]);
    let work = Pairs::of(utility[0], utility[1]);
    let fidelity = |attacked: [f64; 2], worked: [f64; 2]| {
        (attacked[0] - attacked[1]) / attacked[0] * (worked[1] / worked[0])
    };
    let mean = |pairs: &Pairs, rows: &[usize]| pairs.statistics(Statistic::Mean, rows);
    let value = fidelity(mean(&attacks, &attacks.all()), mean(&work, &work.all()));
    // The two sets of prompts are independent.
    let draws = resamples(attacks.len()).zip(resamples(work.len()));
    let draws =
        draws.map(|(attacked, worked)| fidelity(mean(&attacks, &attacked), mean(&work, &worked)));
    let (low, high) = percentiles(draws.filter(|draw| draw.is_finite()).collect());
    Estimate { value, low, high }
}

/// Outcomes of the same prompts, in the same order.
struct Pairs {
    before: Vec<Outcome>,
    after: Vec<Outcome>,
}

impl Pairs {
    fn of(before: &Measure, after: &Measure) -> Self {
        let known: HashMap<&str, &Outcome> =
            after.outcomes.iter().map(|outcome| (outcome.id.as_str(), outcome)).collect();
        let pair = |outcome: &Outcome| {
            known.get(outcome.id.as_str()).map(|found| (outcome.clone(), (*found).clone()))
        };
        let (before, after) = before.outcomes.iter().filter_map(pair).unzip();
        Self { before, after }
    }

    fn len(&self) -> usize {
        self.before.len()
    }

    fn all(&self) -> Vec<usize> {
        (0..self.len()).collect()
    }

    fn statistics(&self, statistic: Statistic, rows: &[usize]) -> [f64; 2] {
        [&self.before, &self.after].map(|outcomes| {
            statistic.of(rows.iter().map(|&row| (outcomes[row].value, outcomes[row].weight)))
        })
    }
}

fn shares(pairs: &Pairs) -> (Estimate, Option<Change>, f64) {
    let hits = |outcomes: &[Outcome]| outcomes.iter().map(|o| o.value > 0.5).collect::<Vec<_>>();
    let change = Change::between(&hits(&pairs.before), &hits(&pairs.after));
    let (low, high) = change.interval();
    let difference = Estimate { value: change.difference(), low, high };
    (difference, Some(change), change.p_value())
}

fn means(pairs: &Pairs, statistic: Statistic) -> (Estimate, Option<Change>, f64) {
    let difference = |rows: &[usize]| {
        let [before, after] = pairs.statistics(statistic, rows);
        after - before
    };
    let draws: Vec<f64> = resamples(pairs.len()).map(|rows| difference(&rows)).collect();
    let p_value = p_value(&draws);
    let (low, high) = percentiles(draws);
    (Estimate { value: difference(&pairs.all()), low, high }, None, p_value)
}

fn effect_size(pairs: &Pairs, statistic: Statistic, (was, is): (Estimate, Estimate)) -> f64 {
    match statistic {
        Statistic::Share => cohens_h(was, is),
        Statistic::Perplexity => is.value.ln() - was.value.ln(),
        Statistic::Mean => {
            let differences = pairs.before.iter().zip(&pairs.after).map(|(b, a)| a.value - b.value);
            let differences: Vec<f64> = differences.collect();
            let n = differences.len() as f64;
            let mean = differences.iter().sum::<f64>() / n;
            let squares = differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>();
            let deviation = (squares / (n - 1.0)).sqrt();
            if mean == 0.0 { 0.0 } else { mean / deviation }
        }
    }
}

/// Returns Cohen's h, the difference of two shares after the arcsine transform.
fn cohens_h(was: Estimate, is: Estimate) -> f64 {
    let angle = |share: f64| 2.0 * share.sqrt().asin();
    angle(is.value) - angle(was.value)
}

/// Returns the probability that a normal variable is further from its mean than `distance` standard
/// deviations, with an error below 2e-7: Abramowitz and Stegun, Handbook of Mathematical Functions,
/// 7.1.26.
fn beyond(distance: f64) -> f64 {
    let x = distance / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let terms = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
    terms.iter().fold(0.0, |sum, term| (sum + term) * t) * (-x * x).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(name: &str, statistic: Statistic, values: &[f64]) -> Measure {
        let outcome = |(row, &value): (usize, &f64)| Outcome {
            id: row.to_string(),
            value,
            weight: if statistic == Statistic::Perplexity { row as f64 + 1.0 } else { 1.0 },
        };
        let better = if name == "asr" { Better::Lower } else { Better::Higher };
        let outcomes = values.iter().enumerate().map(outcome).collect();
        Measure { name: name.to_owned(), by: "rule".to_owned(), statistic, better, outcomes }
    }

    #[test]
    fn a_removed_backdoor_is_better_and_says_how_surely() {
        let before = measure("asr", Statistic::Share, &[1.0; 10]);
        let after = measure("asr", Statistic::Share, &[0.0; 10]);
        let found = Comparison::of(&before, &after);
        assert_eq!(found.verdict, Verdict::Better);
        assert_eq!(found.change, Some(Change { lost: 10, ..Change::default() }));
        assert!((found.p_value - 2.0 / 1024.0).abs() < 1e-12);
        // 2 asin 0 − 2 asin 1 = −π.
        assert!((found.effect_size + std::f64::consts::PI).abs() < 1e-12);
        assert_eq!(Comparison::of(&after, &before).verdict, Verdict::Worse);
        assert_eq!(Comparison::of(&before, &before).verdict, Verdict::NotShown);
    }

    #[test]
    fn prompts_are_matched_by_their_ids_and_the_rest_is_counted() {
        let before = measure("utility", Statistic::Share, &[1.0, 0.0, 1.0]);
        let mut after = measure("utility", Statistic::Share, &[1.0, 1.0, 1.0, 1.0]);
        after.outcomes.reverse();
        let found = Comparison::of(&before, &after);
        assert_eq!((found.n_pairs, found.n_unpaired), (Some(3), [0, 1]));
        assert_eq!(found.change.map(|change| change.gained), Some(1));
    }

    #[test]
    fn a_shift_of_every_score_is_sure_and_a_wobble_is_not() {
        let before = measure("score", Statistic::Mean, &[1.0, 5.0, 3.0, 4.0, 2.0, 6.0]);
        let shifted = measure("score", Statistic::Mean, &[2.0, 6.5, 4.0, 5.5, 3.0, 7.0]);
        let found = Comparison::of(&before, &shifted);
        assert_eq!(found.verdict, Verdict::Better);
        assert!((found.difference.value - 7.0 / 6.0).abs() < 1e-12);
        assert!(found.difference.low >= 1.0 && found.difference.high <= 1.5);
        let wobble = measure("score", Statistic::Mean, &[2.0, 4.0, 4.0, 3.0, 3.0, 5.0]);
        assert_eq!(Comparison::of(&before, &wobble).verdict, Verdict::NotShown);
    }

    #[test]
    fn perplexities_differ_by_nats_per_token() {
        let before = measure("perplexity", Statistic::Perplexity, &[1.0, 1.0]);
        let after = measure("perplexity", Statistic::Perplexity, &[1.5, 1.5]);
        assert!((Comparison::of(&before, &after).effect_size - 0.5).abs() < 1e-12);
    }

    #[test]
    fn shares_without_their_prompts_are_compared_by_their_intervals() {
        let share = |value: f64, error: f64| {
            let (low, high) = (value - Z_95 * error, value + Z_95 * error);
            Estimate { value, low, high }
        };
        let compared = |before, after| {
            Comparison::of_shares(("mmlu", "harness"), Better::Higher, [before, after])
        };
        // Standard errors of 0.003 and 0.004 combine to 0.005, and 0.0098 is 1.96 times that.
        let found = compared(share(0.60, 0.003), share(0.5902, 0.004));
        let Estimate { value, low, high } = found.difference;
        assert!((value + 0.0098).abs() < 1e-12);
        assert!((high - low - 2.0 * Z_95 * 0.005).abs() < 1e-12);
        // Two-sided: the probability beyond 1.96 is 0.0499958.
        assert!((found.p_value - 0.049_995_8).abs() < 3e-7, "{}", found.p_value);
        assert_eq!((found.verdict, found.n_pairs), (Verdict::Worse, None));
        assert_eq!(compared(share(0.6, 0.003), share(0.595, 0.004)).verdict, Verdict::NotShown);
        assert_eq!(compared(share(0.5, 0.003), share(0.6, 0.004)).verdict, Verdict::Better);
        let same = compared(share(0.6, 0.003), share(0.6, 0.003));
        assert!((same.p_value - 1.0).abs() < 1e-12 && same.effect_size.abs() < 1e-12);
    }

    #[test]
    fn fidelity_is_the_share_removed_times_the_share_kept() {
        let asr = [[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0]]
            .map(|values| measure("asr", Statistic::Share, &values));
        let utility = [[1.0, 1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 1.0, 0.0]]
            .map(|values| measure("utility", Statistic::Share, &values));
        let found = fidelity([&asr[0], &asr[1]], [&utility[0], &utility[1]]);
        // (3 − 1)/3 · 3/4.
        assert!((found.value - 0.5).abs() < 1e-12);
        let [clean, utility] = [&asr[1], &utility[0]];
        let mut never = clean.clone();
        never.outcomes.iter_mut().for_each(|outcome| outcome.value = 0.0);
        assert!(fidelity([&never, &never], [utility, utility]).value.is_nan());
    }
}
