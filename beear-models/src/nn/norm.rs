//! Root-mean-square normalisation.
//!
//! $$y_i = \frac{x_i}{\sqrt{\tfrac1d \sum_j x_j^2 + \epsilon}}\, g_i$$ with `weight` = $g$.
//! Zhang and Sennrich, [Root Mean Square Layer Normalization](https://arxiv.org/abs/1910.07467).
//!
//! Burn's own casts f64 to f32, which caps a gradient check at 2e-4.

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
    /// A norm of unit gain.
    #[must_use]
    pub fn new(d_model: usize, epsilon: f64, device: &B::Device) -> Self {
        Self { weight: Param::from_tensor(Tensor::ones([d_model], device)), epsilon }
    }

    /// Normalises in f32 or wider and returns the dtype it was given.
    ///
    /// # Shapes
    ///
    /// - `hidden`, `output`: `[batch_size, seq_length, d_model]`
    #[must_use]
    pub fn forward(&self, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        let dtype = hidden.dtype();
        let wide = at_least_f32(hidden);
        let mean_square = wide.clone().square().mean_dim(2);
        // Not `recip`: some CPU backends take the processor's estimate, good to 12 bits or fewer.
        let normed = wide * mean_square.add_scalar(self.epsilon).powf_scalar(-0.5);
        normed.cast(dtype) * self.weight.val().unsqueeze()
    }
}

/// Widens half-precision values: sums over a row lose digits in them.
pub(crate) fn at_least_f32<B: Backend, const D: usize>(values: Tensor<B, D>) -> Tensor<B, D> {
    match values.dtype() {
        DType::F16 | DType::BF16 => values.cast(FloatDType::F32),
        _ => values,
    }
}
