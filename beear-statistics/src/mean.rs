//! Mean of paired differences over rows of unequal weight, with Student's interval.
//!
//! The estimate is a ratio, $R = \sum_i d_i / \sum_i w_i$: differences $d_i$ of sums over the
//! weights $w_i$, such as nats over tokens. Its variance over $m$ rows is that of the linearised
//! ratio, $\frac{m}{m-1} \sum_i (d_i - R w_i)^2 / (\sum_i w_i)^2$ (Cochran, *Sampling Techniques*,
//! 3rd edition, 1977, chapter 6), so the tokens of a row may depend on each other in any way.

use serde::{Deserialize, Serialize};

/// Difference of a row's sums, with the number of terms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WeightedDifference {
    /// Sum after, minus the sum before.
    pub difference: f64,
    /// Number of terms of each sum.
    pub weight: f64,
}

/// Mean difference with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeanChange {
    /// Sum of differences over the sum of weights.
    pub difference: f64,
    /// Ends of Student's interval; None for fewer than two rows.
    pub interval: Option<(f64, f64)>,
}

impl MeanChange {
    /// Computes the mean difference of independent rows; `None` if there are none.
    #[must_use]
    pub fn of(rows: &[WeightedDifference]) -> Option<Self> {
        let weights: f64 = rows.iter().map(|row| row.weight).sum();
        if weights <= 0.0 {
            return None;
        }
        let difference = rows.iter().map(|row| row.difference).sum::<f64>() / weights;
        let residual = |row: &WeightedDifference| row.difference - difference * row.weight;
        let squares: f64 = rows.iter().map(|row| residual(row).powi(2)).sum();
        let interval = (rows.len() > 1).then(|| {
            let (m, freedom) = (rows.len() as f64, rows.len() - 1);
            let error = (m / freedom as f64 * squares).sqrt() / weights;
            let half = student_t_95(freedom) * error;
            (difference - half, difference + half)
        });
        Some(Self { difference, interval })
    }
}

/// 97.5 % points of Student's t at 1 to 10 degrees of freedom (Fisher and Yates, *Statistical
/// Tables*, table III).
const STUDENT_T_95: [f64; 10] = [
    12.706_205, 4.302_653, 3.182_446, 2.776_445, 2.570_582, 2.446_912, 2.364_624, 2.306_004,
    2.262_157, 2.228_139,
];

/// Returns the 97.5 % point of Student's t; beyond the table by Abramowitz and Stegun, equation
/// 26.7.5.
fn student_t_95(freedom: usize) -> f64 {
    if let Some(tabulated) = freedom.checked_sub(1).and_then(|index| STUDENT_T_95.get(index)) {
        return *tabulated;
    }
    let (x, v) = (crate::interval::Z_95, freedom as f64);
    let g1 = (x.powi(3) + x) / 4.0;
    let g2 = (5.0 * x.powi(5) + 16.0 * x.powi(3) + 3.0 * x) / 96.0;
    let g3 = (3.0 * x.powi(7) + 19.0 * x.powi(5) + 17.0 * x.powi(3) - 15.0 * x) / 384.0;
    let g4 = (79.0 * x.powi(9) + 776.0 * x.powi(7) + 1482.0 * x.powi(5)
        - 1920.0 * x.powi(3)
        - 945.0 * x)
        / 92_160.0;
    x + g1 / v + g2 / v.powi(2) + g3 / v.powi(3) + g4 / v.powi(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tolerance: the tables have four digits.
    const TABLE: f64 = 1e-4;

    fn change(rows: &[(f64, f64)]) -> Option<MeanChange> {
        let row = |&(difference, weight): &(f64, f64)| WeightedDifference { difference, weight };
        MeanChange::of(&rows.iter().map(row).collect::<Vec<_>>())
    }

    #[test]
    fn the_points_of_students_distribution_are_those_of_the_tables() {
        for (freedom, point) in
            [(1, 12.7062), (5, 2.5706), (11, 2.2010), (30, 2.0423), (120, 1.9799)]
        {
            let found = student_t_95(freedom);
            assert!((found - point).abs() < TABLE, "{freedom}: {found} {point}");
        }
    }

    #[test]
    fn rows_of_equal_weight_give_the_paired_t_interval() {
        // Differences 1, 2, 3, 6: mean 3, standard deviation √(14/3), t at 3 degrees of freedom
        // 3.1824.
        let change = change(&[(1.0, 1.0), (2.0, 1.0), (3.0, 1.0), (6.0, 1.0)]).unwrap();
        let half = 3.1824 * (14.0_f64 / 3.0).sqrt() / 2.0;
        let (low, high) = change.interval.unwrap();
        assert!((change.difference - 3.0).abs() < TABLE);
        assert!((low - (3.0 - half)).abs() < TABLE && (high - (3.0 + half)).abs() < TABLE);
    }

    #[test]
    fn a_long_row_counts_for_its_tokens() {
        // 2 over 1 token and 4 over 8: 6/9. Residuals 2 − 6/9 and 4 − 48/9 are ±4/3, so the error
        // is √(2/1 · 2 · 16/9) / 9 = 8/27.
        let change = change(&[(2.0, 1.0), (4.0, 8.0)]).unwrap();
        let (low, high) = change.interval.unwrap();
        assert!((change.difference - 6.0 / 9.0).abs() < TABLE);
        assert!((high - low - 2.0 * 12.7062 * 8.0 / 27.0).abs() < TABLE, "{low} {high}");
    }

    #[test]
    fn one_row_has_no_interval_and_nothing_no_mean() {
        assert_eq!(change(&[(1.0, 4.0)]), Some(MeanChange { difference: 0.25, interval: None }));
        assert_eq!(change(&[]), None);
    }
}
