//! Answers of a model, and the likelihood of given ones, in batches that fit.

pub mod batching;
pub mod generate;
pub mod log_likelihood;
pub mod sampling;
