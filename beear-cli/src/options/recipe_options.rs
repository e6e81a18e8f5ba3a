//! Options that choose a recipe and change it.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::recipe::{Method, Preset, Recipe, RecipeError};

/// A recipe, and the changes to it.
#[derive(Args, Clone, Debug)]
pub(crate) struct RecipeOptions {
    /// TOML recipe.
    #[arg(long, value_name = "FILE")]
    pub(crate) recipe: Option<PathBuf>,
    #[command(flatten)]
    changes: RecipeChanges,
}

/// Changes to a recipe.
#[derive(Args, Clone, Debug)]
pub(crate) struct RecipeChanges {
    /// Name of the defence, instead of the recipe's `method.name`.
    #[arg(long, value_enum, value_name = "NAME")]
    method: Option<Method>,
    /// Preset of BEEAR's defaults, instead of the recipe's.
    #[arg(long, value_enum)]
    preset: Option<Preset>,
    /// Override of a recipe's setting, such as `method.rounds=8`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    assignments: Vec<String>,
}

impl RecipeOptions {
    /// Reads the recipe and applies the changes.
    ///
    /// # Errors
    ///
    /// [`RecipeError`], a variant per mistake.
    pub(crate) fn read(&self) -> Result<Recipe, RecipeError> {
        self.changes.read(self.recipe.as_deref())
    }
}

impl RecipeChanges {
    /// Reads the recipe at `path`, or the default one without a file, and applies the changes.
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
