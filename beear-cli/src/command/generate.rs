//! `beear generate`: answers to prompts.

use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result};
use beear_eval::dataset;
use beear_models::{GenerateConfig, PromptFormat, Sampling};
use clap::Args;
use serde_json::json;

use super::{Device, Inference};
use crate::backend::{ComputeBackend, width};
use crate::display::console::Console;
use crate::memory::room::{MemoryArgs, Room};
use crate::model::Model;
use crate::model::hub::Needed;
use crate::model::language_model::GENERATE_ROWS;
use crate::model::loaded::{Answer, Loaded, Request};
use crate::user_error::UserError;

/// Answers prompts with a model.
#[derive(Args, Clone, Debug)]
pub(crate) struct GenerateArgs {
    /// Model folder in Hugging Face form, or org/name[@revision] of the hub.
    #[arg(long, value_name = "DIR|NAME")]
    model: PathBuf,
    /// Prompts; if none is given, one per line of standard input.
    #[arg(conflicts_with = "file")]
    prompts: Vec<String>,
    /// Prompts from a data set: CSV of AdvBench, HarmBench or StrongREJECT; JSON or JSONL of
    /// Alpaca, chat, ShareGPT or preference rows, or of `prompt`.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Built-in prompt format, instead of the chat template.
    #[arg(long, value_name = "NAME", conflicts_with = "raw")]
    format: Option<String>,
    /// Continue the text without a prompt format; only the begin of sequence is added.
    #[arg(long)]
    raw: bool,
    /// Maximum length of an answer, in tokens.
    #[arg(long, default_value_t = 128)]
    max_new_tokens: usize,
    /// Randomness of the choice of tokens; 0 always takes the most likely one.
    #[arg(long, default_value_t = 0.0)]
    temperature: f64,
    /// Number of most likely tokens to choose among.
    #[arg(long)]
    top_k: Option<usize>,
    /// Total probability of the most likely tokens to choose among.
    #[arg(long)]
    top_p: Option<f64>,
    /// Source of randomness.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    memory: MemoryArgs,
}

impl GenerateArgs {
    fn requests(&self) -> Result<Vec<Request>> {
        if let Some(path) = &self.file {
            return Ok(dataset::read(path)?.iter().map(Request::from).collect());
        }
        if !self.prompts.is_empty() {
            return Ok(Request::numbered(self.prompts.clone()));
        }
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("reading standard input")?;
        let lines = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned);
        Ok(Request::numbered(lines))
    }

    fn config<C: ComputeBackend>(&self) -> Result<GenerateConfig, UserError> {
        let sensible = self.temperature.is_finite()
            && self.temperature >= 0.0
            && self.top_k != Some(0)
            && self.top_p.is_none_or(|p| p > 0.0 && p <= 1.0);
        if !sensible {
            let hint = "--temperature is 0 or more, --top-k 1 or more, --top-p in 0..=1 and not 0";
            return Err(UserError::arguments("no token can be chosen like this", hint));
        }
        let (temperature, top_k, top_p) = (self.temperature, self.top_k, self.top_p);
        Ok(GenerateConfig {
            max_new_tokens: self.max_new_tokens,
            sampling: Sampling::Random { temperature, top_k, top_p },
            seed: self.seed,
            batch_size: GENERATE_ROWS,
            memory: None,
            n_workers: C::n_workers(),
        })
    }
}

fn answers<C: ComputeBackend>(
    loaded: &Loaded<Inference<C>>,
    requests: &[Request],
    (config, room): (GenerateConfig, Room),
    (device, console): (&Device<C>, Console),
) -> Result<Vec<Answer>> {
    let decoder = &loaded.checkpoint.config;
    let prompts = loaded.text.prompts(requests, decoder.max_seq_length)?;
    let longest = prompts.tokens.iter().map(Vec::len).max().unwrap_or(0);
    let row = decoder.needed_by_generation([1, longest, config.max_new_tokens]);
    room.check_row(row.bytes(width::<C>()), console)?;
    let config = GenerateConfig { memory: room.bytes, ..config };
    loaded.text.generate(&loaded.model, requests, &config, device)
}

pub(crate) fn run<C: ComputeBackend>(
    args: &GenerateArgs,
    device: &Device<C>,
    console: Console,
) -> Result<()> {
    let (config, requests) = (args.config::<C>()?, args.requests()?);
    if requests.is_empty() {
        let hint = "name prompts, a --file, or write them to standard input";
        return Err(UserError::arguments("no prompts", hint).into());
    }
    let pattern = args.raw.then(|| PromptFormat::pattern("{prompt}")).transpose()?;
    let builtin = args.format.as_deref().map(PromptFormat::builtin).transpose()?;
    let format = pattern.or(builtin);
    let model = Model::find(&args.model, Needed::Everything, console)?;
    let loaded = Loaded::<Inference<C>>::read_with(&model, format, device)?;
    let room = args.memory.room::<C>(&loaded.checkpoint.config, device)?;
    let answers = answers::<C>(&loaded, &requests, (config, room), (device, console));
    let answers = match &args.file {
        Some(file) => answers.with_context(|| format!("`{}`", file.display()))?,
        None => answers?,
    };
    for (request, answer) in requests.iter().zip(answers) {
        let value = json!({
            "id": request.id,
            "prompt": request.user,
            "answer": answer.text,
            "finish": answer.finish,
        });
        console.result(&answer.text, &value)?;
    }
    Ok(())
}
