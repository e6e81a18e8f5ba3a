//! Drift: the difference between paired hidden states, and its uniformity over pairs.
//!
//! $$d_i = h'_i - h_i$$ for the states $h_i$ of a prompt and $h'_i$ of the changed prompt. The
//! method rests on the uniformity of a backdoor's drifts: one $\delta$ can stand for all $d_i$ only
//! as far as the $d_i$ share a direction. [`DriftStatistics`] measures this uniformity.
//!
//! Zeng et al., [BEEAR](https://arxiv.org/abs/2406.17092), EMNLP 2024, figure 3, shows the drifts
//! as a picture; the statistics here are not from the paper.

use serde::Serialize;

use crate::analysis::principal_components::{centred, difference, dot, first_share, mean};

/// Differences between paired hidden states.
#[derive(Clone, Debug, PartialEq)]
pub struct Drift {
    drifts: Vec<Vec<f64>>,
    mean: Vec<f64>,
    /// Mean norm of the unchanged states.
    state_norm: f64,
}

/// Statistics of the drifts at one boundary.
///
/// A pair without drift has no direction: it counts in the mean and in the norm, but not in the
/// cosines. A statistic is `None` if too few pairs drift to define it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DriftStatistics {
    /// Number of pairs.
    pub n_pairs: usize,
    /// Number of pairs whose drift is not 0.
    pub n_drifting: usize,
    /// Mean cosine of two drifts, $\frac{2}{n(n-1)} \sum_{i<j} \cos(d_i, d_j)$: 1 if all are
    /// parallel, about 0 if they have nothing in common.
    pub uniformity: Option<f64>,
    /// Mean of $\cos(d_i, \bar d)$, where the mean drift $\bar d$ includes $d_i$ itself.
    pub cosine_to_mean: Option<f64>,
    /// Largest share of $\sum_i \|d_i\|^2$ along one direction from the origin: uncentred.
    pub first_component: Option<f64>,
    /// Share of variance of the first principal component of the $d_i - \bar d$: centred.
    pub first_component_centred: Option<f64>,
    /// Mean of $\|d_i\|$ over the mean of $\|h_i\|$.
    pub relative_norm: Option<f64>,
}

impl Drift {
    /// Returns the drifts from `states` to `changed`, row by row.
    ///
    /// # Shapes
    ///
    /// - `states`, `changed`: `[n_pairs, d_model]`
    ///
    /// # Panics
    ///
    /// Panics if there are no pairs or the shapes disagree.
    #[must_use]
    pub fn between(states: &[Vec<f64>], changed: &[Vec<f64>]) -> Self {
        assert!(!states.is_empty(), "a drift has a pair");
        assert_eq!(states.len(), changed.len(), "states, changed: [n_pairs, d_model]");
        let pairs = changed.iter().zip(states);
        let drifts: Vec<Vec<f64>> =
            pairs.map(|(changed, state)| difference(changed, state)).collect();
        Self { mean: mean(&drifts), drifts, state_norm: mean_norm(states) }
    }

    /// Returns the mean drift $\bar d$.
    #[must_use]
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// Returns $\cos(d_i, \bar d)$ of each pair; `None` if either vector is 0.
    #[must_use]
    pub fn cosines_to_mean(&self) -> Vec<Option<f64>> {
        self.drifts.iter().map(|drift| cosine(drift, &self.mean)).collect()
    }

    /// Returns the statistics of the drifts.
    #[must_use]
    pub fn statistics(&self) -> DriftStatistics {
        let directions: Vec<Vec<f64>> =
            self.drifts.iter().filter_map(|drift| direction(drift)).collect();
        let cosines: Vec<f64> = self.cosines_to_mean().into_iter().flatten().collect();
        DriftStatistics {
            n_pairs: self.drifts.len(),
            n_drifting: directions.len(),
            uniformity: mean_pairwise_cosine(&directions),
            cosine_to_mean: ratio(cosines.iter().sum(), cosines.len() as f64),
            first_component: first_share(&self.drifts),
            first_component_centred: first_share(&centred(&self.drifts, &self.mean)),
            relative_norm: ratio(mean_norm(&self.drifts), self.state_norm),
        }
    }
}

/// Returns the cosine of the angle between two vectors; `None` if one of them is 0.
///
/// # Shapes
///
/// - `a`, `b`: `[d_model]`
///
/// # Panics
///
/// Panics if the shapes disagree.
#[must_use]
pub fn cosine(a: &[f64], b: &[f64]) -> Option<f64> {
    ratio(dot(a, b), norm(a) * norm(b))
}

/// Returns the mean cosine of all pairs of unit vectors: the squared length of their sum contains
/// each pair's cosine twice, and every vector's own 1.
fn mean_pairwise_cosine(directions: &[Vec<f64>]) -> Option<f64> {
    let n = directions.len() as f64;
    let mean = if directions.is_empty() { Vec::new() } else { mean(directions) };
    ratio(n * n * dot(&mean, &mean) - n, n * (n - 1.0))
}

fn direction(vector: &[f64]) -> Option<Vec<f64>> {
    let norm = norm(vector);
    (norm > 0.0).then(|| vector.iter().map(|value| value / norm).collect())
}

fn mean_norm(rows: &[Vec<f64>]) -> f64 {
    rows.iter().map(|row| norm(row)).sum::<f64>() / rows.len() as f64
}

fn norm(vector: &[f64]) -> f64 {
    dot(vector, vector).sqrt()
}

fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    const F64_SUM: f64 = 1e-12;

    /// Returns the drifts `drifts` from states of length 5 and 13.
    fn drift(drifts: [[f64; 2]; 2]) -> Drift {
        let states = [[3.0, 4.0], [-5.0, 12.0]];
        let changed = states.iter().zip(drifts).map(|(h, d)| vec![h[0] + d[0], h[1] + d[1]]);
        let states: Vec<Vec<f64>> = states.iter().map(|h| h.to_vec()).collect();
        Drift::between(&states, &changed.collect::<Vec<_>>())
    }

    fn check(found: Option<f64>, expected: f64, what: &str) {
        let found = found.expect(what);
        assert!((found - expected).abs() < F64_SUM, "{what}: {found}, expected {expected}");
    }

    #[test]
    fn drifts_at_right_angles_have_little_in_common() {
        let drift = drift([[2.0, 0.0], [0.0, 1.0]]);
        let found = drift.statistics();
        assert_eq!((found.n_pairs, found.n_drifting), (2, 2));
        assert_eq!(drift.mean(), [1.0, 0.5]);
        check(found.uniformity, 0.0, "uniformity");
        // The mean (1, 1/2) has the length √5 / 2: cosines 2 / √5 and 1 / √5.
        check(found.cosine_to_mean, 1.5 / 5.0_f64.sqrt(), "cosine to the mean");
        check(drift.cosines_to_mean()[1], 1.0 / 5.0_f64.sqrt(), "cosine of the second");
        // Squared lengths 4 and 1 from the origin; about the mean they lie on one line.
        check(found.first_component, 0.8, "first component");
        check(found.first_component_centred, 1.0, "first component, centred");
        // Drifts of 2 and 1, states of 5 and 13.
        check(found.relative_norm, 1.5 / 9.0, "relative norm");
    }

    #[test]
    fn parallel_drifts_are_uniform_whatever_their_length() {
        let found = drift([[3.0, 4.0], [0.3, 0.4]]).statistics();
        check(found.uniformity, 1.0, "uniformity");
        check(found.cosine_to_mean, 1.0, "cosine to the mean");
        check(found.first_component, 1.0, "first component");
    }

    #[test]
    fn three_drifts_make_three_pairs() {
        // Cosines 1, 3/5 and 3/5.
        let changed = [vec![1.0, 0.0], vec![2.0, 0.0], vec![3.0, 4.0]];
        let found = Drift::between(&vec![vec![0.0, 0.0]; 3], &changed).statistics();
        check(found.uniformity, 2.2 / 3.0, "uniformity");
        assert_eq!(found.relative_norm, None, "the states have no length");
    }

    #[test]
    fn a_pair_without_drift_has_no_direction() {
        let still = drift([[0.0, 0.0], [0.0, 0.0]]).statistics();
        assert_eq!((still.n_pairs, still.n_drifting), (2, 0));
        assert_eq!((still.uniformity, still.first_component), (None, None));
        assert_eq!(still.relative_norm, Some(0.0));
        let one = drift([[0.0, 0.0], [0.0, 2.0]]);
        assert_eq!((one.statistics().n_drifting, one.statistics().uniformity), (1, None));
        assert_eq!(one.cosines_to_mean(), [None, Some(1.0)]);
    }
}
