//! `beear recipe check`: checks a recipe without running anything.

use std::path::PathBuf;

use anyhow::Result;
use beear_models::PromptFormat;
use clap::Args;
use serde_json::{Value, json};

use crate::display::console::Console;
use crate::model::Model;
use crate::model::hub::Needed;
use crate::options::recipe_options::RecipeChanges;
use crate::recipe::keyword_list::keyword_list;
use crate::recipe::{ANY_SIZE, Recipe, RecipeError};

/// Checks a recipe and shows its meaning for a model, without running anything.
///
/// Keys and values are checked. With --model, layers are checked too, and every setting is printed
/// as `defend` would use it.
#[derive(Args, Clone, Debug)]
pub(crate) struct RecipeCheckArgs {
    /// TOML recipe.
    #[arg(value_name = "FILE")]
    recipe: PathBuf,
    /// Model folder in Hugging Face form, its `config.json`, or org/name[@revision] of the hub,
    /// that the recipe is for.
    #[arg(long, value_name = "DIR|NAME")]
    model: Option<PathBuf>,
    #[command(flatten)]
    changes: RecipeChanges,
}

pub(crate) fn run(args: &RecipeCheckArgs, console: Console) -> Result<()> {
    let RecipeCheckArgs { recipe: file, model, changes } = args;
    let recipe = changes.read(Some(file))?;
    keyword_list(&recipe.keywords)?;
    recipe.prompt_format.as_deref().map(PromptFormat::builtin).transpose()?;
    let resolved = match model {
        None => {
            // No layer is beyond such a decoder.
            recipe.method(ANY_SIZE)?.validate(usize::MAX)?;
            None
        }
        Some(model) => {
            let size = Model::find(model, Needed::Config, console)?.config()?.size();
            let method = recipe.method(size)?;
            method.validate(size.n_layers)?;
            recipe.scope(size.n_layers)?;
            Some((size.n_layers, recipe.resolved(&method)?))
        }
    };

    let method = method_name(&recipe)?;
    let (n_layers, text) = resolved.unzip();
    let settings = text.as_deref().map(as_json).transpose()?;
    let value = json!({
        "recipe": file,
        "method": method,
        "model": model,
        "layers": n_layers,
        "settings": settings,
    });
    let name = file.display();
    let text = if let (Some(model), Some(n_layers), Some(text)) = (model, n_layers, text) {
        console.say(&format!("`{name}` fits `{}`, which has {n_layers} layers", model.display()));
        text
    } else {
        format!("`{name}` is a recipe for `{method}`; --model judges layers too")
    };
    console.result(&text, &value)
}

/// Returns the name of the method as recipes write it.
fn method_name(recipe: &Recipe) -> Result<String> {
    let name = json!(recipe.method_name()?);
    Ok(name.as_str().unwrap_or_default().to_owned())
}

fn as_json(text: &str) -> Result<Value, RecipeError> {
    let table: toml::Table = text.parse().map_err(crate::recipe::invalid)?;
    Ok(json!(table))
}
