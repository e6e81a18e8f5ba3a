//! `beear recipe schema`: the JSON Schema with which editors complete and check recipes.

use anyhow::Result;
use clap::Args;

use crate::display::console::Console;
use crate::recipe::schema::schema;

/// Prints the JSON Schema of recipes.
///
/// In a file beside a recipe that begins with the line `#:schema ./recipe.schema.json`, editors
/// that support Taplo (such as VS Code with Even Better TOML) complete keys, explain and check
/// them.
#[derive(Args, Clone, Debug)]
pub(crate) struct RecipeSchemaArgs {}

pub(crate) fn run(console: Console) -> Result<()> {
    let schema = schema();
    console.result(&serde_json::to_string_pretty(&schema)?, &schema)
}
