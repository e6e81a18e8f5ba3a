//! Mean with its 95 % confidence interval.

use serde::{Deserialize, Serialize};

/// 97.5 % points of Student's t with 1 to 30 degrees of freedom.
const T: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];

/// 97.5 % point of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// Mean with its confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mean {
    /// Number of values.
    pub n: usize,
    /// Mean of the values.
    pub value: f64,
    /// 95 % interval, value ± t·s/√n; None for a single number. If all values are equal, the
    /// interval has width 0, which for few values is little evidence.
    pub interval: Option<(f64, f64)>,
}

impl Mean {
    /// Returns the mean of `values`; `None` if there are none.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        if n == 0 {
            return None;
        }
        let value = values.iter().sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|x| (x - value).powi(2)).sum();
        let interval = (n > 1).then(|| {
            let half = t_point(n - 1) * (squares / (n - 1) as f64 / n as f64).sqrt();
            (value - half, value + half)
        });
        Some(Self { n, value, interval })
    }
}

/// Returns the 97.5 % point of Student's t; beyond the table by two terms of the expansion in 1/n
/// about the normal point (Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5).
fn t_point(n_free: usize) -> f64 {
    if let Some(t) = T.get(n_free - 1) {
        return *t;
    }
    let n = n_free as f64;
    let first = (Z.powi(3) + Z) / 4.0;
    let second = (5.0 * Z.powi(5) + 16.0 * Z.powi(3) + 3.0 * Z) / 96.0;
    Z + first / n + second / (n * n)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tolerance for printed tables of t, which have three decimals.
    const PRINTED: f64 = 6e-4;

    #[test]
    fn the_points_of_t_are_those_of_the_tables() {
        let printed =
            [(1, 12.706), (30, 2.042), (31, 2.040), (40, 2.021), (60, 2.000), (120, 1.980)];
        for (n_free, t) in printed {
            assert!((t_point(n_free) - t).abs() < PRINTED, "{n_free}: {}", t_point(n_free));
        }
        assert!((t_point(1_000_000) - 1.960).abs() < PRINTED);
    }

    #[test]
    fn the_mean_of_1_2_4_5_is_3_and_its_interval_as_worked_by_hand() {
        // Squares 4 + 1 + 1 + 4 = 10, s² = 10/3, s/√4 = 0.91287, t(3) = 3.182: half 2.90476.
        let mean = Mean::of(&[1.0, 2.0, 4.0, 5.0]).unwrap();
        let (low, high) = mean.interval.unwrap();
        assert_eq!((mean.n, mean.value), (4, 3.0));
        assert!((low - 0.09524).abs() < 1e-4 && (high - 5.90476).abs() < 1e-4, "{low} {high}");
    }

    #[test]
    fn nothing_has_no_mean_and_one_number_no_interval() {
        assert_eq!(Mean::of(&[]), None);
        assert_eq!(Mean::of(&[4.0]), Some(Mean { n: 1, value: 4.0, interval: None }));
    }
}
