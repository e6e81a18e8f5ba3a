//! `beear inspect`: a description of a model folder, without its weights.

use std::path::PathBuf;

use anyhow::Result;
use beear_models::PromptFormatError;
use clap::Args;
use serde_json::json;

use crate::display::console::Console;
use crate::model::Model;
use crate::model::hub::Needed;
use crate::model::loaded::TextSide;

/// Shows the shape and the tokenizer of a model, and a prompt in its format.
#[derive(Args, Clone, Debug)]
pub(crate) struct InspectArgs {
    /// Model folder in Hugging Face form, or org/name[@revision] of the hub.
    #[arg(long, value_name = "DIR|NAME")]
    model: PathBuf,
    /// Built-in prompt format, instead of the chat template.
    #[arg(long, value_name = "NAME")]
    format: Option<String>,
    /// Prompt to render.
    #[arg(long, default_value = "hello")]
    prompt: String,
}

pub(crate) fn run(args: &InspectArgs, console: Console) -> Result<()> {
    let model = Model::find(&args.model, Needed::Everything, console)?;
    let checkpoint = model.open()?;
    let mut value = json!({
        "config": checkpoint.config,
        "weights": checkpoint.config.n_weights(),
        "dtype": checkpoint.dtype()?,
    });
    if let Some(origins) = model.origins() {
        value["hub"] = origins;
    }
    if let Some(adapters) = checkpoint.adapters() {
        value["adapters"] = json!(adapters);
        value["base"] = json!(checkpoint.dir);
    }
    match TextSide::load(&checkpoint.dir, args.format.as_deref()) {
        Ok(text) => {
            let encoded = text.encode_prompt(&args.prompt)?;
            value["vocabulary"] = json!(text.vocab_size());
            value["stop_ids"] = json!(text.stop_ids());
            value["prompt_format_sha256"] = json!(text.format.sha256());
            value["prompt"] = json!(encoded.text);
            value["tokens"] = json!(encoded.tokens);
            value["user_tokens"] = json!([encoded.user.0, encoded.user.1]);
        }
        // A base model has no template; everything else about it can still be shown.
        Err(error) if error.is::<PromptFormatError>() && args.format.is_none() => {
            console.say(&format!("{error}: choose a prompt format with --format"));
        }
        Err(error) => return Err(error),
    }
    console.result(&serde_json::to_string_pretty(&value)?, &value)
}
