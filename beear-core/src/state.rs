//! The state of a run between two steps, as numbers and tensors: what a checkpoint holds.

pub(crate) mod progress;
pub(crate) mod snapshot;
