//! Batches split between threads and between devices.

#[cfg(feature = "collective")]
pub(crate) mod collective;
pub(crate) mod rank;
pub mod threads;
