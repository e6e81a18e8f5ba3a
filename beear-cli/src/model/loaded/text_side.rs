//! Text input and output of a model. Whole sets are processed at a time, because each call of the
//! engine costs as much as many texts.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use beear_core::{Example, SafetyExample};
use beear_eval::{Conversation, Message, Role};
use beear_models::text::chat;
use beear_models::{
    BatchLimit, CausalLm, EncodedPrompt, EncodedRow, GenerateConfig, GenerateError, Generation,
    Prompt, PromptFormat, TextEngine, TextEngineError, TextOutput, TextTask, TokenizerFiles,
    Vocabulary, check_prompts, generate,
};
use burn::tensor::backend::Backend;

use super::shared_prompt::of_one_prompt;
use super::{Answer, Prompts, Request};
use crate::model::language_model::EVAL_ROWS;
use crate::model::text_process;
use crate::user_error::UserError;

/// Text input and output of a model.
#[derive(Clone, Debug)]
pub struct TextSide {
    /// Engine that runs the template and the tokenizer.
    engine: Arc<dyn TextEngine>,
    /// Prompt format of training and of every evaluation.
    pub format: PromptFormat,
    /// Rows of the model's embedding, where the model is known.
    n_embeddings: Option<usize>,
}

impl TextSide {
    /// Reads the tokenizer and the template of a folder. `format` names a built-in prompt format
    /// that replaces the template.
    ///
    /// # Errors
    ///
    /// If a file is missing or malformed, or the format is unknown.
    pub fn load(dir: &Path, format: Option<&str>) -> Result<Self> {
        Self::load_with(dir, format.map(PromptFormat::builtin).transpose()?)
    }

    pub(super) fn load_with(dir: &Path, format: Option<PromptFormat>) -> Result<Self> {
        let files = TokenizerFiles::read(dir)?;
        let format = format.map_or_else(|| PromptFormat::from_checkpoint(dir), Ok)?;
        Ok(Self { engine: text_process::engine(files, &format)?, format, n_embeddings: None })
    }

    /// Returns the text side of a model whose embedding has `n_embeddings` rows: other tokens are
    /// errors.
    pub(super) fn of_embedding(self, n_embeddings: usize) -> Self {
        Self { n_embeddings: Some(n_embeddings), ..self }
    }

    /// Returns the ids that end an answer.
    #[must_use]
    pub fn stop_ids(&self) -> &[u32] {
        self.engine.stop_ids()
    }

    /// Returns the number of token ids, including added tokens.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.engine.vocab_size()
    }

    /// Returns the id for text that has no token. Byte-level tokenizers have none.
    pub(crate) fn unknown_id(&self) -> Option<u32> {
        self.engine.unknown_id()
    }

    /// Returns all tokens.
    ///
    /// # Errors
    ///
    /// If the tokenizer fails.
    pub(crate) fn vocabulary(&self) -> Result<Vocabulary> {
        let outputs = self.run(&[TextTask::Vocabulary], |_| None)?;
        let vocabulary = outputs.into_iter().find_map(|output| match output {
            TextOutput::Vocabulary(vocabulary) => Some(vocabulary),
            _ => None,
        });
        Ok(vocabulary.expect(OF_ITS_KIND))
    }

    /// Encodes requests with their answers.
    ///
    /// # Errors
    ///
    /// If the template or the tokenizer fails.
    pub fn examples(&self, rows: &[(Request, &str)]) -> Result<Vec<Example>> {
        let rows: Vec<_> = rows.iter().map(|(request, answer)| (request, [*answer])).collect();
        let encoded = self.with_answers(&rows)?.into_iter();
        Ok(encoded.map(|(id, prompt, [answer])| example(id, prompt, answer)).collect())
    }

    /// Encodes forbidden requests with their wanted and unwanted answers.
    ///
    /// # Errors
    ///
    /// If the template or the tokenizer fails.
    pub fn safety_examples(&self, rows: &[(Request, [&str; 2])]) -> Result<Vec<SafetyExample>> {
        let rows: Vec<_> = rows.iter().map(|(request, answers)| (request, *answers)).collect();
        let encoded = self.with_answers(&rows)?.into_iter();
        let safety = |(id, prompt, [safe, unwanted]): (u64, EncodedPrompt, [Vec<u32>; 2])| {
            SafetyExample::new(example(id, prompt, safe), unwanted)
        };
        Ok(encoded.map(safety).collect())
    }

    /// Encodes requests with `N` answers each, all of them to the same prompt.
    #[expect(clippy::type_complexity, reason = "a row, its prompt and its answers")]
    fn with_answers<const N: usize>(
        &self,
        rows: &[(&Request, [&str; N])],
    ) -> Result<Vec<(u64, EncodedPrompt, [Vec<u32>; N])>> {
        let tasks = rows.iter().flat_map(|(request, answers)| {
            answers.map(|answer| (request.id, request.messages(), answer.to_owned()))
        });
        let mut encoded = self.encode_rows(tasks.collect())?.into_iter();
        let row = |(request, _): &(&Request, [&str; N])| {
            let rows: [EncodedRow; N] =
                std::array::from_fn(|_| encoded.next().expect("a row for each answer"));
            let (prompt, answers) = of_one_prompt(rows);
            (request.id, prompt, answers)
        };
        Ok(rows.iter().map(row).collect())
    }

    /// Encodes conversations with their answers, given with the numbers of their rows.
    ///
    /// # Errors
    ///
    /// If the template or the tokenizer fails.
    fn encode_rows(&self, rows: Vec<(u64, Vec<chat::Message>, String)>) -> Result<Vec<EncodedRow>> {
        let (mut ids, mut tasks) = (Vec::new(), Vec::new());
        for (id, messages, answer) in rows {
            ids.push(id);
            tasks.push(TextTask::Row { messages, answer });
        }
        let row = |output| match output {
            TextOutput::Row(row) => row,
            _ => unreachable!("{OF_ITS_KIND}"),
        };
        Ok(self.run(&tasks, |task| Some(ids[task]))?.into_iter().map(row).collect())
    }

    /// Encodes conversations that end with the assistant's answer, given with the numbers of their
    /// rows.
    ///
    /// # Errors
    ///
    /// If a conversation does not end with an answer, or the template or the tokenizer fails.
    pub(crate) fn answered(&self, conversations: &[Conversation]) -> Result<Vec<Example>> {
        let row = |Conversation { id, messages }: &Conversation| {
            let Some((answer, before)) = messages.split_last() else {
                return Err(UserError::input(format!("row {id} is empty"), "leave it out"));
            };
            if answer.role != Role::Assistant {
                let hint = "its last turn is to be the assistant's";
                return Err(UserError::input(format!("row {id} has no answer"), hint));
            }
            Ok((*id, before.iter().map(message).collect(), answer.content.clone()))
        };
        let rows = conversations.iter().map(row).collect::<Result<Vec<_>, UserError>>()?;
        let rows = self.encode_rows(rows)?.into_iter();
        let example = |(row, Conversation { id, .. }): (EncodedRow, &Conversation)| {
            example(*id, row.prompt, row.answer)
        };
        Ok(rows.zip(conversations).map(example).collect())
    }

    /// Decodes ids to texts without special tokens.
    ///
    /// # Errors
    ///
    /// If the tokenizer fails.
    pub(crate) fn decode<'a>(
        &self,
        rows: impl IntoIterator<Item = &'a [u32]>,
    ) -> Result<Vec<String>> {
        let tasks: Vec<_> = rows.into_iter().map(|ids| TextTask::Decode(ids.to_vec())).collect();
        let text = |output| match output {
            TextOutput::Text(text) => text,
            _ => unreachable!("{OF_ITS_KIND}"),
        };
        Ok(self.run(&tasks, |_| None)?.into_iter().map(text).collect())
    }

    /// Generates greedy answers of at most `max_new_tokens` tokens.
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

    /// Generates answers with the settings of `config`.
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
        let encoded = self.encode(requests)?.into_iter();
        let tokens: Vec<Vec<u32>> = encoded.map(|prompt| prompt.tokens).collect();
        let generations =
            generate(model, &Prompt::numbered(&tokens), self.stop_ids(), config, device)
                .map_err(|error| by_row(&error, |row| requests[row].id))?;
        let texts =
            self.decode(generations.iter().map(|generation| generation.tokens.as_slice()))?;
        let answer = |(text, Generation { finish, .. })| Answer { text, finish };
        Ok(texts.into_iter().zip(generations).map(answer).collect())
    }

    /// Encodes requests to tokens, each with the part that the user wrote as a half-open range.
    ///
    /// # Errors
    ///
    /// If a request cannot be encoded, is empty, or leaves no room for an answer within `limit`
    /// tokens.
    pub(crate) fn prompts(&self, requests: &[Request], limit: usize) -> Result<Prompts> {
        let prompts = self.encode(requests)?.into_iter();
        let (tokens, users): (Vec<_>, Vec<_>) = prompts.map(|p| (p.tokens, p.user)).unzip();
        let each = tokens.iter().map(Vec::as_slice);
        check_prompts(each, limit).map_err(|error| by_row(&error, |row| requests[row].id))?;
        Ok(Prompts { tokens, users })
    }

    /// Encodes conversations and checks that each leaves room for an answer.
    ///
    /// # Errors
    ///
    /// If a conversation cannot be encoded, is empty, or leaves no room within `limit` tokens.
    pub(crate) fn chats(
        &self,
        conversations: &[Conversation],
        limit: usize,
    ) -> Result<Vec<EncodedPrompt>> {
        let asked = conversations.iter().map(|c| (c.id, c.messages.as_slice()));
        let chats = self.encode_chats(&asked.collect::<Vec<_>>())?;
        let each = chats.iter().map(|chat| chat.tokens.as_slice());
        check_prompts(each, limit).map_err(|error| by_row(&error, |row| conversations[row].id))?;
        Ok(chats)
    }

    /// Encodes conversations, given with the numbers of their rows, up to the beginning of the next
    /// answer.
    ///
    /// # Errors
    ///
    /// If a conversation cannot be encoded, or its last turn is not the user's.
    pub(crate) fn encode_chats(
        &self,
        conversations: &[(u64, &[Message])],
    ) -> Result<Vec<EncodedPrompt>> {
        let task = |(_, messages): &(u64, &[Message])| {
            TextTask::Prompt(messages.iter().map(message).collect())
        };
        let tasks: Vec<TextTask> = conversations.iter().map(task).collect();
        let prompt = |output| match output {
            TextOutput::Prompt(prompt) => prompt,
            _ => unreachable!("{OF_ITS_KIND}"),
        };
        let outputs = self.run(&tasks, |task| Some(conversations[task].0))?;
        Ok(outputs.into_iter().map(prompt).collect())
    }

    /// Encodes a prompt that belongs to no row.
    ///
    /// # Errors
    ///
    /// If the template or the tokenizer fails.
    pub(crate) fn encode_prompt(&self, prompt: &str) -> Result<EncodedPrompt> {
        let request = Request { user: prompt.to_owned(), ..Request::default() };
        let outputs = self.run(&[prompt_task(&request)], |_| None)?;
        let encoded = outputs.into_iter().find_map(|output| match output {
            TextOutput::Prompt(prompt) => Some(prompt),
            _ => None,
        });
        Ok(encoded.expect(OF_ITS_KIND))
    }

    /// Encodes requests.
    ///
    /// # Errors
    ///
    /// If the template or the tokenizer fails.
    pub(crate) fn encode(&self, requests: &[Request]) -> Result<Vec<EncodedPrompt>> {
        let tasks: Vec<TextTask> = requests.iter().map(prompt_task).collect();
        let prompt = |output| match output {
            TextOutput::Prompt(prompt) => prompt,
            _ => unreachable!("{OF_ITS_KIND}"),
        };
        let outputs = self.run(&tasks, |task| Some(requests[task].id))?;
        Ok(outputs.into_iter().map(prompt).collect())
    }

    /// Runs tasks. `row` gives the row of a task, for messages.
    fn run(
        &self,
        tasks: &[TextTask],
        row: impl Fn(usize) -> Option<u64>,
    ) -> Result<Vec<TextOutput>> {
        let outputs = self.engine.run(tasks).map_err(|failed| {
            let error = match failed.error {
                TextEngineError::Format(error) => anyhow::Error::new(error),
                error => error.into(),
            };
            match row(failed.task) {
                Some(id) => error.context(format!("encoding row {id}")),
                None => error,
            }
        })?;
        for (task, output) in outputs.iter().enumerate() {
            self.check_embedded(output, row(task))?;
        }
        Ok(outputs)
    }

    /// Reports the first token that has no row of the embedding.
    fn check_embedded(&self, output: &TextOutput, row: Option<u64>) -> Result<()> {
        let (prompt, answer) = match output {
            TextOutput::Prompt(prompt) => (prompt, [].as_slice()),
            TextOutput::Row(row) => (&row.prompt, row.answer.as_slice()),
            TextOutput::Text(_) | TextOutput::Vocabulary(_) => return Ok(()),
        };
        let Some(n_embeddings) = self.n_embeddings else { return Ok(()) };
        let mut ids = prompt.tokens.iter().chain(answer);
        let Some(id) = ids.find(|id| **id as usize >= n_embeddings) else { return Ok(()) };
        let vocabulary = self.vocabulary()?;
        let token = vocabulary.tokens.get(*id as usize).cloned().flatten().unwrap_or_default();
        let place = row.map(|row| format!("row {row}: ")).unwrap_or_default();
        let what = format!(
            "{place}token `{token}` has id {id}, and the model's embedding has {n_embeddings} rows"
        );
        let hint = "resize the embeddings with model.resize_token_embeddings(len(tokenizer)), or bring the model's own tokenizer";
        Err(UserError::input(what, hint).into())
    }
}

/// Reason of panics: the guarantee of [`TextEngine::run`].
const OF_ITS_KIND: &str = "an output is of the kind of its task";

fn prompt_task(request: &Request) -> TextTask {
    TextTask::Prompt(request.messages())
}

pub(super) fn message(message: &Message) -> chat::Message {
    chat::Message { role: message.role.name().to_owned(), content: message.content.clone() }
}

fn example(
    id: u64,
    EncodedPrompt { tokens, user, .. }: EncodedPrompt,
    answer: Vec<u32>,
) -> Example {
    Example { id, prompt: tokens, user, answer }
}

/// Converts an error: people get the number of the row in the file, not the index of a prompt.
pub(crate) fn by_row(error: &GenerateError, id: impl Fn(usize) -> u64) -> UserError {
    let what = match *error {
        GenerateError::EmptyPrompt { row } => format!("row {} is empty", id(row)),
        GenerateError::PromptTooLong { row, n_tokens, limit } => {
            let id = id(row);
            format!("row {id} has {n_tokens} tokens, the model reads fewer than {limit}")
        }
        GenerateError::NonFiniteLogits { row } => {
            let what = format!("row {}: the model's logits are NaN or infinite", id(row));
            return UserError::non_finite(what, error.hint().unwrap_or_default());
        }
    };
    UserError::input(what, error.hint().unwrap_or_default())
}
