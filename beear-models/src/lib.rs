//! Llama and Mistral decoders on Burn: checkpoints, chat templates, batched generation.

pub mod activations;
mod adapter;
pub mod attention;
pub mod batching;
pub mod block;
pub mod causal_lm;
pub mod chat;
pub mod checkpoint;
pub mod config;
pub mod generate;
pub mod hf_config;
pub mod kv_cache;
mod large_stack;
pub mod log_likelihood;
pub mod lora;
pub mod mask;
pub mod mlp;
#[cfg(test)]
#[path = "../../tests/mutated.rs"]
mod mutated;
pub mod norm;
mod precision;
pub mod projection;
mod prompt_encoder;
pub mod prompt_format;
pub mod rope;
pub mod sampling;
pub mod text_engine;
mod text_stage;
pub mod tokenizer;
pub mod training_scope;

pub use batching::BatchLimit;
pub use causal_lm::CausalLm;
pub use checkpoint::{Checkpoint, CheckpointError};
pub use config::{DecoderConfig, Family, RopeScaling};
pub use generate::{
    Finish, GenerateConfig, GenerateError, Generation, Prompt, check_prompts, generate,
    generate_with_progress,
};
pub use log_likelihood::{LogLikelihood, log_likelihoods};
pub use lora::{LoraConfig, Target};
pub use prompt_format::{EncodedChat, EncodedPrompt, PromptFormat, PromptFormatError};
pub use sampling::Sampling;
pub use text_engine::{InProcess, TextEngine, TextEngineError, TextOutput, TextTask, Vocabulary};
pub use text_stage::TextStage;
pub use tokenizer::{SpecialTokens, TextTokenizer, TokenizerError, TokenizerFiles};
pub use training_scope::{TrainedWeights, TrainingScope, n_trained};
