//! Two models on the same prompts: what changed, how surely, and how much.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::bootstrap::{p_value, percentiles, resamples};
use crate::measure::{Better, Estimate, Measure, Outcome, Statistic};
use crate::paired::Change;

/// What the interval of a difference says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The whole interval is on the better side of 0.
    Better,
    /// The whole interval is on the worse side of 0.
    Worse,
    /// The interval holds 0: these prompts show no difference, which is not to say that there is none.
    NotShown,
}

impl Verdict {
    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::NotShown => "no difference shown",
        }
    }
}

/// A measure before and after, on the prompts that both runs have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The measure's name.
    pub name: String,
    /// Who judged.
    pub by: String,
    /// What is made of the outcomes.
    pub statistic: Statistic,
    /// Prompts that both runs have.
    pub n_pairs: usize,
    /// Prompts of one run only, before and after: they are left out.
    pub n_unpaired: [usize; 2],
    /// Before.
    pub before: Estimate,
    /// After.
    pub after: Estimate,
    /// After less before: Newcombe's interval for shares, the paired bootstrap's else.
    pub difference: Estimate,
    /// Prompts that changed, of a share.
    pub change: Option<Change>,
    /// Two-sided p-value: McNemar's exact test for shares, the paired bootstrap's else.
    pub p_value: f64,
    /// Cohen's h of shares; the mean difference in its standard deviations; nats per token of perplexities.
    pub effect_size: f64,
    /// What the interval says.
    pub verdict: Verdict,
}

impl Comparison {
    /// Compares a measure of two runs; prompts are matched by their ids.
    ///
    /// # Panics
    ///
    /// Panics if the two are not the same measure.
    #[must_use]
    pub fn of(before: &Measure, after: &Measure) -> Self {
        let kind = |m: &Measure| (m.name.clone(), m.by.clone(), m.statistic, m.better);
        assert_eq!(kind(before), kind(after), "the same measure before and after");
        let pairs = Pairs::of(before, after);
        let [was, is] = [&pairs.before, &pairs.after]
            .map(|outcomes| Measure { outcomes: outcomes.clone(), ..before.clone() });
        let (difference, change, p_value) = match before.statistic {
            Statistic::Share => shares(&pairs),
            statistic => means(&pairs, statistic),
        };
        let worse_side = |better, low: f64, high: f64| match better {
            Better::Lower => (high < 0.0, low > 0.0),
            Better::Higher => (low > 0.0, high < 0.0),
        };
        let verdict = match worse_side(before.better, difference.low, difference.high) {
            (true, _) => Verdict::Better,
            (_, true) => Verdict::Worse,
            _ => Verdict::NotShown,
        };
        Self {
            name: before.name.clone(),
            by: before.by.clone(),
            statistic: before.statistic,
            n_pairs: pairs.len(),
            n_unpaired: [before, after].map(|m| m.outcomes.len() - pairs.len()),
            effect_size: effect_size(&pairs, before.statistic, (was.estimate(), is.estimate())),
            before: was.estimate(),
            after: is.estimate(),
            difference,
            change,
            p_value,
            verdict,
        }
    }
}

/// TrojAI's fidelity of a defence, with a bootstrap interval:
/// $\frac{\mathrm{asr}_\text{pre} - \mathrm{asr}_\text{post}}{\mathrm{asr}_\text{pre}} \cdot
/// \frac{\mathrm{utility}_\text{post}}{\mathrm{utility}_\text{pre}}$. NaN where nothing succeeded or was
/// right before.
///
/// # Panics
///
/// Panics if the two of a pair are not the same measure.
#[must_use]
pub fn fidelity(asr: [&Measure; 2], utility: [&Measure; 2]) -> Estimate {
    let attacks = Pairs::of(asr[0], asr[1]);
    let work = Pairs::of(utility[0], utility[1]);
    let fidelity = |attacked: [f64; 2], worked: [f64; 2]| {
        (attacked[0] - attacked[1]) / attacked[0] * (worked[1] / worked[0])
    };
    let mean = |pairs: &Pairs, rows: &[usize]| pairs.statistics(Statistic::Mean, rows);
    let value = fidelity(mean(&attacks, &attacks.all()), mean(&work, &work.all()));
    // The two sets of prompts have nothing to do with each other.
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
        Statistic::Share => {
            let angle = |share: f64| 2.0 * share.sqrt().asin();
            angle(is.value) - angle(was.value)
        }
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
        assert_eq!((found.n_pairs, found.n_unpaired), (3, [0, 1]));
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
