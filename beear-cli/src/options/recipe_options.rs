//! The options that choose a recipe and change it.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::recipe::{Method, Preset, Recipe, RecipeError};

/// A recipe, and what is laid over it.
#[derive(Args, Clone, Debug)]
pub(crate) struct RecipeOptions {
    /// TOML recipe.
    #[arg(long, value_name = "FILE")]
    pub(crate) recipe: Option<PathBuf>,
    #[command(flatten)]
    changes: RecipeChanges,
}

/// What is laid over a recipe.
#[derive(Args, Clone, Debug)]
pub(crate) struct RecipeChanges {
    /// The defence, instead of the recipe's `method.name`.
    #[arg(long, value_enum, value_name = "NAME")]
    method: Option<Method>,
    /// Defaults of BEEAR, instead of the recipe's.
    #[arg(long, value_enum)]
    preset: Option<Preset>,
    /// Override of the recipe, such as `method.rounds=8`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    assignments: Vec<String>,
}

impl RecipeOptions {
    /// The recipe with all that is given here on top.
    ///
    /// # Errors
    ///
    /// [`RecipeError`], a variant per mistake.
    pub(crate) fn read(&self) -> Result<Recipe, RecipeError> {
        self.changes.read(self.recipe.as_deref())
    }
}

impl RecipeChanges {
    /// The recipe at `path`, the default one without a file, with all that is given here on top.
    ///
    /// # Errors
    ///
    /// [`RecipeError`], a variant per mistake.
    pub(crate) fn read(&self, path: Option<&Path>) -> Result<Recipe, RecipeError> {
        let mut assignments = self.assignments.clone();
        if let Some(name) = self.method.and_then(|method| method.to_possible_value()) {
            assignments.push(format!("method.name={}", name.get_name()));
        }
        Recipe::read(path, self.preset, &assignments)
    }
}
