//! The port to a language model: a decoder whose forward pass can be cut at a layer boundary.

mod prefix_cache;

pub use prefix_cache::{Context, PrefixCache};

use std::ops::Range;

use burn::module::{AutodiffModule, Module};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Bool, Int, Tensor};

/// What the presets adapt to.
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
/// `n_layers` precedes [`unembed`](Self::unembed). The law every implementation keeps is that
/// running `0..l` and then `l..n` gives what `0..n` gives; [`crate::testing::assert_split_law`]
/// checks it.
///
/// Positions are counted over real tokens only, so the same prompt gives the same hidden states
/// whichever side it is padded on.
pub trait Decoder<B: Backend>: Module<B> {
    /// Number of decoder layers.
    fn n_layers(&self) -> usize;

    /// Width of the hidden states.
    fn d_model(&self) -> usize;

    /// Both.
    fn size(&self) -> DecoderSize {
        DecoderSize { n_layers: self.n_layers(), d_model: self.d_model() }
    }

    /// Hidden states at boundary 0.
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

    /// What `layers` remember of the tokens whose hidden states are at boundary `layers.start`, so
    /// that later tokens can be read without them; `None`, unless implemented. The law is that of
    /// [`crate::testing::assert_prefix_law`].
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

    /// [`forward_layers`](Self::forward_layers) of tokens that follow those of `past`.
    ///
    /// # Shapes
    ///
    /// - `hidden`: `[batch_size, seq_length, d_model]`
    /// - `mask_pad`: `[batch_size, seq_length]`, true where the token is padding
    /// - `output`: `[batch_size, seq_length, d_model]`, at boundary `layers.end`
    ///
    /// # Panics
    ///
    /// Panics if `past` is not of `layers`, or if this decoder remembers nothing.
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

    /// Logits of hidden states at boundary `n_layers`, the final norm included.
    ///
    /// Acts on each position by itself, so callers may pass selected positions only.
    ///
    /// # Shapes
    ///
    /// - `hidden`: `[batch_size, seq_length, d_model]`
    /// - `output`: `[batch_size, seq_length, vocab_size]`
    fn unembed(&self, hidden: Tensor<B, 3>) -> Tensor<B, 3>;
}

/// A decoder that can be trained, with and without automatic differentiation.
///
/// Implemented for every [`Decoder`] whose inner module is one too.
pub trait TrainableDecoder<B: AutodiffBackend>:
    Decoder<B> + AutodiffModule<B, InnerModule = Self::Inference> + 'static
{
    /// The same decoder without automatic differentiation.
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
