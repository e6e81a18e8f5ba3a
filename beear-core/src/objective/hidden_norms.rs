//! The norm of hidden states at the positions where `δ` is added, to which the step size and the
//! bound of `δ` are relative.
//!
//! In many decoders a few positions of a sequence have hidden states of another order of magnitude,
//! whatever the tokens: the first token, in some decoders also the first full stop or line break.
//! In `SmolLM2-135M`, at boundary 15 of 30, the norm of the first token is 25 070 and that of the
//! others about 160, so that the mean over a prompt is 4.5 times the norm of any other token. Sun
//! et al., [Massive Activations in Large Language Models](https://arxiv.org/abs/2402.17762), COLM
//! 2024.
//!
//! The measure is therefore the mean over the positions whose norm is at most [`MASSIVE`] times the
//! median. It does not exclude the first token by position: a full stop may have as large a norm,
//! and a decoder without massive activations has an ordinary first token. The measure is not the
//! median itself either: the means of parts of a batch combine to the mean of the batch, and
//! without massive activations the mean is that of all positions, bit for bit.

use burn::tensor::backend::Backend;
use burn::tensor::{ElementConversion, Tensor};

use crate::objective::answer::at_least_f32;

/// Ratio to the median above which a hidden state is massive: far from ordinary tokens and from the
/// factor of 157 above. A state just below the threshold counts, and moves the mean over thirty
/// positions by less than a third.
const MASSIVE: f64 = 10.0;

/// Norms of the hidden states of a batch, with a mask of the positions that count.
pub(crate) struct HiddenNorms<B: Backend> {
    /// Norms in f32 or wider: `[batch_size * seq_length, 1]`.
    norms: Tensor<B, 2>,
    /// Mask that is 1 where `δ` is added and 0 elsewhere: `[batch_size * seq_length, 1]`.
    covered: Tensor<B, 2>,
}

impl<B: Backend> HiddenNorms<B> {
    /// Computes the norms at the positions that `placement` covers.
    ///
    /// # Shapes
    ///
    /// - `hidden`: `[batch_size, seq_length, d_model]`
    /// - `placement`: `[batch_size * seq_length, n_tokens]`, see
    ///   [`crate::Positions::placement_matrix`]
    ///
    /// # Panics
    ///
    /// Panics if the shapes disagree.
    pub(crate) fn new(hidden: Tensor<B, 3>, placement: Tensor<B, 2>) -> Self {
        let [batch_size, seq_length, d_model] = hidden.dims();
        let [n_positions, _] = placement.dims();
        assert_eq!(n_positions, batch_size * seq_length, "placement: [batch * seq, n_tokens]");
        let hidden = at_least_f32(hidden.reshape([batch_size * seq_length, d_model]));
        let norms = hidden.powi_scalar(2).sum_dim(1).sqrt(); // [batch_size * seq_length, 1]
        Self { norms, covered: placement.max_dim(1) }
    }

    /// Returns the norms with a mask in which no position counts.
    pub(crate) fn of_no_weight(self) -> Self {
        let covered = self.covered.zeros_like();
        Self { covered, ..self }
    }

    /// Copies the norms that count to the host.
    fn counted(&self) -> Vec<f64> {
        let norms: Vec<f64> = self.norms.to_data().iter().collect();
        let covered: Vec<f64> = self.covered.to_data().iter().collect();
        let counted = norms.into_iter().zip(covered).filter(|(_, covered)| *covered > 0.0);
        counted.map(|(norm, _)| norm).collect()
    }

    /// Returns the mean of the norms that count and are at most `longest`.
    fn mean_up_to(&self, longest: f64) -> Mean {
        let ordinary = self.norms.clone().lower_equal_elem(longest).float();
        let ordinary = self.covered.clone() * ordinary.cast(self.covered.dtype());
        let n_ordinary = ordinary.clone().sum();
        let mean = (self.norms.clone() * ordinary).sum() / n_ordinary.clone();
        Mean {
            value: mean.into_scalar().elem(),
            n_values: n_ordinary.into_scalar().elem::<f64>() as usize,
        }
    }
}

/// A mean with its number of values. The mean of no values is NaN.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mean {
    pub(crate) value: f64,
    pub(crate) n_values: usize,
}

impl Mean {
    const OF_NOTHING: Self = Self { value: f64::NAN, n_values: 0 };

    /// Combines two means into the mean of all their values.
    fn joined(self, other: Self) -> Self {
        // The mean of no values is NaN, even with weight 0.
        match (self.n_values, other.n_values) {
            (_, 0) => self,
            (0, _) => other,
            (n, m) => {
                let sum = self.value * n as f64 + other.value * m as f64;
                Self { value: sum / (n + m) as f64, n_values: n + m }
            }
        }
    }
}

/// Returns the mean norm over the positions of a batch in `parts`, without massive activations.
pub(crate) fn mean_without_massive<B: Backend>(parts: &[&HiddenNorms<B>]) -> Mean {
    let longest = MASSIVE * median(parts.iter().flat_map(|part| part.counted()).collect());
    let means = parts.iter().map(|part| part.mean_up_to(longest));
    means.reduce(Mean::joined).unwrap_or(Mean::OF_NOTHING)
}

/// Returns the median of `values`, the upper of the two middle ones; NaN if there are none.
fn median(mut values: Vec<f64>) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::TensorData;

    use super::*;

    /// Tolerance of one division of a sum of whole numbers in f32.
    const F32_MEAN: f64 = 1e-4;

    /// Returns norms of the hidden states `(norm, 0)` in rows of three positions; every position
    /// with a norm other than 0 is covered.
    fn norms(values: &[f32]) -> HiddenNorms<Flex> {
        let device = Default::default();
        let (n_rows, n) = (values.len() / 3, values.len());
        let hidden: Vec<f32> = values.iter().flat_map(|&norm| [norm, 0.0]).collect();
        let covered: Vec<f32> =
            values.iter().map(|&norm| f32::from(u8::from(norm > 0.0))).collect();
        let hidden = Tensor::from_data(TensorData::new(hidden, [n_rows, 3, 2]), &device);
        HiddenNorms::new(hidden, Tensor::from_data(TensorData::new(covered, [n, 1]), &device))
    }

    fn assert_mean(parts: &[&HiddenNorms<Flex>], value: f64, n_values: usize) {
        let mean = mean_without_massive(parts);
        assert_eq!(mean.n_values, n_values);
        assert!((mean.value - value).abs() < F32_MEAN * value, "{mean:?} {value}");
    }

    #[test]
    fn massive_activations_do_not_count_wherever_they_are() {
        let first = norms(&[25_070.0, 150.0, 160.0, 25_070.0, 170.0, 0.0]);
        assert_mean(&[&first], 160.0, 3);
        let comma = norms(&[150.0, 160.0, 2_000.0, 170.0, 180.0, 190.0]);
        assert_mean(&[&comma], 170.0, 5);
    }

    #[test]
    fn ordinary_tokens_all_count() {
        assert_mean(&[&norms(&[3.0, 4.0, 0.0, 9.0, 20.0, 0.0])], 9.0, 4);
    }

    #[test]
    fn parts_of_a_batch_have_the_mean_of_the_batch() {
        // Alone, the first part would have a median of 25 070.
        let parts =
            [norms(&[25_070.0, 0.0, 0.0]), norms(&[25_070.0, 150.0, 170.0, 160.0, 4.0, 6.0])];
        assert_mean(&[&parts[0], &parts[1]], 98.0, 5);
        let unweighed = norms(&[7.0, 8.0, 9.0]).of_no_weight();
        assert_mean(&[&parts[0], &parts[1], &unweighed], 98.0, 5);
    }

    #[test]
    fn the_mean_of_nothing_is_no_number() {
        assert!(mean_without_massive(&[&norms(&[0.0, 0.0, 0.0])]).value.is_nan());
        assert!(mean_without_massive::<Flex>(&[]).value.is_nan());
    }
}
