//! `beear inspect`: what a checkpoint is, without reading its weights.

use std::path::PathBuf;

use anyhow::Result;
use beear_models::Checkpoint;
use clap::Args;
use serde_json::json;

use crate::loaded::TextSide;
use crate::ui::Ui;

/// Shows a checkpoint's shape, tokenizer and how it reads a prompt.
#[derive(Args, Clone, Debug)]
pub(crate) struct InspectArgs {
    /// Hugging Face folder.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// A built-in prompt format instead of the chat template.
    #[arg(long, value_name = "NAME")]
    format: Option<String>,
    /// The prompt to render.
    #[arg(long, default_value = "hello")]
    prompt: String,
}

pub(crate) fn run(args: &InspectArgs, ui: Ui) -> Result<()> {
    let checkpoint = Checkpoint::open(&args.model)?;
    let text = TextSide::load(&args.model, args.format.as_deref())?;
    let encoded = text.format.encode(&text.tokenizer, &args.prompt, None)?;
    let value = json!({
        "config": checkpoint.config,
        "vocabulary": text.tokenizer.vocab_size(),
        "stop_ids": text.tokenizer.stop_ids(),
        "prompt_format_sha256": text.format.sha256(),
        "prompt": encoded.text,
        "tokens": encoded.tokens,
        "user_tokens": [encoded.user.0, encoded.user.1],
    });
    ui.result(&serde_json::to_string_pretty(&value)?, &value);
    Ok(())
}
