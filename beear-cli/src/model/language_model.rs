//! Adapter from a loaded model to the [`LanguageModel`] trait of the evaluations.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Result;
use beear_core::Example;
use beear_eval::{Completion, Conversation, Decoding, Finish, LanguageModel, LogLikelihood};
use beear_models::activations::{BatchShape, Numbers};
use beear_models::{
    BatchLimit, GenerateConfig, Generation, Prompt, Sampling, generate_with_progress,
    log_likelihoods,
};
use burn::tensor::backend::Backend;

use crate::backend::{ComputeBackend, width_of};
use crate::command::{Device, Inference};
use crate::display::console::Console;
use crate::memory::room::Room;
use crate::model::loaded::{Loaded, by_row};
use crate::user_error::UserError;

/// Maximum number of rows in a batch.
pub(crate) const EVAL_ROWS: usize = 64;

/// Maximum number of rows in a batch of `beear generate`.
pub(crate) const GENERATE_ROWS: usize = 32;

/// A model in memory that shows its progress.
pub(crate) struct Local<'a, B: Backend> {
    pub(crate) loaded: &'a Loaded<B>,
    pub(crate) device: &'a B::Device,
    pub(crate) console: Console,
    n_workers: usize,
    room: Room,
}

/// Wraps a loaded model as a language model.
pub(crate) fn local<'a, C: ComputeBackend>(
    loaded: &'a Loaded<Inference<C>>,
    device: &'a Device<C>,
    console: Console,
) -> Local<'a, Inference<C>> {
    Local {
        loaded,
        device,
        console,
        n_workers: C::n_workers(),
        room: Room::default_of::<C>(device),
    }
}

impl<B: Backend> Local<'_, B> {
    /// Limits the batches to `room`.
    pub(crate) fn within(self, room: Room) -> Self {
        Self { room, ..self }
    }
}

impl<B: Backend> LanguageModel for Local<'_, B> {
    type Error = anyhow::Error;

    fn generate(
        &self,
        conversations: &[Conversation],
        decoding: &Decoding,
    ) -> Result<Vec<Completion>> {
        let Loaded { checkpoint, model, text } = self.loaded;
        let chats = text.chats(conversations, checkpoint.config.max_seq_length)?;
        let config = GenerateConfig {
            max_new_tokens: decoding.max_new_tokens,
            sampling: Sampling::Random {
                temperature: decoding.temperature,
                top_k: None,
                top_p: None,
            },
            seed: decoding.seed,
            batch_size: EVAL_ROWS,
            memory: self.room.bytes,
            n_workers: self.n_workers,
        };
        let prompts = chats.iter().zip(conversations);
        let prompts = prompts.map(|(chat, c)| Prompt { tokens: &chat.tokens, stream: c.id });
        let prompts: Vec<Prompt<'_>> = prompts.collect();
        let longest = prompts.iter().map(|prompt| prompt.tokens.len()).max().unwrap_or(0);
        let row = [1, longest, config.max_new_tokens];
        self.check_row(checkpoint.config.needed_by_generation(row))?;
        let (bar, started) = (self.console.bar("answering", chats.len()), Instant::now());
        let n_tokens = AtomicUsize::new(0);
        let progress = |batch: &[Generation]| {
            let n_new: usize = batch.iter().map(|generation| generation.tokens.len()).sum();
            let n_tokens = n_new + n_tokens.fetch_add(n_new, Ordering::Relaxed);
            let rate = n_tokens as f64 / started.elapsed().as_secs_f64();
            bar.set_message(format!("{rate:.0} tokens/s"));
            bar.inc(batch.len() as u64);
        };
        let stop = text.stop_ids();
        let generations =
            generate_with_progress(model, &prompts, (stop, &config), self.device, &progress)
                .map_err(|error| by_row(&error, |row| conversations[row].id))?;
        bar.finish_and_clear();
        let texts = text.decode(generations.iter().map(|g| g.tokens.as_slice()))?;
        let completion = |(text, generation): (String, Generation)| Completion {
            text,
            finish: finish(generation.finish),
        };
        Ok(texts.into_iter().zip(generations).map(completion).collect())
    }

    fn log_likelihood(&self, conversations: &[Conversation]) -> Result<Vec<LogLikelihood>> {
        let limit = self.loaded.checkpoint.config.max_seq_length;
        let examples = self.examples(conversations, limit)?;
        let bar = self.console.bar("reading", examples.len());
        let mut likelihoods = Vec::with_capacity(examples.len());
        let each = examples.iter().map(|example| BatchShape::of([example].into_iter()));
        let needed = each.map(|row| self.loaded.checkpoint.config.needed_by_scoring(row));
        self.check_row(needed.fold(Numbers::default(), Numbers::or_more))?;
        let limit = BatchLimit { rows: EVAL_ROWS, bytes: self.room.bytes };
        for chunk in examples.chunks(EVAL_ROWS) {
            let found = log_likelihoods(&self.loaded.model, chunk, limit, self.device)
                .map_err(|error| by_row(&error, |row| chunk[row].id))?;
            let port = |found: &beear_models::LogLikelihood| LogLikelihood {
                nats: found.nats,
                n_tokens: found.n_tokens,
            };
            likelihoods.extend(found.iter().map(port));
            bar.inc(chunk.len() as u64);
        }
        bar.finish_and_clear();
        Ok(likelihoods)
    }
}

impl<B: Backend> Local<'_, B> {
    /// Reports a longest row that alone needs more than the memory.
    fn check_row(&self, needed: Numbers) -> Result<(), UserError> {
        self.room.check_row(needed.bytes(width_of::<B>()), self.console)
    }

    /// Encodes conversations with their last answers, each within `limit` tokens.
    fn examples(&self, conversations: &[Conversation], limit: usize) -> Result<Vec<Example>> {
        let examples = self.loaded.text.answered(conversations)?;
        for Example { id, prompt, answer, .. } in &examples {
            let n_tokens = prompt.len() + answer.len() - 1;
            if n_tokens > limit {
                let what = format!(
                    "row {id} has {n_tokens} tokens with its answer, the model reads {limit}"
                );
                return Err(UserError::input(what, "shorten the row or leave it out").into());
            }
        }
        Ok(examples)
    }
}

fn finish(finish: beear_models::Finish) -> Finish {
    match finish {
        beear_models::Finish::Stop => Finish::Stop,
        beear_models::Finish::Length => Finish::Length,
    }
}
