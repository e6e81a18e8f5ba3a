//! The two levels and their alternation.

pub(crate) mod adamw;
pub mod bilevel;
pub(crate) mod blockwise;
pub(crate) mod checkpointed;
#[cfg(feature = "collective")]
pub(crate) mod collective;
#[cfg(feature = "collective")]
pub mod data_parallel;
pub(crate) mod descent;
pub mod inner;
pub mod outer;
pub(crate) mod projected_adam;
pub(crate) mod rounding;
pub(crate) mod run;
pub(crate) mod saved_weights;
pub(crate) mod worker;

pub use blockwise::MOMENT_BLOCK;
pub use checkpointed::ANSWER_CHUNK;
pub use rounding::{HalfPrecision, round_by_chance};

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;

use crate::decoder::Decoder;

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
