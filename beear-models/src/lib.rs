//! Llama and Mistral decoders on Burn: checkpoints, chat templates, batched generation.

pub mod config;

pub use config::{DecoderConfig, Family, RopeScaling};
