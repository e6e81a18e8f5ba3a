//! Generation of answers, and likelihood of given answers, in batches that fit into memory.

pub mod batching;
pub mod generate;
pub mod log_likelihood;
pub mod sampling;
