//! Decoder layer: attention and MLP, each on normed input, each added to the residual stream.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::config::DecoderConfig;
use crate::nn::attention::Attention;
use crate::nn::kv_cache::LayerCache;
use crate::nn::mask::Positions;
use crate::nn::mlp::Mlp;
use crate::nn::norm::RmsNorm;

/// Pre-norm decoder layer.
#[derive(Module, Debug)]
pub struct Block<B: Backend> {
    /// Self-attention.
    pub self_attn: Attention<B>,
    /// Gated MLP.
    pub mlp: Mlp<B>,
    /// Norm before attention.
    pub input_layernorm: RmsNorm<B>,
    /// Norm before the MLP.
    pub post_attention_layernorm: RmsNorm<B>,
}

impl<B: Backend> Block<B> {
    /// Creates a layer with random weights.
    #[must_use]
    pub fn new(config: &DecoderConfig, device: &B::Device) -> Self {
        let norm = || RmsNorm::new(config.d_model, config.norm_epsilon, device);
        Self {
            self_attn: Attention::new(config, device),
            mlp: Mlp::new(config, device),
            input_layernorm: norm(),
            post_attention_layernorm: norm(),
        }
    }

    /// Applies attention and the MLP to the hidden states.
    ///
    /// # Shapes
    ///
    /// - `hidden`, `output`: `[batch_size, seq_length, d_model]`
    #[must_use]
    pub fn forward(
        &self,
        hidden: Tensor<B, 3>,
        positions: &Positions<B>,
        cache: Option<&mut LayerCache<B>>,
    ) -> Tensor<B, 3> {
        let normed = self.input_layernorm.forward(hidden.clone());
        let hidden = hidden + self.self_attn.forward(normed, positions, cache);
        let normed = self.post_attention_layernorm.forward(hidden.clone());
        hidden + self.mlp.forward(normed)
    }
}
