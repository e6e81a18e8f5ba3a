//! A checkpoint behind the port of evaluation.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Result;
use beear_core::Example;
use beear_eval::{Completion, Conversation, Decoding, Finish, LanguageModel, LogLikelihood, Role};
use beear_models::{
    EncodedChat, GenerateConfig, Generation, Prompt, Sampling, generate_with_progress,
    log_likelihoods,
};
use burn::tensor::backend::Backend;

use crate::backend::ComputeBackend;
use crate::command::{Device, Inference};
use crate::exit::Mistake;
use crate::loaded::Loaded;
use crate::ui::Ui;

/// Prompts per forward pass.
const BATCH_SIZE: usize = 64;

/// A checkpoint in memory that shows how far it is.
pub(crate) struct Local<'a, B: Backend> {
    pub(crate) loaded: &'a Loaded<B>,
    pub(crate) device: &'a B::Device,
    pub(crate) ui: Ui,
    n_workers: usize,
}

/// A checkpoint as a language model.
pub(crate) fn local<'a, C: ComputeBackend>(
    loaded: &'a Loaded<Inference<C>>,
    device: &'a Device<C>,
    ui: Ui,
) -> Local<'a, Inference<C>> {
    Local { loaded, device, ui, n_workers: C::n_workers() }
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
            batch_size: BATCH_SIZE,
            n_workers: self.n_workers,
        };
        let prompts = chats.iter().zip(conversations);
        let prompts = prompts.map(|(chat, c)| Prompt { tokens: &chat.tokens, stream: c.id });
        let prompts: Vec<Prompt<'_>> = prompts.collect();
        let (bar, started) = (self.ui.bar("answering", chats.len()), Instant::now());
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
            generate_with_progress(model, &prompts, (stop, &config), self.device, &progress)?;
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
        let bar = self.ui.bar("reading", examples.len());
        let mut likelihoods = Vec::with_capacity(examples.len());
        for chunk in examples.chunks(BATCH_SIZE) {
            let found = log_likelihoods(&self.loaded.model, chunk, BATCH_SIZE, self.device);
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
    /// Conversations as their last answers and what comes before those.
    fn examples(&self, conversations: &[Conversation], limit: usize) -> Result<Vec<Example>> {
        let (mut asked, mut answers) = (Vec::new(), Vec::new());
        for Conversation { id, messages } in conversations {
            let Some((answer, before)) = messages.split_last() else {
                return Err(Mistake::input(format!("row {id} is empty"), "leave it out").into());
            };
            if answer.role != Role::Assistant {
                let hint = "its last turn is to be the assistant's";
                return Err(Mistake::input(format!("row {id} has no answer"), hint).into());
            }
            asked.push((*id, before));
            answers.push(answer.content.as_str());
        }
        let text = &self.loaded.text;
        let prompts = text.encode_chats(&asked)?;
        let answers = text.encode_answers(answers, |row| conversations[row].id)?;
        let example = |((&(id, _), chat), answer): ((&(u64, _), EncodedChat), Vec<u32>)| {
            let prompt = chat.tokens;
            let n_tokens = prompt.len() + answer.len() - 1;
            if n_tokens > limit {
                let what = format!(
                    "row {id} has {n_tokens} tokens with its answer, the model reads {limit}"
                );
                return Err(Mistake::input(what, "shorten the row or leave it out").into());
            }
            let user = (0, prompt.len());
            Ok(Example { id, prompt, user, answer })
        };
        asked.iter().zip(prompts).zip(answers).map(example).collect()
    }
}

fn finish(finish: beear_models::Finish) -> Finish {
    match finish {
        beear_models::Finish::Stop => Finish::Stop,
        beear_models::Finish::Length => Finish::Length,
    }
}
