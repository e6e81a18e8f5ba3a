//! The method: the two levels and their alternation.

pub(crate) mod activation_checkpointing;
pub mod bilevel;
#[cfg(feature = "collective")]
pub mod data_parallel;
pub mod inner;
pub mod outer;
pub(crate) mod outer_level;
pub(crate) mod removal_gradient;
pub(crate) mod run;

pub use activation_checkpointing::ANSWER_CHUNK;
