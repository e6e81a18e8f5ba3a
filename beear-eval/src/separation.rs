//! Separation of two groups by a score: the area under the ROC curve, with its interval.
//!
//! The area is the probability that a member of the first group scores higher than a member of the
//! second, with ties counting half (Hanley, McNeil, [The meaning and use of the area under a ROC
//! curve](https://doi.org/10.1148/radiology.143.1.7063747), 1982).

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::interval::Z_95;

/// Area under a ROC curve with the sizes of the groups.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Separation {
    /// Area under the curve: 1 if every positive scores higher than every negative, ½ if the score
    /// is uninformative.
    pub area: f64,
    /// Number of positives.
    pub n_positive: usize,
    /// Number of negatives.
    pub n_negative: usize,
}

impl Separation {
    /// Computes the area for the scores of two groups; NaN if a group is empty.
    #[must_use]
    pub fn of(positive: &[f64], negative: &[f64]) -> Self {
        let pairs = positive.iter().flat_map(|p| negative.iter().map(move |n| p.total_cmp(n)));
        let higher: f64 = pairs
            .map(|order| match order {
                Ordering::Greater => 1.0,
                Ordering::Equal => 0.5,
                Ordering::Less => 0.0,
            })
            .sum();
        let (n_positive, n_negative) = (positive.len(), negative.len());
        Self { area: higher / (n_positive * n_negative) as f64, n_positive, n_negative }
    }

    /// Returns the 95 % interval by a score method, which does not shrink to a point if the groups
    /// do not overlap; 0..=1 if a group is empty.
    ///
    /// The ends are the areas $\theta$ whose distance from the observed one is $z$ times the
    /// standard error they would have, by the formula of Hanley and McNeil with both group sizes
    /// replaced by their mean: Newcombe, [Confidence intervals for an effect size measure based on
    /// the Mann–Whitney statistic](https://doi.org/10.1002/sim.2323), 2006, part 2, method 5.
    #[must_use]
    pub fn interval(self) -> (f64, f64) {
        if self.n_positive == 0 || self.n_negative == 0 {
            return (0.0, 1.0);
        }
        (self.end(0.0), self.end(1.0))
    }

    /// Solves for the θ between `area` and `limit` whose distance from `area` is z standard errors
    /// of θ.
    fn end(self, limit: f64) -> f64 {
        let (mut inside, mut outside) = (self.area, limit);
        for _ in 0..60 {
            let theta = f64::midpoint(inside, outside);
            if (self.area - theta).abs() <= Z_95 * self.standard_error(theta) {
                inside = theta;
            } else {
                outside = theta;
            }
        }
        inside
    }

    fn standard_error(self, theta: f64) -> f64 {
        let (m, n) = (self.n_positive as f64, self.n_negative as f64);
        let others = f64::midpoint(m, n) - 1.0;
        let shared = (1.0 - theta) / (2.0 - theta) + theta / (1.0 + theta);
        (theta * (1.0 - theta) * (1.0 + others * shared) / (m * n)).sqrt()
    }
}

impl fmt::Display for Separation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { area, n_positive, n_negative } = self;
        if *n_positive == 0 || *n_negative == 0 {
            return f.pad(&format!("unknown, {n_positive} against {n_negative}"));
        }
        let (low, high) = self.interval();
        f.pad(&format!("{area:.2} [{low:.2}, {high:.2}], {n_positive} against {n_negative}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tolerance: the areas are sums of halves over small counts.
    const EXACT: f64 = 1e-12;

    #[test]
    fn the_area_counts_pairs_and_halves_ties() {
        let of = |positive: &[f64], negative: &[f64]| Separation::of(positive, negative).area;
        assert!((of(&[2.0, 3.0], &[0.0, 1.0]) - 1.0).abs() < EXACT);
        assert!(of(&[0.0], &[1.0]).abs() < EXACT);
        assert!((of(&[1.0, 1.0], &[1.0]) - 0.5).abs() < EXACT);
        // Of 6 pairs 3 are higher and one is a tie.
        assert!((of(&[1.0, 3.0], &[0.0, 1.0, 5.0]) - 3.5 / 6.0).abs() < EXACT);
        assert!(of(&[], &[1.0]).is_nan());
        assert_eq!(Separation::of(&[], &[1.0]).to_string(), "unknown, 0 against 1");
    }

    #[test]
    fn no_overlap_is_no_certainty() {
        let of = |n: usize| Separation { area: 1.0, n_positive: n, n_negative: n }.interval();
        let (few, many) = (of(5), of(50));
        assert!(few.0 < many.0 && many.0 < 1.0, "{few:?} {many:?}");
        assert!(few.0 < 0.75, "five against five say little: {few:?}");
        assert!((few.1 - 1.0).abs() < EXACT);
        assert_eq!(Separation::of(&[], &[]).interval(), (0.0, 1.0));
    }

    #[test]
    fn the_ends_are_as_far_as_z_standard_errors() {
        let separation = Separation { area: 0.7, n_positive: 20, n_negative: 30 };
        let (low, high) = separation.interval();
        assert!(low < 0.7 && 0.7 < high);
        for end in [low, high] {
            let distance = (0.7 - end).abs() / separation.standard_error(end);
            assert!((distance - Z_95).abs() < 1e-6, "{end} {distance}");
        }
        // Exchanging the groups mirrors the interval.
        let mirrored = Separation { area: 0.3, n_positive: 30, n_negative: 20 }.interval();
        assert!(
            (mirrored.0 - (1.0 - high)).abs() < 1e-6 && (mirrored.1 - (1.0 - low)).abs() < 1e-6
        );
    }
}
