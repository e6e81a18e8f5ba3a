//! `beear generate`: answers to prompts.

use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use beear_models::{GenerateConfig, Sampling};
use clap::Args;

use super::{Device, Inference};
use crate::backend::ComputeBackend;
use crate::loaded::Loaded;
use crate::ui::Ui;

/// Answers prompts with a model.
#[derive(Args, Clone, Debug)]
pub(crate) struct GenerateArgs {
    /// Hugging Face folder.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Prompts; one per line of standard input if none is given.
    prompts: Vec<String>,
    /// A built-in prompt format instead of the chat template.
    #[arg(long, value_name = "NAME")]
    format: Option<String>,
    /// Longest answer, in tokens.
    #[arg(long, default_value_t = 128)]
    max_new_tokens: usize,
    /// Randomness; 0 always takes the most likely token.
    #[arg(long, default_value_t = 0.0)]
    temperature: f64,
    /// Choose among this many most likely tokens only.
    #[arg(long)]
    top_k: Option<usize>,
    /// Choose among the most likely tokens that together have this probability only.
    #[arg(long)]
    top_p: Option<f64>,
    /// Source of randomness.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

pub(crate) fn run<C: ComputeBackend>(
    args: &GenerateArgs,
    device: &Device<C>,
    ui: Ui,
) -> Result<()> {
    let mut prompts = args.prompts.clone();
    if prompts.is_empty() {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("reading prompts")?;
        prompts = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
    }
    ensure!(!prompts.is_empty(), "no prompts");
    let loaded = Loaded::<Inference<C>>::read(&args.model, args.format.as_deref(), device)?;
    let config = GenerateConfig {
        max_new_tokens: args.max_new_tokens,
        sampling: Sampling::Random {
            temperature: args.temperature,
            top_k: args.top_k,
            top_p: args.top_p,
        },
        seed: args.seed,
        batch_size: 32,
    };
    let answers = loaded.text.generate(&loaded.model, &prompts, &config, device)?;
    for (prompt, answer) in prompts.iter().zip(answers) {
        let shown: String = answer.chars().filter(|c| !c.is_control() || *c == '\n').collect();
        ui.result(&shown, &serde_json::json!({ "prompt": prompt, "answer": answer }));
    }
    Ok(())
}
