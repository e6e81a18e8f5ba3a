//! What a defence works on, in a form that another process can read.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::checkpoints::Checkpoints;
use crate::hash::sha256_of_inputs;
use crate::model::{Model, StoredModel};
use crate::run_folder::RunFolder;

/// Whole checkpoints that stay while a run goes on, unless it says otherwise.
const KEPT: usize = 2;

/// What a run works on and how it is kept safe: all that is not in the recipe.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The suspect.
    #[serde(flatten)]
    pub(crate) model: StoredModel,
    /// File of the safety set.
    pub(crate) safety: PathBuf,
    /// File of the performance set.
    pub(crate) performance: PathBuf,
    /// The recipe that was given; whoever goes on has what became of it.
    #[serde(skip)]
    pub(crate) recipe: Option<PathBuf>,
    /// Workers that share every batch.
    pub(crate) workers: NonZeroUsize,
    /// Steps between checkpoints, beside those at the ends of rounds.
    pub(crate) checkpoint_every: Option<NonZeroUsize>,
    /// Whole checkpoints that stay, also when the run is done.
    pub(crate) keep_checkpoints: Option<NonZeroUsize>,
}

impl Job {
    /// The same with paths that mean the same from any folder.
    ///
    /// # Errors
    ///
    /// If the current folder is gone.
    pub(crate) fn absolute(&self) -> Result<Self> {
        let absolute = |path: &PathBuf| std::path::absolute(path);
        Ok(Self {
            safety: absolute(&self.safety)?,
            performance: absolute(&self.performance)?,
            ..self.clone()
        })
    }

    /// Hashes of all it reads, `model` being its model on this machine.
    ///
    /// # Errors
    ///
    /// If a file cannot be read.
    pub(crate) fn hashes(&self, model: &Model) -> Result<Map<String, Value>> {
        let mut files = vec![
            ("--safety", self.safety.as_path()),
            ("--performance", self.performance.as_path()),
        ];
        files.extend(self.recipe.as_deref().map(|path| ("--recipe", path)));
        sha256_of_inputs(Some(model), &files)
    }

    /// Its checkpoints in its folder.
    pub(crate) fn checkpoints(&self, folder: &RunFolder) -> Checkpoints {
        let keep = self.keep_checkpoints.map_or(KEPT, NonZeroUsize::get);
        Checkpoints::of(&folder.path(""), keep)
    }
}
