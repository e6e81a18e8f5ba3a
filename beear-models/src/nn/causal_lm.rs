//! Causal language model of both families, which differ in configuration only.

use std::ops::Range;

use beear_core::{Decoder, PrefixCache};
use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::{Embedding, EmbeddingConfig, Initializer};
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor};

use crate::config::DecoderConfig;
use crate::nn::block::Block;
use crate::nn::kv_cache::KvCache;
use crate::nn::mask::Positions;
use crate::nn::norm::RmsNorm;
use crate::nn::projection::{Projection, project};

/// Embedding, layers and final norm; fields are named as in checkpoints.
#[derive(Module, Debug)]
pub struct Backbone<B: Backend> {
    /// Token embedding: `[vocab_size, d_model]`.
    pub embed_tokens: Embedding<B>,
    /// Decoder layers.
    pub layers: Vec<Block<B>>,
    /// Norm before the unembedding.
    pub norm: RmsNorm<B>,
}

/// Llama or Mistral language model.
#[derive(Module, Debug)]
pub struct CausalLm<B: Backend> {
    /// Model below the unembedding.
    pub model: Backbone<B>,
    /// Unembedding; None if it is the transposed embedding.
    pub lm_head: Option<Projection<B>>,
    #[module(skip)]
    config: DecoderConfig,
}

impl DecoderConfig {
    /// Initialises a model with random weights; seed the backend first for reproducible weights.
    #[must_use]
    pub fn init<B: Backend>(&self, device: &B::Device) -> CausalLm<B> {
        let model = self.lazy(device);
        model.visit(&mut Materialise);
        model
    }

    /// Creates a model whose weights are initialised when first read; loading never reads them.
    pub(crate) fn lazy<B: Backend>(&self, device: &B::Device) -> CausalLm<B> {
        let std = 1.0 / (self.d_model as f64).sqrt();
        let embed_tokens = EmbeddingConfig::new(self.vocab_size, self.d_model)
            .with_initializer(Initializer::Normal { mean: 0.0, std })
            .init(device);
        let head = || Projection::new([self.d_model, self.vocab_size], device);
        CausalLm {
            model: Backbone {
                embed_tokens,
                layers: (0..self.n_layers).map(|_| Block::new(self, device)).collect(),
                norm: RmsNorm::new(self.d_model, self.norm_epsilon, device),
            },
            lm_head: (!self.tied_embeddings).then(head),
            config: self.clone(),
        }
    }
}

/// Visitor that initialises lazy parameters: freezing a clone of a lazy parameter freezes the
/// original too.
struct Materialise;

impl<B: Backend> ModuleVisitor<B> for Materialise {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let _ = param.val();
    }
}

impl<B: Backend> CausalLm<B> {
    /// Returns the shape of the model.
    #[must_use]
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Computes the logits of every token.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[batch_size, seq_length]`
    /// - `mask_pad`: `[batch_size, seq_length]`, true where the token is padding
    /// - `output`: `[batch_size, seq_length, vocab_size]`
    #[must_use]
    pub fn forward(
        &self,
        tokens: Tensor<B, 2, Int>,
        mask_pad: &Tensor<B, 2, Bool>,
    ) -> Tensor<B, 3> {
        let hidden = self.embed(tokens);
        self.unembed(self.forward_layers(hidden, mask_pad, 0..self.n_layers()))
    }

    /// Computes the logits of the last token, reading only `tokens` and taking earlier tokens from
    /// `cache`.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[batch_size, n_new]`
    /// - `mask_pad`: `[batch_size, n_cached + n_new]`
    /// - `output`: `[batch_size, vocab_size]`
    #[must_use]
    pub fn forward_cached(
        &self,
        tokens: Tensor<B, 2, Int>,
        mask_pad: &Tensor<B, 2, Bool>,
        cache: &mut KvCache<B>,
    ) -> Tensor<B, 2> {
        let [_, n_new] = tokens.dims();
        let all = 0..self.n_layers();
        let hidden = self.read(self.embed(tokens), mask_pad, all, cache);
        self.unembed(hidden.narrow(1, n_new - 1, 1)).squeeze_dim(1)
    }

    /// Runs `layers` on tokens that follow those in `cache`, to which they are appended; `mask_pad`
    /// covers both.
    fn read(
        &self,
        hidden: Tensor<B, 3>,
        mask_pad: &Tensor<B, 2, Bool>,
        layers: Range<usize>,
        cache: &mut KvCache<B>,
    ) -> Tensor<B, 3> {
        let [_, n_new, _] = hidden.dims();
        let positions = Positions::new(self.config(), mask_pad, n_new);
        let layers = self.model.layers[layers].iter().zip(&mut cache.layers);
        layers.fold(hidden, |hidden, (layer, cache)| layer.forward(hidden, &positions, Some(cache)))
    }
}

impl<B: Backend> Decoder<B> for CausalLm<B> {
    fn n_layers(&self) -> usize {
        self.model.layers.len()
    }

    fn d_model(&self) -> usize {
        self.config().d_model
    }

    fn embed(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        self.model.embed_tokens.forward(tokens)
    }

    fn forward_layers(
        &self,
        hidden: Tensor<B, 3>,
        mask_pad: &Tensor<B, 2, Bool>,
        layers: Range<usize>,
    ) -> Tensor<B, 3> {
        let [batch_size, seq_length, _] = hidden.dims();
        assert_eq!(mask_pad.dims(), [batch_size, seq_length], "mask_pad: [batch_size, seq_length]");
        let positions = Positions::new(self.config(), mask_pad, seq_length);
        let layers = self.model.layers[layers].iter();
        layers.fold(hidden, |hidden, layer| layer.forward(hidden, &positions, None))
    }

    fn prefill(
        &self,
        hidden: Tensor<B, 3>,
        mask_pad: &Tensor<B, 2, Bool>,
        layers: Range<usize>,
    ) -> Option<PrefixCache<B>> {
        let (first_layer, mut cache) = (layers.start, KvCache::new(layers.len()));
        let _ = self.read(hidden, mask_pad, layers, &mut cache);
        Some(PrefixCache {
            mask_pad: mask_pad.clone(),
            first_layer,
            keys_values: cache.remembered(),
        })
    }

    fn forward_with_prefix(
        &self,
        past: &PrefixCache<B>,
        hidden: Tensor<B, 3>,
        mask_pad: &Tensor<B, 2, Bool>,
        layers: Range<usize>,
    ) -> Tensor<B, 3> {
        let mut cache = KvCache::after(past.of(layers.clone()));
        self.read(hidden, &past.mask_pad_with(mask_pad), layers, &mut cache)
    }

    fn unembed(&self, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        let normed = self.model.norm.forward(hidden);
        match &self.lm_head {
            Some(head) => project(head, normed),
            None => normed.matmul(self.model.embed_tokens.weight.val().transpose().unsqueeze()),
        }
    }
}
