//! Llama and Mistral decoders on Burn: checkpoints, chat templates, batched generation.

pub mod attention;
pub mod block;
pub mod causal_lm;
pub mod checkpoint;
pub mod config;
pub mod generate;
pub mod hf_config;
pub mod kv_cache;
mod linear;
pub mod mask;
pub mod mlp;
pub mod norm;
pub mod rope;
pub mod sampling;

pub use causal_lm::CausalLm;
pub use checkpoint::{Checkpoint, CheckpointError};
pub use config::{DecoderConfig, Family, RopeScaling};
pub use generate::{Finish, GenerateConfig, GenerateError, Generation, generate};
pub use sampling::Sampling;
