//! Low-rank adapter of one projection: two thin matrices whose product is added to the frozen
//! weights.
//!
//! $$h = W_0 x + \frac{\alpha}{r} B A x$$
//! Hu et al., [LoRA](https://arxiv.org/abs/2106.09685), ICLR 2022, equation 3 and section 4.1, with
//! `lora_a` = $A^\top$, `lora_b` = $B^\top$, `alpha` = $\alpha$, `rank` = $r$.

use burn::module::{Module, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{FloatDType, Tensor, TensorData};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// Trainable part of a projection with frozen weights.
#[derive(Module, Debug)]
pub(crate) struct Adapter<B: Backend> {
    /// Matrix $A^\top$: `[d_input, rank]`.
    pub(crate) lora_a: Param<Tensor<B, 2>>,
    /// Matrix $B^\top$: `[rank, d_output]`.
    pub(crate) lora_b: Param<Tensor<B, 2>>,
    alpha: f64,
}

impl<B: Backend> Adapter<B> {
    /// Creates an adapter of zeros, to be filled.
    pub(crate) fn zeros(
        [d_input, d_output]: [usize; 2],
        (rank, alpha): (usize, f64),
        device: &B::Device,
    ) -> Self {
        Self {
            lora_a: Param::from_tensor(Tensor::zeros([d_input, rank], device)),
            lora_b: Param::from_tensor(Tensor::zeros([rank, d_output], device)),
            alpha,
        }
    }

    /// Creates an adapter that adds nothing, to be trained: $A$ uniform in $\pm 1/\sqrt{d}$ as in
    /// PEFT, $B$ zero. The numbers come from `rng` alone, so the initial values are equal on every
    /// backend.
    pub(crate) fn random(
        shape: [usize; 2],
        size: (usize, f64),
        rng: &mut ChaCha8Rng,
        device: &B::Device,
    ) -> Self {
        let (rank, [d_input, _]) = (size.0, shape);
        let bound = 1.0 / (d_input as f32).sqrt();
        let values: Vec<f32> =
            (0..d_input * rank).map(|_| rng.random_range(-bound..bound)).collect();
        let lora_a = Tensor::from_data(TensorData::new(values, [d_input, rank]), device);
        Self { lora_a: Param::from_tensor(lora_a), ..Self::zeros(shape, size, device) }
    }

    /// Returns the rank $r$.
    pub(crate) fn rank(&self) -> usize {
        let [_, rank] = self.lora_a.dims();
        rank
    }

    /// Returns the scale $\alpha$.
    pub(crate) fn alpha(&self) -> f64 {
        self.alpha
    }

    /// Computes the adapter's contribution to the projection of each token, in the type of the
    /// tokens. The matrices have the backend's own type, in which small steps survive beside
    /// half-precision weights.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[n_tokens, d_input]`
    /// - `output`: `[n_tokens, d_output]`
    pub(crate) fn forward(&self, tokens: Tensor<B, 2>) -> Tensor<B, 2> {
        let dtype = tokens.dtype();
        let [a, b] = [&self.lora_a, &self.lora_b].map(|param| param.val().cast(dtype));
        // Scaled between the matrices, where the tensor is smallest.
        tokens.matmul(a).mul_scalar(self.scale()).matmul(b)
    }

    /// Adds the adapter to `weight`, summed in f32 and rounded once to the type of `weight`. The
    /// result is detached from the autodiff graph.
    ///
    /// # Shapes
    ///
    /// - `weight`, `output`: `[d_input, d_output]`
    pub(crate) fn merged_into(&self, weight: Tensor<B, 2>) -> Tensor<B, 2> {
        let dtype = weight.dtype();
        let wide = |tensor: Tensor<B, 2>| tensor.cast(FloatDType::F32);
        let [a, b] = [&self.lora_a, &self.lora_b].map(|param| wide(param.val()));
        // Detached last: a leaf that requires gradients still does after it is detached.
        (wide(weight) + a.matmul(b).mul_scalar(self.scale())).cast(dtype).detach()
    }

    fn scale(&self) -> f64 {
        self.alpha / self.rank() as f64
    }
}
