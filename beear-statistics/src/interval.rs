//! Rates with their counts and 95 % intervals.
//!
//! Wilson, [Probable Inference](https://doi.org/10.1080/01621459.1927.10502953), 1927: unlike the
//! textbook interval, Wilson's has a positive width for 0 of 120.

use std::fmt;

use serde::{Deserialize, Serialize};

/// 97.5 % point of the normal distribution.
pub const Z_95: f64 = 1.959_963_984_540_054;

/// Share with its counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Number of hits.
    pub hits: usize,
    /// Number of trials.
    pub n: usize,
}

impl Rate {
    /// Counts the true values.
    pub fn of(values: impl IntoIterator<Item = bool>) -> Self {
        values.into_iter().fold(Self::default(), |rate, hit| Self {
            hits: rate.hits + usize::from(hit),
            n: rate.n + 1,
        })
    }

    /// Adds up the counts of `rates`.
    pub fn pooled(rates: impl IntoIterator<Item = Self>) -> Self {
        rates.into_iter().fold(Self::default(), |sum, rate| Self {
            hits: sum.hits + rate.hits,
            n: sum.n + rate.n,
        })
    }

    /// Returns the share in 0..=1; NaN if `n` is 0.
    #[must_use]
    pub fn share(self) -> f64 {
        self.hits as f64 / self.n as f64
    }

    /// Returns the Wilson 95 % interval; 0..=1 if `n` is 0.
    #[must_use]
    pub fn interval(self) -> (f64, f64) {
        if self.n == 0 { (0.0, 1.0) } else { wilson(self.share(), self.n as f64) }
    }
}

/// Returns the Wilson 95 % interval of a share of `n`. It also covers the mean of `n` values in
/// 0..=1, whose variance is at most that of values that are 0 or 1.
#[must_use]
pub fn wilson(share: f64, n: f64) -> (f64, f64) {
    let centre = (share + Z_95 * Z_95 / (2.0 * n)) / (1.0 + Z_95 * Z_95 / n);
    let spread = share * (1.0 - share) / n + Z_95 * Z_95 / (4.0 * n * n);
    let half = Z_95 / (1.0 + Z_95 * Z_95 / n) * spread.sqrt();
    ((centre - half).max(0.0), (centre + half).min(1.0))
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.n == 0 {
            return f.pad("0/0");
        }
        let (low, high) = self.interval();
        let text = format!(
            "{}/{} = {:.1} % [{:.1}, {:.1}]",
            self.hits,
            self.n,
            100.0 * self.share(),
            100.0 * low,
            100.0 * high
        );
        f.pad(&text)
    }
}

/// Returns the smallest `n` whose Wilson interval of 0 hits ends below `share`.
#[must_use]
pub fn sample_size_to_exclude(share: f64) -> usize {
    let upper = |n: usize| Rate { hits: 0, n }.interval().1;
    let mut n = 1;
    while upper(n) >= share && n < 100_000_000 {
        n += (n / 1000).max(1);
    }
    while n > 1 && upper(n - 1) < share {
        n -= 1;
    }
    n
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tolerance: the intervals are quoted to a tenth of a percent.
    const QUOTED: f64 = 5e-4;

    fn check(hits: usize, n: usize, low: f64, high: f64) {
        let found = Rate { hits, n }.interval();
        assert!((found.0 - low).abs() < QUOTED && (found.1 - high).abs() < QUOTED, "{found:?}");
    }

    #[test]
    fn wilson_agrees_with_published_values() {
        check(0, 120, 0.0, 0.031);
        check(8, 17, 0.262, 0.690);
        check(120, 120, 0.969, 1.0);
    }

    #[test]
    fn to_exclude_one_percent_takes_381_prompts() {
        assert_eq!(sample_size_to_exclude(0.01), 381);
    }

    #[test]
    fn pooled_rates_add_their_counts() {
        let rates = [Rate { hits: 1, n: 10 }, Rate { hits: 3, n: 4 }];
        assert_eq!(Rate::pooled(rates), Rate { hits: 4, n: 14 });
    }

    #[test]
    fn a_rate_prints_its_counts_and_interval() {
        assert_eq!(Rate { hits: 3, n: 120 }.to_string(), "3/120 = 2.5 % [0.9, 7.1]");
        assert_eq!(Rate::default().to_string(), "0/0");
    }
}
