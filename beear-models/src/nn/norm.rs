//! Root-mean-square normalisation.
//!
//! $$y_i = \frac{x_i}{\sqrt{\tfrac1d \sum_j x_j^2 + \epsilon}}\, g_i$$ with `weight` = $g$.
//! Zhang and Sennrich, [Root Mean Square Layer Normalization](https://arxiv.org/abs/1910.07467).
//!
//! Burn's own norm casts f64 to f32, which limits a gradient check to 2e-4.

use burn::module::{Module, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, FloatDType, Tensor};

/// `RMSNorm` over the last axis.
#[derive(Module, Debug)]
pub struct RmsNorm<B: Backend> {
    /// Gain $g$: `[d_model]`.
    pub weight: Param<Tensor<B, 1>>,
    epsilon: f64,
}

impl<B: Backend> RmsNorm<B> {
    /// Creates a norm of unit gain.
    #[must_use]
    pub fn new(d_model: usize, epsilon: f64, device: &B::Device) -> Self {
        Self { weight: Param::from_tensor(Tensor::ones([d_model], device)), epsilon }
    }

    /// Normalises in f32 or wider and returns the input's dtype.
    ///
    /// # Shapes
    ///
    /// - `hidden`, `output`: `[batch_size, seq_length, d_model]`
    #[must_use]
    pub fn forward(&self, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        let dtype = hidden.dtype();
        let wide = at_least_f32(hidden);
        let mean_square = wide.clone().square().mean_dim(2);
        // Not `recip`: some CPU backends use the processor's estimate, which has at most 12 correct
        // bits.
        let normed = wide * mean_square.add_scalar(self.epsilon).powf_scalar(-0.5);
        normed.cast(dtype) * self.weight.val().unsqueeze()
    }
}

/// Widens half-precision values, in which sums over a row lose digits.
pub(crate) fn at_least_f32<B: Backend, const D: usize>(values: Tensor<B, D>) -> Tensor<B, D> {
    match values.dtype() {
        DType::F16 | DType::BF16 => values.cast(FloatDType::F32),
        _ => values,
    }
}
