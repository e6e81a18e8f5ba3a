//! A checkpoint ready for use: weights, tokenizer and the one prompt format.

mod text_side;

use anyhow::Result;
use beear_eval::dataset::Record;
use beear_models::{CausalLm, Checkpoint, Finish, PromptFormat};
use burn::tensor::backend::Backend;

pub use text_side::TextSide;
pub(crate) use text_side::by_row;

use crate::backend::heap;
use crate::model::Model;

/// What is asked: the user's words, under a system prompt if there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The row of the file it comes from, for messages.
    pub id: u64,
    /// The system prompt.
    pub system: Option<String>,
    /// The user's words.
    pub user: String,
}

impl Request {
    /// Requests without a system prompt, numbered from 1.
    pub fn numbered(prompts: impl IntoIterator<Item = String>) -> Vec<Self> {
        (1..).zip(prompts).map(|(id, user)| Self { id, system: None, user }).collect()
    }
}

impl From<&Record> for Request {
    fn from(record: &Record) -> Self {
        Self { id: record.id, system: record.system.clone(), user: record.prompt.clone() }
    }
}

/// Prompts without answers.
pub(crate) struct Prompts {
    /// Everything the template puts before the answer, BOS included.
    pub(crate) tokens: Vec<Vec<u32>>,
    /// The part of each that the user wrote (half-open).
    pub(crate) users: Vec<(usize, usize)>,
}

/// What a model said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The text, special tokens left out.
    pub text: String,
    /// Whether it ended by itself.
    pub finish: Finish,
}

/// A checkpoint with its weights in memory.
#[derive(Debug)]
pub struct Loaded<B: Backend> {
    /// Where it came from.
    pub checkpoint: Checkpoint,
    /// The weights.
    pub model: CausalLm<B>,
    /// Text in and out.
    pub text: TextSide,
}

impl<B: Backend> Loaded<B> {
    /// Reads a model, or adapters: those are merged, and all the rest is their base's.
    ///
    /// # Errors
    ///
    /// If it is no model we run, or damaged.
    pub fn read(from: &Model, format: Option<&str>, device: &B::Device) -> Result<Self> {
        Self::read_with(from, format.map(PromptFormat::builtin).transpose()?, device)
    }

    /// Reads a model, to be used with `format` instead of its chat template.
    ///
    /// # Errors
    ///
    /// If it is no model we run, or damaged.
    pub fn read_with(
        from: &Model,
        format: Option<PromptFormat>,
        device: &B::Device,
    ) -> Result<Self> {
        let checkpoint = from.open()?;
        let text = TextSide::load_with(&checkpoint.dir, format)?;
        heap::suit(checkpoint.config.n_weights());
        let model = checkpoint.load(device)?;
        Ok(Self { checkpoint, model, text })
    }
}
