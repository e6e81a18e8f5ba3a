//! A checkpoint ready for use: weights, tokenizer and the one prompt format.

use std::path::Path;

use anyhow::{Context, Result};
use beear_core::{Example, SafetyExample};
use beear_eval::dataset::Record;
use beear_eval::{Conversation, Message};
use beear_models::{
    BatchLimit, CausalLm, Checkpoint, EncodedChat, Finish, GenerateConfig, GenerateError,
    Generation, Prompt, PromptFormat, TextTokenizer, chat, check_prompts, generate,
};
use burn::tensor::backend::Backend;

use crate::exit::Mistake;
use crate::heap;
use crate::language_model::EVAL_ROWS;
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

/// Text in and out of a model.
#[derive(Clone, Debug)]
pub struct TextSide {
    /// The tokenizer.
    pub tokenizer: TextTokenizer,
    /// The prompt format of training and every evaluation.
    pub format: PromptFormat,
}

impl TextSide {
    /// Reads both from a folder; `format` names a built-in prompt format to use instead.
    ///
    /// # Errors
    ///
    /// If a file is missing or malformed, or the format unknown.
    pub fn load(dir: &Path, format: Option<&str>) -> Result<Self> {
        Self::load_with(dir, format.map(PromptFormat::builtin).transpose()?)
    }

    fn load_with(dir: &Path, format: Option<PromptFormat>) -> Result<Self> {
        let tokenizer = TextTokenizer::load(dir)?;
        let format = format.map_or_else(|| PromptFormat::from_checkpoint(dir), Ok)?;
        Ok(Self { tokenizer, format })
    }

    /// Encodes a request with its answer.
    ///
    /// # Errors
    ///
    /// If the template or the tokenizer fails.
    pub fn example(&self, request: &Request, answer: &str) -> Result<Example> {
        let (prompt, user) = self.prompt(request)?;
        let answer = self.format.encode_answer(&self.tokenizer, answer);
        let answer = answer.with_context(|| format!("encoding row {}", request.id))?;
        Ok(Example { id: request.id, prompt, user, answer })
    }

    /// Encodes a forbidden request with its wanted and unwanted answer.
    ///
    /// # Errors
    ///
    /// If the template or the tokenizer fails.
    pub fn safety_example(
        &self,
        request: &Request,
        [safe, unwanted]: [&str; 2],
    ) -> Result<SafetyExample> {
        let safe = self.example(request, safe)?;
        let unwanted = self.format.encode_answer(&self.tokenizer, unwanted)?;
        Ok(SafetyExample::new(safe, unwanted))
    }

    /// Greedy answers, at most `max_new_tokens` long.
    ///
    /// # Errors
    ///
    /// If a request cannot be encoded or is longer than the context.
    pub fn answers<B: Backend>(
        &self,
        model: &CausalLm<B>,
        requests: &[Request],
        max_new_tokens: usize,
        device: &B::Device,
    ) -> Result<Vec<Answer>> {
        let config = GenerateConfig::greedy(max_new_tokens, BatchLimit::rows(EVAL_ROWS));
        self.generate(model, requests, &config, device)
    }

    /// Answers, as `config` says.
    ///
    /// # Errors
    ///
    /// If a request cannot be encoded or is longer than the context.
    pub fn generate<B: Backend>(
        &self,
        model: &CausalLm<B>,
        requests: &[Request],
        config: &GenerateConfig,
        device: &B::Device,
    ) -> Result<Vec<Answer>> {
        let tokens = requests.iter().map(|request| Ok(self.prompt(request)?.0));
        let tokens = tokens.collect::<Result<Vec<_>>>()?;
        let stop = self.tokenizer.stop_ids();
        let generations = generate(model, &Prompt::numbered(&tokens), stop, config, device)
            .map_err(|error| by_row(&error, |row| requests[row].id))?;
        let decode = |g: &Generation| {
            Ok(Answer { text: self.tokenizer.decode(&g.tokens)?, finish: g.finish })
        };
        generations.iter().map(decode).collect()
    }

    /// Tokens of requests, each with the part that the user wrote (half-open).
    ///
    /// # Errors
    ///
    /// If a request cannot be encoded, is empty, or leaves no room for an answer within `limit` tokens.
    pub(crate) fn prompts(&self, requests: &[Request], limit: usize) -> Result<Prompts> {
        let prompts = requests.iter().map(|request| self.prompt(request));
        let prompts = prompts.collect::<Result<Vec<_>>>()?;
        let (tokens, users): (Vec<_>, Vec<_>) = prompts.into_iter().unzip();
        let each = tokens.iter().map(Vec::as_slice);
        check_prompts(each, limit).map_err(|error| by_row(&error, |row| requests[row].id))?;
        Ok(Prompts { tokens, users })
    }

    /// A conversation as the model reads it, up to where the next answer begins.
    ///
    /// # Errors
    ///
    /// If it cannot be encoded, or its last turn is not the user's.
    pub(crate) fn chat(&self, id: u64, messages: &[Message]) -> Result<EncodedChat> {
        let message = |message: &Message| chat::Message {
            role: message.role.name().to_owned(),
            content: message.content.clone(),
        };
        let messages: Vec<chat::Message> = messages.iter().map(message).collect();
        let encoded = self.format.encode_chat(&self.tokenizer, &messages);
        encoded.with_context(|| format!("encoding row {id}"))
    }

    /// Conversations as the model reads them, each with room for an answer.
    ///
    /// # Errors
    ///
    /// If one cannot be encoded, is empty, or leaves no room within `limit` tokens.
    pub(crate) fn chats(
        &self,
        conversations: &[Conversation],
        limit: usize,
    ) -> Result<Vec<EncodedChat>> {
        let chats = conversations.iter().map(|c| self.chat(c.id, &c.messages));
        let chats = chats.collect::<Result<Vec<_>>>()?;
        let each = chats.iter().map(|chat| chat.tokens.as_slice());
        check_prompts(each, limit).map_err(|error| by_row(&error, |row| conversations[row].id))?;
        Ok(chats)
    }

    fn prompt(&self, request: &Request) -> Result<(Vec<u32>, (usize, usize))> {
        let Request { id, system, user } = request;
        let encoded = self.format.encode(&self.tokenizer, user, system.as_deref());
        let encoded = encoded.with_context(|| format!("encoding row {id}"))?;
        Ok((encoded.tokens, encoded.user))
    }
}

/// A mistake in the words of the file: the number of a row, not the index of a prompt.
pub(crate) fn by_row(error: &GenerateError, id: impl Fn(usize) -> u64) -> Mistake {
    let what = match *error {
        GenerateError::EmptyPrompt { row } => format!("row {} is empty", id(row)),
        GenerateError::PromptTooLong { row, n_tokens, limit } => {
            let id = id(row);
            format!("row {id} has {n_tokens} tokens, the model reads fewer than {limit}")
        }
        GenerateError::NonFiniteLogits { row } => {
            let what = format!("row {}: the model's logits are NaN or infinite", id(row));
            return Mistake::non_finite(what, error.hint().unwrap_or_default());
        }
    };
    Mistake::input(what, error.hint().unwrap_or_default())
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
