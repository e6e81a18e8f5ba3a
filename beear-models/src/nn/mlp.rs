//! Gated MLP, `SwiGLU`: $\mathrm{down}(\mathrm{silu}(\mathrm{gate}(x)) \odot \mathrm{up}(x))$.
//!
//! Shazeer, [GLU Variants Improve Transformer](https://arxiv.org/abs/2002.05202).

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::activation::silu;
use burn::tensor::backend::Backend;

use crate::config::DecoderConfig;
use crate::nn::projection::{Projection, project};

/// Gated MLP of one layer. Linear weights are `[d_input, d_output]`.
#[derive(Module, Debug)]
pub struct Mlp<B: Backend> {
    /// Gate projection, `d_model` to `d_ff`.
    pub gate_proj: Projection<B>,
    /// Up projection, `d_model` to `d_ff`.
    pub up_proj: Projection<B>,
    /// Down projection, `d_ff` to `d_model`.
    pub down_proj: Projection<B>,
}

impl<B: Backend> Mlp<B> {
    /// Creates an MLP with random weights.
    #[must_use]
    pub fn new(config: &DecoderConfig, device: &B::Device) -> Self {
        Self {
            gate_proj: Projection::new([config.d_model, config.d_ff], device),
            up_proj: Projection::new([config.d_model, config.d_ff], device),
            down_proj: Projection::new([config.d_ff, config.d_model], device),
        }
    }

    /// Applies the MLP to every position.
    ///
    /// # Shapes
    ///
    /// - `hidden`, `output`: `[batch_size, seq_length, d_model]`
    #[must_use]
    pub fn forward(&self, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        let gate = silu(project(&self.gate_proj, hidden.clone()));
        project(&self.down_proj, gate * project(&self.up_proj, hidden))
    }
}
