//! The state of a run between two steps, as numbers and tensors: the content of a checkpoint.

pub(crate) mod progress;
pub(crate) mod snapshot;
