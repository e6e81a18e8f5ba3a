//! Seeded bootstrap: the variation of a statistic when the prompts are resampled with replacement.
//!
//! Efron, [Bootstrap methods](https://doi.org/10.1214/aos/1176344552), 1979; percentile intervals.
//! Few prompts give intervals that are too narrow: shares have better ones, [`Rate`](crate::Rate)'s
//! and [`Change`](crate::Change)'s.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Number of bootstrap resamples.
const N_RESAMPLES: usize = 2000;

/// Fixed seed, so that equal data give equal intervals.
const SEED: u64 = 0;

/// Returns resamples of the rows `0..n`, each of `n` rows; no resample if `n` is 0.
///
/// Two statistics of the same `n` receive the same rows, which makes a comparison paired.
pub fn resamples(n: usize) -> impl Iterator<Item = Vec<usize>> {
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let n_resamples = if n == 0 { 0 } else { N_RESAMPLES };
    (0..n_resamples).map(move |_| (0..n).map(|_| rng.random_range(0..n)).collect())
}

/// Returns the 2.5 and 97.5 percentiles of the draws, interpolated linearly; NaN without draws.
#[must_use]
pub fn percentiles(mut draws: Vec<f64>) -> (f64, f64) {
    draws.sort_by(f64::total_cmp);
    (quantile(&draws, 0.025), quantile(&draws, 0.975))
}

/// Returns the two-sided p-value of bootstrap differences against a difference of 0: twice the
/// smaller share on either side of 0, counting one more draw, so that the p-value is never 0. NaN
/// without draws.
#[must_use]
pub fn p_value(differences: &[f64]) -> f64 {
    if differences.is_empty() {
        return f64::NAN;
    }
    let share = |count: usize| (count + 1) as f64 / (differences.len() + 1) as f64;
    let below = share(differences.iter().filter(|d| **d <= 0.0).count());
    let above = share(differences.iter().filter(|d| **d >= 0.0).count());
    (2.0 * below.min(above)).min(1.0)
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = share * last as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(last);
    sorted[below] + (place - below as f64) * (sorted[above] - sorted[below])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval_of_the_mean(n: usize) -> (f64, f64) {
        let mean = |rows: Vec<usize>| rows.iter().sum::<usize>() as f64 / rows.len() as f64;
        percentiles(resamples(n).map(mean).collect())
    }

    #[test]
    fn the_interval_of_a_mean_is_about_two_standard_errors_wide() {
        // 0..100 has mean 49.5 and standard deviation 28.87: the mean of 100 varies by 2.887.
        let (low, high) = interval_of_the_mean(100);
        let expected = 1.96 * 2.887;
        assert!((low - (49.5 - expected)).abs() < 0.6, "{low}");
        assert!((high - (49.5 + expected)).abs() < 0.6, "{high}");
        assert_eq!((low, high), interval_of_the_mean(100), "the same seed");
        assert!(interval_of_the_mean(0).0.is_nan());
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        let sorted = [1.0, 2.0, 4.0];
        assert!((quantile(&sorted, 0.5) - 2.0).abs() < 1e-12);
        assert!((quantile(&sorted, 0.75) - 3.0).abs() < 1e-12);
    }

    #[test]
    fn a_difference_on_one_side_of_zero_is_one() {
        assert!(p_value(&[1.0; 1999]) < 0.0011);
        assert!((p_value(&[-1.0, 1.0, -1.0, 1.0]) - 1.0).abs() < 1e-12);
        assert!(p_value(&[]).is_nan());
    }
}
