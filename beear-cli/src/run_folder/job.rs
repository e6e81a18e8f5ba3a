//! Inputs and options of a defence, in a form that another process can read.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Result;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::defence::tracking::Track;
use crate::model::{Model, StoredModel};
use crate::run_folder::RunFolder;
use crate::run_folder::checkpoints::Checkpoints;
use crate::run_folder::hash::sha256_of_inputs;

/// Default number of whole checkpoints that are kept during a run.
const KEPT: usize = 2;

/// Interval between checkpoints, in addition to those on request and at the end of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum CheckpointEvery {
    /// A checkpoint after this many steps of either level.
    Steps(NonZeroUsize),
    /// No checkpoints at all, not even on request or at the end of a round.
    Never(Never),
}

/// The word `never`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Never {
    Never,
}

impl FromStr for CheckpointEvery {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "never" {
            return Ok(Self::Never(Never::Never));
        }
        let steps = text.parse().map(Self::Steps);
        steps.map_err(|_| "expected a number of steps, at least 1, or `never`".to_owned())
    }
}

/// Options for writing and keeping checkpoints.
#[derive(Args, Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct CheckpointOptions {
    /// Steps of either level between checkpoints; there is one at the end of every round anyway.
    /// With `never` there is none at all, no room on the disk is needed for them, and a run that is
    /// stopped starts anew.
    #[arg(long, value_name = "N|never")]
    pub(crate) checkpoint_every: Option<CheckpointEvery>,
    /// Newest checkpoints that stay, when the run is done too; without it two, and none when the
    /// run is done.
    #[arg(long, value_name = "N")]
    pub(crate) keep_checkpoints: Option<NonZeroUsize>,
}

impl CheckpointOptions {
    /// Returns true if checkpoints are written.
    pub(crate) fn are_written(self) -> bool {
        !matches!(self.checkpoint_every, Some(CheckpointEvery::Never(_)))
    }

    /// Returns the number of whole checkpoints that are kept during the run.
    fn kept(self) -> usize {
        self.keep_checkpoints.map_or(KEPT, NonZeroUsize::get)
    }

    /// Returns the maximum number of checkpoints on the disk at a time: an old one is removed when
    /// a new one is whole.
    pub(crate) fn most_at_once(self) -> usize {
        if self.are_written() { self.kept().saturating_add(1) } else { 0 }
    }
}

/// Inputs and options of a run that are not in the recipe.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The suspect.
    #[serde(flatten)]
    pub(crate) model: StoredModel,
    /// Path of the safety set.
    pub(crate) safety: PathBuf,
    /// Path of the performance set.
    pub(crate) performance: PathBuf,
    /// Path of the given recipe. A resumed run has the resolved recipe instead.
    #[serde(skip)]
    pub(crate) recipe: Option<PathBuf>,
    /// Number of workers that share every batch.
    pub(crate) workers: NonZeroUsize,
    /// Options for checkpoints.
    #[serde(flatten)]
    pub(crate) checkpoints: CheckpointOptions,
    /// Prompts that are answered between rounds, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) track: Option<Track>,
}

impl Job {
    /// Returns the job with absolute paths.
    ///
    /// # Errors
    ///
    /// If the current folder no longer exists.
    pub(crate) fn absolute(&self) -> Result<Self> {
        let absolute = |path: &PathBuf| std::path::absolute(path);
        let absolute_track = |track: &Track| {
            absolute(&track.prompts).map(|prompts| Track { prompts, ..track.clone() })
        };
        Ok(Self {
            safety: absolute(&self.safety)?,
            performance: absolute(&self.performance)?,
            track: self.track.as_ref().map(absolute_track).transpose()?,
            ..self.clone()
        })
    }

    /// Returns the hashes of all inputs. `model` is the job's model on this machine.
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
        files.extend(self.track.as_ref().map(|track| ("--track", track.prompts.as_path())));
        sha256_of_inputs(Some(model), &files)
    }

    /// Removes the checkpoints of a run that is over. If the user asked to keep some, only the torn
    /// and the older ones are removed.
    ///
    /// # Errors
    ///
    /// If a checkpoint cannot be removed.
    pub(crate) fn remove_old_checkpoints(&self, folder: &RunFolder) -> Result<()> {
        let checkpoints = self.checkpoints_in(folder);
        match self.checkpoints.keep_checkpoints {
            Some(_) => checkpoints.remove_old(),
            None => checkpoints.remove_all(),
        }
    }

    /// Returns the checkpoints of this job in its folder.
    pub(crate) fn checkpoints_in(&self, folder: &RunFolder) -> Checkpoints {
        Checkpoints::of(&folder.path(""), self.checkpoints.kept())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn checkpoints_come_after_steps_or_never() {
        let steps = CheckpointEvery::Steps(NonZeroUsize::MIN);
        for (text, every, stored) in [
            ("1", steps, json!(1)),
            ("never", CheckpointEvery::Never(Never::Never), json!("never")),
        ] {
            assert_eq!(text.parse(), Ok(every));
            assert_eq!(serde_json::to_value(every).unwrap(), stored);
            assert_eq!(serde_json::from_value::<CheckpointEvery>(stored).unwrap(), every);
        }
        for wrong in ["0", "-1", "", "often"] {
            assert!(wrong.parse::<CheckpointEvery>().is_err(), "{wrong}");
        }
    }
}
