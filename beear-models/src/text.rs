//! Conversion between texts and tokens: tokenizers, chat templates, prompt formats.

pub mod chat;
mod large_stack;
mod named_tokens;
mod prompt_encoder;
pub mod prompt_format;
pub mod text_engine;
pub(crate) mod text_stage;
pub mod tokenizer;
