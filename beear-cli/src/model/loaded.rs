//! A model ready for use: weights, tokenizer and the one prompt format.

mod shared_prompt;
mod text_side;

use anyhow::Result;
use beear_eval::Message;
use beear_eval::dataset::Record;
use beear_models::text::chat;
use beear_models::{CausalLm, Checkpoint, Finish, PromptFormat};
use burn::tensor::backend::Backend;

pub use text_side::TextSide;
pub(crate) use text_side::by_row;

use crate::backend::heap;
use crate::model::Model;

/// A prompt: the user's words, and an optional system prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Number of its row in the file, for messages.
    pub id: u64,
    /// System prompt, if there is one.
    pub system: Option<String>,
    /// Messages between the system prompt and the user's words.
    pub before: Vec<Message>,
    /// The user's words.
    pub user: String,
}

impl Request {
    /// Creates requests without a system prompt, numbered from 1.
    pub fn numbered(prompts: impl IntoIterator<Item = String>) -> Vec<Self> {
        (1..).zip(prompts).map(|(id, user)| Self { id, user, ..Self::default() }).collect()
    }

    /// Returns the conversation up to the user's words.
    fn messages(&self) -> Vec<chat::Message> {
        let system = self.system.as_deref().map(chat::Message::system);
        let before = self.before.iter().map(text_side::message);
        system.into_iter().chain(before).chain([chat::Message::user(&self.user)]).collect()
    }
}

impl From<&Record> for Request {
    fn from(record: &Record) -> Self {
        Self {
            id: record.id,
            system: record.system.clone(),
            before: record.before.clone(),
            user: record.prompt.clone(),
        }
    }
}

/// Prompts without answers.
pub(crate) struct Prompts {
    /// Tokens of each prompt: everything that the template puts before the answer, BOS included.
    pub(crate) tokens: Vec<Vec<u32>>,
    /// Part of each prompt that the user wrote, as a half-open range.
    pub(crate) users: Vec<(usize, usize)>,
}

/// Answer of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Text without special tokens.
    pub text: String,
    /// Reason why the answer ended.
    pub finish: Finish,
}

/// A model with its weights in memory.
#[derive(Debug)]
pub struct Loaded<B: Backend> {
    /// Folder and shape of the model.
    pub checkpoint: Checkpoint,
    /// Weights of the model.
    pub model: CausalLm<B>,
    /// Tokenizer and prompt format of the model.
    pub text: TextSide,
}

impl<B: Backend> Loaded<B> {
    /// Reads a model or adapters. Adapters are merged into their base, which provides everything
    /// else.
    ///
    /// # Errors
    ///
    /// If the model is not supported, or damaged.
    pub fn read(from: &Model, format: Option<&str>, device: &B::Device) -> Result<Self> {
        Self::read_with(from, format.map(PromptFormat::builtin).transpose()?, device)
    }

    /// Reads a model, to be used with `format` instead of its chat template.
    ///
    /// # Errors
    ///
    /// If the model is not supported, or damaged.
    pub fn read_with(
        from: &Model,
        format: Option<PromptFormat>,
        device: &B::Device,
    ) -> Result<Self> {
        let checkpoint = from.open()?;
        let text = TextSide::load_with(&checkpoint.dir, format)?;
        let text = text.of_embedding(checkpoint.config.vocab_size);
        heap::suit(checkpoint.config.n_weights());
        let model = checkpoint.load(device)?;
        Ok(Self { checkpoint, model, text })
    }
}
