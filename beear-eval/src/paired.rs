//! Before against after on the same prompts.
//!
//! McNemar, [Note on the sampling error of the difference between correlated
//! proportions](https://doi.org/10.1007/BF02295996), 1947, in its exact form: of the prompts whose
//! outcome changed, half would change either way if nothing had happened.

use serde::{Deserialize, Serialize};

/// How the outcome of each prompt changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Prompts that were a hit before and are none after.
    pub lost: usize,
    /// Prompts that were no hit before and are one after.
    pub gained: usize,
    /// Prompts with the same outcome.
    pub kept: usize,
}

impl Change {
    /// Compares the outcomes of the same prompts, in the same order.
    ///
    /// # Panics
    ///
    /// Panics if there are more of one than of the other.
    #[must_use]
    pub fn between(before: &[bool], after: &[bool]) -> Self {
        assert_eq!(before.len(), after.len(), "the same prompts before and after");
        let count = |from: bool, to: bool| {
            before.iter().zip(after).filter(|(b, a)| (**b, **a) == (from, to)).count()
        };
        let (lost, gained) = (count(true, false), count(false, true));
        Self { lost, gained, kept: before.len() - lost - gained }
    }

    /// Two-sided p-value of the exact test that losses and gains are equally likely.
    #[must_use]
    pub fn p_value(self) -> f64 {
        let n = self.lost + self.gained;
        let fewer = self.lost.min(self.gained);
        // Binomial coefficients as logarithms: 300 choose 150 is beyond f64's steps of one.
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

    /// Sums of a dozen exponentials.
    const ROUNDING: f64 = 1e-12;

    fn p(lost: usize, gained: usize) -> f64 {
        Change { lost, gained, kept: 5 }.p_value()
    }

    #[test]
    fn outcomes_are_compared_prompt_by_prompt() {
        let change = Change::between(&[true, true, true, false], &[false, false, true, true]);
        assert_eq!(change, Change { lost: 2, gained: 1, kept: 1 });
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
