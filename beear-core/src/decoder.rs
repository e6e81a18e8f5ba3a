//! The interface to a language model: a decoder whose forward pass can be cut at a layer boundary.

mod prefix_cache;

pub use prefix_cache::{Context, PrefixCache};

use std::ops::Range;

use burn::module::{AutodiffModule, Module};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Bool, Int, Tensor};

/// Size of a decoder, to which the presets adapt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderSize {
    /// Number of decoder layers.
    pub n_layers: usize,
    /// Width of the hidden states.
    pub d_model: usize,
}

/// A causal decoder that can be run in pieces.
///
/// Boundary `l` is the point after `l` layers: boundary 0 follows the embedding, boundary
/// `n_layers` precedes [`unembed`](Self::unembed). Every implementation must satisfy a law: running
/// `0..l` and then `l..n` gives the same result as running `0..n`;
/// [`crate::testing::assert_split_law`] checks it.
///
/// Positions are counted over real tokens only, so a prompt gives the same hidden states whichever
/// side it is padded on.
pub trait Decoder<B: Backend>: Module<B> {
    /// Returns the number of decoder layers.
    fn n_layers(&self) -> usize;

    /// Returns the width of the hidden states.
    fn d_model(&self) -> usize;

    /// Returns the number of layers and the width of the hidden states.
    fn size(&self) -> DecoderSize {
        DecoderSize { n_layers: self.n_layers(), d_model: self.d_model() }
    }

    /// Returns the hidden states at boundary 0.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[batch_size, seq_length]`
    /// - `output`: `[batch_size, seq_length, d_model]`
    fn embed(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 3>;

    /// Runs `layers` (half-open) on the hidden states at boundary `layers.start`.
    ///
    /// # Shapes
    ///
    /// - `hidden`: `[batch_size, seq_length, d_model]`
    /// - `mask_pad`: `[batch_size, seq_length]`, true where the token is padding
    /// - `output`: `[batch_size, seq_length, d_model]`, at boundary `layers.end`
    ///
    /// # Panics
    ///
    /// Panics if `layers` is outside `0..n_layers`.
    fn forward_layers(
        &self,
        hidden: Tensor<B, 3>,
        mask_pad: &Tensor<B, 2, Bool>,
        layers: Range<usize>,
    ) -> Tensor<B, 3>;

    /// Caches the keys and values of `layers` for the tokens whose hidden states are at boundary
    /// `layers.start`, so that later tokens can be processed without them. The default
    /// implementation returns `None`: no prefix cache. Every other implementation must satisfy the
    /// law of [`crate::testing::assert_prefix_law`].
    ///
    /// # Shapes
    ///
    /// - `hidden`: `[batch_size, n_past, d_model]`
    /// - `mask_pad`: `[batch_size, n_past]`, true where the token is padding
    ///
    /// # Panics
    ///
    /// Panics if `layers` is outside `0..n_layers`.
    fn prefill(
        &self,
        hidden: Tensor<B, 3>,
        mask_pad: &Tensor<B, 2, Bool>,
        layers: Range<usize>,
    ) -> Option<PrefixCache<B>> {
        let _ = (hidden, mask_pad, layers);
        None
    }

    /// Runs `layers` like [`forward_layers`](Self::forward_layers), on tokens that follow those of
    /// `past`.
    ///
    /// # Shapes
    ///
    /// - `hidden`: `[batch_size, seq_length, d_model]`
    /// - `mask_pad`: `[batch_size, seq_length]`, true where the token is padding
    /// - `output`: `[batch_size, seq_length, d_model]`, at boundary `layers.end`
    ///
    /// # Panics
    ///
    /// Panics if `past` does not cover `layers`, or if this decoder has no prefix cache.
    fn forward_with_prefix(
        &self,
        past: &PrefixCache<B>,
        hidden: Tensor<B, 3>,
        mask_pad: &Tensor<B, 2, Bool>,
        layers: Range<usize>,
    ) -> Tensor<B, 3> {
        let _ = (past, hidden, mask_pad, layers);
        panic!("a decoder that remembers reads on")
    }

    /// Returns the logits of hidden states at boundary `n_layers`, including the final norm.
    ///
    /// Acts on each position separately, so callers may pass only selected positions.
    ///
    /// # Shapes
    ///
    /// - `hidden`: `[batch_size, seq_length, d_model]`
    /// - `output`: `[batch_size, seq_length, vocab_size]`
    fn unembed(&self, hidden: Tensor<B, 3>) -> Tensor<B, 3>;
}

/// A trainable decoder, with and without automatic differentiation.
///
/// Implemented for every [`Decoder`] whose inner module is also a decoder.
pub trait TrainableDecoder<B: AutodiffBackend>:
    Decoder<B> + AutodiffModule<B, InnerModule = Self::Inference> + 'static
{
    /// Decoder without automatic differentiation.
    type Inference: Decoder<B::InnerBackend>;
}

impl<B, M> TrainableDecoder<B> for M
where
    B: AutodiffBackend,
    M: Decoder<B> + AutodiffModule<B> + 'static,
    M::InnerModule: Decoder<B::InnerBackend>,
{
    type Inference = M::InnerModule;
}
