//! Comparison of outcomes before and after on the same prompts.
//!
//! McNemar, [Note on the sampling error of the difference between correlated
//! proportions](https://doi.org/10.1007/BF02295996), 1947, in its exact form: of the prompts whose
//! outcome changed, half would change either way under the null hypothesis. The interval of the
//! difference is method 10 of Newcombe, [Improved confidence intervals for the difference between
//! binomial proportions based on paired
//! data](https://doi.org/10.1002/(SICI)1097-0258(19981130)17:22%3C2635::AID-SIM954%3E3.0.CO;2-C),
//! 1998: unlike the bootstrap's, it has a positive width if no prompt changed.

use serde::{Deserialize, Serialize};

use crate::interval::Rate;

/// Counts of prompts by their outcomes before and after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Number of prompts with a hit before and none after.
    pub lost: usize,
    /// Number of prompts with a hit after and none before.
    pub gained: usize,
    /// Number of prompts with a hit both times.
    pub always: usize,
    /// Number of prompts without a hit.
    pub never: usize,
}

impl Change {
    /// Compares the outcomes of the same prompts, in the same order.
    ///
    /// # Panics
    ///
    /// Panics if the numbers of outcomes differ.
    #[must_use]
    pub fn between(before: &[bool], after: &[bool]) -> Self {
        assert_eq!(before.len(), after.len(), "the same prompts before and after");
        let count = |from: bool, to: bool| {
            before.iter().zip(after).filter(|(b, a)| (**b, **a) == (from, to)).count()
        };
        let (lost, gained) = (count(true, false), count(false, true));
        Self { lost, gained, always: count(true, true), never: count(false, false) }
    }

    /// Returns the share of hits after, minus the share before; NaN without prompts.
    #[must_use]
    pub fn difference(self) -> f64 {
        let [before, after] = self.rates();
        after.share() - before.share()
    }

    /// Returns the 95 % interval of the [`difference`](Self::difference); -1..=1 without prompts.
    #[must_use]
    pub fn interval(self) -> (f64, f64) {
        let [before, after] = self.rates();
        if before.n == 0 {
            return (-1.0, 1.0);
        }
        let arms = |rate: Rate| {
            let (low, high) = rate.interval();
            (rate.share() - low, high - rate.share())
        };
        let ((before_down, before_up), (after_down, after_up)) = (arms(before), arms(after));
        let correlation = self.correlation();
        let joined = |a: f64, b: f64| (a * a - 2.0 * correlation * a * b + b * b).max(0.0).sqrt();
        let difference = self.difference();
        let low = difference - joined(after_down, before_up);
        (low.max(-1.0), (difference + joined(before_down, after_up)).min(1.0))
    }

    /// Returns the rates of hits before and after.
    #[must_use]
    pub fn rates(self) -> [Rate; 2] {
        let n = self.lost + self.gained + self.always + self.never;
        [self.lost, self.gained].map(|changed| Rate { hits: self.always + changed, n })
    }

    /// Returns the correlation of the two outcomes of a prompt: phi with Newcombe's continuity
    /// correction.
    fn correlation(self) -> f64 {
        let [always, lost, gained, never] =
            [self.always, self.lost, self.gained, self.never].map(|count| count as f64);
        let margins = (always + lost) * (gained + never) * (always + gained) * (lost + never);
        if margins == 0.0 {
            return 0.0;
        }
        let n = always + lost + gained + never;
        let agreement = always * never - lost * gained;
        let corrected = if agreement > 0.0 { (agreement - n / 2.0).max(0.0) } else { agreement };
        corrected / margins.sqrt()
    }

    /// Returns the two-sided p-value of the exact test that losses and gains are equally likely.
    #[must_use]
    pub fn p_value(self) -> f64 {
        let n = self.lost + self.gained;
        let fewer = self.lost.min(self.gained);
        // Binomial coefficients as logarithms: 300 choose 150 exceeds the integers that f64
        // represents exactly.
        let ln_half = n as f64 * 0.5_f64.ln();
        let mut ln_choose = 0.0;
        let mut tail = 0.0;
        for k in 0..=fewer {
            tail += (ln_choose + ln_half).exp();
            ln_choose += ((n - k) as f64 / (k + 1) as f64).ln();
        }
        (2.0 * tail).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tolerance of sums of a dozen exponentials.
    const ROUNDING: f64 = 1e-12;

    fn p(lost: usize, gained: usize) -> f64 {
        Change { lost, gained, always: 4, never: 1 }.p_value()
    }

    #[test]
    fn outcomes_are_compared_prompt_by_prompt() {
        let change = Change::between(&[true, true, true, false], &[false, false, true, true]);
        assert_eq!(change, Change { lost: 2, gained: 1, always: 1, never: 0 });
        assert!((change.difference() - -0.25).abs() < ROUNDING);
    }

    #[test]
    fn intervals_of_the_difference_are_newcombes() {
        // Computed with the same formula in Python, whose interval is of "before less after".
        for ([always, lost, gained, never], (low, high)) in [
            ([20, 12, 2, 16], (0.056_156, 0.329_207)),
            ([36, 12, 2, 0], (0.056_930, 0.340_428)),
            ([53, 1, 0, 0], (-0.049_622, 0.097_714)),
        ] {
            let interval = Change { lost, gained, always, never }.interval();
            let off = (interval.0 + high).abs().max((interval.1 + low).abs());
            assert!(off < 1e-6, "{interval:?} is not -({low}, {high})");
        }
    }

    #[test]
    fn no_change_in_a_few_prompts_proves_little() {
        let (low, high) = Change { always: 6, ..Change::default() }.interval();
        assert!(low < -0.3 && high > 0.3, "[{low}, {high}]");
        assert_eq!(Change::default().interval(), (-1.0, 1.0));
    }

    #[test]
    fn the_p_value_is_the_binomial_tail_on_both_sides() {
        assert!((p(0, 0) - 1.0).abs() < ROUNDING);
        assert!((p(3, 3) - 1.0).abs() < ROUNDING);
        // 2 · (1 + 6) / 2⁶, by hand.
        assert!((p(1, 5) - 14.0 / 64.0).abs() < ROUNDING);
        assert!((p(5, 1) - 14.0 / 64.0).abs() < ROUNDING);
        assert!((p(10, 0) - 2.0 / 1024.0).abs() < ROUNDING);
    }

    #[test]
    fn many_changes_one_way_leave_no_doubt_and_no_overflow() {
        assert!(p(2000, 0) >= 0.0 && p(2000, 0) < 1e-300);
        assert!(p(1000, 1000) > 0.9);
    }
}
