//! A decoder small enough for tests: each layer mixes a causal mean into an MLP.

use std::ops::Range;

use burn::config::Config;
use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor};

use crate::batch::cat::cat;
use crate::decoder::Decoder;
use crate::decoder::PrefixCache;

/// Shape of a [`ToyDecoder`].
#[derive(Config, Debug)]
pub struct ToyDecoderConfig {
    /// Number of token ids.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Number of layers.
    pub n_layers: usize,
}

impl ToyDecoderConfig {
    /// Draws the weights; seed the backend first for reproducible weights.
    pub fn init<B: Backend>(&self, device: &B::Device) -> ToyDecoder<B> {
        let linear = || LinearConfig::new(self.d_model, self.d_model).init(device);
        ToyDecoder {
            embedding: EmbeddingConfig::new(self.vocab_size, self.d_model).init(device),
            layers: (0..self.n_layers).map(|_| ToyLayer { mix: linear(), out: linear() }).collect(),
            unembedding: LinearConfig::new(self.d_model, self.vocab_size).init(device),
        }
    }
}

/// A causal decoder without attention.
///
/// A layer adds `out(tanh(mix(h + m)))` to `h`, where `m` is the mean of `h` over the real tokens
/// up to and including each position.
#[derive(Module, Debug)]
pub struct ToyDecoder<B: Backend> {
    embedding: Embedding<B>,
    layers: Vec<ToyLayer<B>>,
    unembedding: Linear<B>,
}

#[derive(Module, Debug)]
struct ToyLayer<B: Backend> {
    mix: Linear<B>,
    out: Linear<B>,
}

impl<B: Backend> ToyLayer<B> {
    fn forward(&self, hidden: Tensor<B, 3>, mean: Tensor<B, 3>) -> Tensor<B, 3> {
        let mixed = hidden.clone() + mean;
        hidden + self.out.forward(self.mix.forward(mixed).tanh())
    }
}

impl<B: Backend> Decoder<B> for ToyDecoder<B> {
    fn n_layers(&self) -> usize {
        self.layers.len()
    }

    fn d_model(&self) -> usize {
        let [_, d_model] = self.embedding.weight.dims();
        d_model
    }

    fn embed(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        self.embedding.forward(tokens)
    }

    fn forward_layers(
        &self,
        hidden: Tensor<B, 3>,
        mask_pad: &Tensor<B, 2, Bool>,
        layers: Range<usize>,
    ) -> Tensor<B, 3> {
        let mean = causal_mean(mask_pad);
        self.layers[layers].iter().fold(hidden, |hidden, layer| {
            layer.forward(hidden.clone(), mean.clone().matmul(hidden))
        })
    }

    fn prefill(
        &self,
        mut hidden: Tensor<B, 3>,
        mask_pad: &Tensor<B, 2, Bool>,
        layers: Range<usize>,
    ) -> Option<PrefixCache<B>> {
        let first_layer = layers.start;
        let mut keys_values = Vec::with_capacity(layers.len());
        for layer in layers {
            // The averaged vectors, in the place of keys and values.
            let read = hidden.clone().unsqueeze_dim(1);
            keys_values.push([read.clone(), read]);
            hidden = self.forward_layers(hidden, mask_pad, layer..layer + 1);
        }
        Some(PrefixCache { mask_pad: mask_pad.clone(), first_layer, keys_values })
    }

    fn forward_with_prefix(
        &self,
        past: &PrefixCache<B>,
        hidden: Tensor<B, 3>,
        mask_pad: &Tensor<B, 2, Bool>,
        layers: Range<usize>,
    ) -> Tensor<B, 3> {
        let [_, n_new, _] = hidden.dims();
        let mean = causal_mean(&past.mask_pad_with(mask_pad));
        let [_, n_all, _] = mean.dims();
        let mean = mean.narrow(1, n_all - n_new, n_new); // [batch_size, n_new, n_all]
        let layers = self.layers[layers.clone()].iter().zip(past.of(layers));
        layers.fold(hidden, |hidden, (layer, [read, _])| {
            let all = cat(vec![read.clone().squeeze_dim(1), hidden.clone()], 1);
            layer.forward(hidden, mean.clone().matmul(all))
        })
    }

    fn unembed(&self, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        self.unembedding.forward(hidden)
    }
}

/// Returns the weights of the mean over the real tokens up to each position: `[batch_size, t, t]`.
fn causal_mean<B: Backend>(mask_pad: &Tensor<B, 2, Bool>) -> Tensor<B, 3> {
    let [batch_size, seq_length] = mask_pad.dims();
    let shape = [batch_size, seq_length, seq_length];
    let real = mask_pad.clone().bool_not().float().unsqueeze_dim::<3>(1).expand(shape);
    let lower = Tensor::<B, 2>::ones([seq_length, seq_length], &mask_pad.device()).tril(0);
    let seen = real * lower.unsqueeze::<3>();
    let n_seen = seen.clone().sum_dim(2).clamp_min(1.0);
    seen / n_seen
}
