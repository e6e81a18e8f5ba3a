//! Llama and Mistral decoders on Burn: checkpoints, chat templates, batched generation.

pub mod activations;
pub mod checkpoint;
pub mod config;
pub mod generation;
pub mod lora;
#[cfg(test)]
#[path = "../../tests/mutated.rs"]
mod mutated;
pub mod nn;
pub mod text;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use config::{DecoderConfig, Family, RopeScaling};
pub use generation::batching::BatchLimit;
pub use generation::generate::{
    Finish, GenerateConfig, GenerateError, Generation, Prompt, check_prompts, generate,
    generate_with_progress,
};
pub use generation::log_likelihood::{LogLikelihood, log_likelihoods};
pub use generation::sampling::Sampling;
pub use lora::training_scope::{TrainedWeights, TrainingScope, n_trained};
pub use lora::{LoraConfig, Target};
pub use nn::causal_lm::CausalLm;
pub use text::prompt_format::{EncodedPrompt, EncodedRow, PromptFormat, PromptFormatError};
pub use text::text_engine::{
    InProcess, TextEngine, TextEngineError, TextOutput, TextTask, Vocabulary,
};
pub use text::text_stage::TextStage;
pub use text::tokenizer::{SpecialTokens, TextTokenizer, TokenizerError, TokenizerFiles};
