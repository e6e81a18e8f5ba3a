//! Batched generation with left padding, a key-value cache, and an end for every row.

use std::sync::Mutex;

use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Tensor, TensorData};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::generation::batching::{BatchLimit, width};
use crate::generation::sampling::Sampling;
use crate::nn::causal_lm::CausalLm;
use crate::nn::kv_cache::KvCache;

/// Settings of generation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GenerateConfig {
    /// Maximum number of new tokens per prompt.
    pub max_new_tokens: usize,
    /// Choice of each token.
    pub sampling: Sampling,
    /// Seed of the sampling, together with a prompt's stream; independent of the batch.
    pub seed: u64,
    /// Maximum number of prompts per batch; prompts are grouped by length.
    pub batch_size: usize,
    /// Maximum number of bytes of all concurrent batches besides the weights; None for no limit.
    /// Batches have fewer prompts if necessary. A single prompt is always continued.
    pub memory: Option<u64>,
    /// Number of concurrent batches, on threads of rayon's pool: the cores of a CPU, 1 on a GPU.
    pub n_workers: usize,
}

impl GenerateConfig {
    /// Creates settings for greedy decoding, one batch at a time.
    #[must_use]
    pub fn greedy(max_new_tokens: usize, limit: BatchLimit) -> Self {
        let BatchLimit { rows: batch_size, bytes: memory } = limit;
        let sampling = Sampling::Greedy;
        Self { max_new_tokens, sampling, seed: 0, batch_size, memory, n_workers: 1 }
    }
}

/// Prompt to be continued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prompt<'a> {
    /// Tokens to continue.
    pub tokens: &'a [u32],
    /// Index of the prompt's stream of random numbers, for [`GenerateConfig::seed`].
    pub stream: u64,
}

impl<'a> Prompt<'a> {
    /// Creates prompts with their own streams, numbered from 0.
    pub fn numbered(tokens: impl IntoIterator<Item = &'a Vec<u32>>) -> Vec<Self> {
        (0..).zip(tokens).map(|(stream, tokens)| Self { tokens, stream }).collect()
    }
}

/// Reason for the end of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model generated a stop token.
    Stop,
    /// The maximum length or the context was reached.
    Length,
}

/// Continuation of one prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// New tokens, without the stop token.
    pub tokens: Vec<u32>,
    /// Reason for the end.
    pub finish: Finish,
}

/// Error of continuing a prompt or scoring an answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GenerateError {
    /// A prompt has no tokens.
    #[error("prompt {row} is empty")]
    EmptyPrompt {
        /// Index of the prompt.
        row: usize,
    },
    /// A prompt fills the whole context.
    #[error("prompt {row} has {n_tokens} tokens, the model reads fewer than {limit}")]
    PromptTooLong {
        /// Index of the prompt.
        row: usize,
        /// Number of tokens of the prompt.
        n_tokens: usize,
        /// Context length of the model, in tokens.
        limit: usize,
    },
    /// A logit used to choose or score a token is NaN or infinite.
    #[error("prompt {row}: the model's logits are NaN or infinite")]
    NonFiniteLogits {
        /// Index of the prompt.
        row: usize,
    },
}

impl GenerateError {
    /// Returns a one-line suggestion for fixing the error.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::EmptyPrompt { .. } => "leave it out: its format and its text make no token",
            Self::PromptTooLong { .. } => "shorten the prompt or leave it out",
            Self::NonFiniteLogits { .. } => {
                "the model is broken, or its values do not fit the backend's float type"
            }
        })
    }
}

/// Checks prompts for a model with a context of `limit` tokens.
///
/// # Errors
///
/// Returns [`GenerateError`] if a prompt is empty or leaves no room for an answer.
pub fn check_prompts<'a>(
    prompts: impl IntoIterator<Item = &'a [u32]>,
    limit: usize,
) -> Result<(), GenerateError> {
    for (row, prompt) in prompts.into_iter().enumerate() {
        let n_tokens = prompt.len();
        if n_tokens == 0 {
            return Err(GenerateError::EmptyPrompt { row });
        }
        if n_tokens >= limit {
            return Err(GenerateError::PromptTooLong { row, n_tokens, limit });
        }
    }
    Ok(())
}

/// Continues every prompt; the results are in the order of the prompts.
///
/// # Errors
///
/// Returns [`GenerateError`] if a prompt is empty or leaves no room for an answer, or logits are
/// NaN or infinite.
///
/// # Panics
///
/// Panics if the backend does.
pub fn generate<B: Backend>(
    model: &CausalLm<B>,
    prompts: &[Prompt<'_>],
    stop: &[u32],
    config: &GenerateConfig,
    device: &B::Device,
) -> Result<Vec<Generation>, GenerateError> {
    generate_with_progress(model, prompts, (stop, config), device, &|_| {})
}

/// Continues every prompt like [`generate`], and passes each finished batch to `progress`.
///
/// # Errors
///
/// Returns [`GenerateError`] if a prompt is empty or leaves no room for an answer, or logits are
/// NaN or infinite.
///
/// # Panics
///
/// Panics if the backend or `progress` does.
pub fn generate_with_progress<B: Backend>(
    model: &CausalLm<B>,
    prompts: &[Prompt<'_>],
    (stop, config): (&[u32], &GenerateConfig),
    device: &B::Device,
    progress: &(dyn Fn(&[Generation]) + Sync),
) -> Result<Vec<Generation>, GenerateError> {
    let limit = model.config().max_seq_length;
    check_prompts(prompts.iter().map(|prompt| prompt.tokens), limit)?;
    let mut order: Vec<usize> = (0..prompts.len()).collect();
    order.sort_by_key(|&row| prompts[row].tokens.len());
    let n_batches = order.len().div_ceil(config.batch_size.max(1));
    let n_workers = config.n_workers.clamp(1, n_batches.max(1));
    let bytes = config.memory.map(|bytes| bytes / n_workers as u64);
    let batches = BatchLimit { rows: config.batch_size, bytes }.cut(&order, |rows| {
        let longest = rows.iter().map(|&row| prompts[row].tokens.len()).max().unwrap_or(0);
        let shape = [rows.len(), longest, config.max_new_tokens];
        model.config().needed_by_generation(shape).bytes(width::<B>())
    });
    let batches = Mutex::new(batches.into_iter());
    let work = || {
        let mut done: Vec<Result<(usize, Generation), GenerateError>> = Vec::new();
        let next = || batches.lock().expect("nothing panics while it takes a batch").next();
        while let Some(rows) = next() {
            let mut batch: Vec<Row> =
                rows.iter().map(|&row| Row::new(prompts[row], config)).collect();
            if let Err(place) = continue_batch(model, &mut batch, stop, config, device) {
                done.push(Err(GenerateError::NonFiniteLogits { row: rows[place] }));
                break;
            }
            let generations: Vec<Generation> = batch.into_iter().map(Row::finish).collect();
            progress(&generations);
            done.extend(rows.iter().copied().zip(generations).map(Ok));
        }
        done
    };
    let done = if n_workers <= 1 {
        work()
    } else {
        (0..n_workers).into_par_iter().flat_map_iter(|_| work()).collect()
    };
    let mut done = done.into_iter().collect::<Result<Vec<_>, _>>()?;
    done.sort_by_key(|(row, _)| *row);
    Ok(done.into_iter().map(|(_, generation)| generation).collect())
}

/// Row of a batch in progress.
struct Row<'a> {
    prompt: &'a [u32],
    new: Vec<u32>,
    finish: Finish,
    done: bool,
    rng: ChaCha8Rng,
}

impl<'a> Row<'a> {
    fn new(prompt: Prompt<'a>, config: &GenerateConfig) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        rng.set_stream(prompt.stream);
        let prompt = prompt.tokens;
        let done = config.max_new_tokens == 0;
        Self { prompt, new: Vec::new(), finish: Finish::Length, done, rng }
    }

    fn finish(self) -> Generation {
        Generation { tokens: self.new, finish: self.finish }
    }

    fn take(&mut self, token: u32, stop: &[u32], (most, limit): (usize, usize)) {
        if stop.contains(&token) {
            (self.finish, self.done) = (Finish::Stop, true);
            return;
        }
        self.new.push(token);
        self.done = self.new.len() >= most || self.prompt.len() + self.new.len() >= limit;
    }
}

/// Continues every row to its end.
///
/// # Errors
///
/// Returns the index of the row whose logits are NaN or infinite.
fn continue_batch<B: Backend>(
    model: &CausalLm<B>,
    batch: &mut [Row<'_>],
    stop: &[u32],
    config: &GenerateConfig,
    device: &B::Device,
) -> Result<(), usize> {
    let limits = (config.max_new_tokens, model.config().max_seq_length);
    let longest = batch.iter().map(|row| row.prompt.len()).max().unwrap_or(0);
    let mut tokens = Vec::with_capacity(batch.len() * longest);
    let mut mask_pad = Vec::with_capacity(batch.len() * longest);
    for row in batch.iter() {
        let padding = longest - row.prompt.len();
        tokens.extend(std::iter::repeat_n(0, padding));
        tokens.extend(row.prompt.iter().map(|&token| i64::from(token)));
        mask_pad.extend((0..longest).map(|position| position < padding));
    }
    let data = TensorData::new(mask_pad, [batch.len(), longest]);
    let mut mask_pad = Tensor::<B, 2, Bool>::from_data(data, device);
    let real = Tensor::<B, 2, Bool>::from_data(
        TensorData::new(vec![false; batch.len()], [batch.len(), 1]),
        device,
    );
    let mut cache = KvCache::new(model.config().n_layers);
    let mut n_new = longest;
    while batch.iter().any(|row| !row.done) {
        let data = TensorData::new(std::mem::take(&mut tokens), [batch.len(), n_new]);
        let input = Tensor::from_data(data, device);
        let logits = model.forward_cached(input, &mask_pad, &mut cache).into_data();
        let logits: Vec<f32> = logits.iter::<f32>().collect();
        let each = batch.iter_mut().zip(logits.chunks(model.config().vocab_size));
        for (place, (row, logits)) in each.enumerate() {
            if row.done {
                tokens.push(0);
                continue;
            }
            if !logits.iter().all(|logit| logit.is_finite()) {
                return Err(place);
            }
            let token = config.sampling.choose(logits, &mut row.rng);
            row.take(token, stop, limits);
            tokens.push(i64::from(token));
        }
        n_new = 1;
        mask_pad = Tensor::cat(vec![mask_pad, real.clone()], 1);
    }
    Ok(())
}
