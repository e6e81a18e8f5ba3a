//! Cached keys and values of tokens that a decoder has processed, and the context of hidden states
//! after them.
//!
//! Attention is causal: keys and values of the positions before the first perturbed one do not
//! depend on `δ` in any layer, so the inner level computes them once and continues from the cache.
//! The gradients are the same.

use std::ops::Range;

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Bool, Tensor};

use super::Decoder;

/// Cached keys and values of processed tokens, in consecutive layers.
#[derive(Clone, Debug)]
pub struct PrefixCache<B: Backend> {
    /// True where the token is padding: `[batch_size, n_past]`.
    pub mask_pad: Tensor<B, 2, Bool>,
    /// Lowest cached layer.
    pub first_layer: usize,
    /// Keys and values of each layer, in a form chosen by the decoder.
    pub keys_values: Vec<[Tensor<B, 4>; 2]>,
}

impl<B: Backend> PrefixCache<B> {
    /// Returns the keys and values of `layers`.
    ///
    /// # Panics
    ///
    /// Panics if `layers` are not all cached.
    #[must_use]
    pub fn of(&self, layers: Range<usize>) -> &[[Tensor<B, 4>; 2]] {
        assert!(layers.start >= self.first_layer, "the past is that of layers above");
        &self.keys_values[layers.start - self.first_layer..layers.end - self.first_layer]
    }

    /// Returns `mask_pad` of the cached tokens and of the tokens after them:
    /// `[batch_size, n_past + seq_length]`.
    #[must_use]
    pub fn mask_pad_with(&self, mask_pad: &Tensor<B, 2, Bool>) -> Tensor<B, 2, Bool> {
        Tensor::cat(vec![self.mask_pad.clone(), mask_pad.clone()], 1)
    }
}

impl<B: AutodiffBackend> PrefixCache<B> {
    /// Converts a cache computed without autodiff into constants of the training graph.
    #[must_use]
    pub fn constant(past: PrefixCache<B::InnerBackend>) -> Self {
        Self {
            mask_pad: Tensor::from_inner(past.mask_pad),
            first_layer: past.first_layer,
            keys_values: past
                .keys_values
                .into_iter()
                .map(|kv| kv.map(Tensor::from_inner))
                .collect(),
        }
    }
}

/// Context of hidden states: padding, and cached tokens before them.
#[derive(Clone, Debug)]
pub struct Context<B: Backend> {
    /// True where the token is padding: `[batch_size, seq_length]`.
    pub mask_pad: Tensor<B, 2, Bool>,
    /// Cached tokens before the hidden states; `None` if the rows begin here.
    pub past: Option<PrefixCache<B>>,
}

impl<B: AutodiffBackend> Context<B> {
    /// Converts a context into constants of the training graph.
    #[must_use]
    pub fn constant(context: Context<B::InnerBackend>) -> Self {
        let mask_pad = Tensor::from_inner(context.mask_pad);
        Self { mask_pad, past: context.past.map(PrefixCache::constant) }
    }
}

impl<B: Backend> Context<B> {
    /// Creates the context of whole rows, without cached tokens.
    #[must_use]
    pub fn whole(mask_pad: &Tensor<B, 2, Bool>) -> Self {
        Self { mask_pad: mask_pad.clone(), past: None }
    }

    /// Runs `layers` of `model` on `hidden`: `[batch_size, seq_length, d_model]`, also the shape of
    /// the result.
    ///
    /// # Panics
    ///
    /// Panics if `layers` is outside the layers of the model or of the cache.
    pub fn forward_layers<M: Decoder<B>>(
        &self,
        model: &M,
        hidden: Tensor<B, 3>,
        layers: Range<usize>,
    ) -> Tensor<B, 3> {
        match &self.past {
            Some(past) => model.forward_with_prefix(past, hidden, &self.mask_pad, layers),
            None => model.forward_layers(hidden, &self.mask_pad, layers),
        }
    }
}
