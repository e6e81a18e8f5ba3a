//! What a defence works on, in a form that another process can read.

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

/// Whole checkpoints that stay while a run goes on, unless it says otherwise.
const KEPT: usize = 2;

/// When a run writes checkpoints, besides when it is asked to and at the end of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum CheckpointEvery {
    /// After so many steps of either level.
    Steps(NonZeroUsize),
    /// Not at all, not even then.
    Never(Never),
}

/// The word for it.
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

/// Which checkpoints a run writes, and which of them stay.
#[derive(Args, Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct CheckpointOptions {
    /// Steps of either level between checkpoints; there is one at the end of every round anyway. With `never` there is
    /// none at all, no room on the disk is needed for them, and a run that is stopped starts anew.
    #[arg(long, value_name = "N|never")]
    pub(crate) checkpoint_every: Option<CheckpointEvery>,
    /// Newest checkpoints that stay, when the run is done too; without it two, and none when the run is done.
    #[arg(long, value_name = "N")]
    pub(crate) keep_checkpoints: Option<NonZeroUsize>,
}

impl CheckpointOptions {
    /// Whether there are any.
    pub(crate) fn are_written(self) -> bool {
        !matches!(self.checkpoint_every, Some(CheckpointEvery::Never(_)))
    }

    /// How many whole ones stay while the run goes on.
    fn kept(self) -> usize {
        self.keep_checkpoints.map_or(KEPT, NonZeroUsize::get)
    }

    /// How many are on the disk when there are most: an old one goes when a new one is whole.
    pub(crate) fn most_at_once(self) -> usize {
        if self.are_written() { self.kept().saturating_add(1) } else { 0 }
    }
}

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
    /// Which checkpoints are written and which stay.
    #[serde(flatten)]
    pub(crate) checkpoints: CheckpointOptions,
    /// What is asked between rounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) track: Option<Track>,
}

impl Job {
    /// The same with paths that mean the same from any folder.
    ///
    /// # Errors
    ///
    /// If the current folder is gone.
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
        files.extend(self.track.as_ref().map(|track| ("--track", track.prompts.as_path())));
        sha256_of_inputs(Some(model), &files)
    }

    /// Removes the checkpoints of a run that is over; of those that were asked for, what was torn.
    ///
    /// # Errors
    ///
    /// If one cannot be removed.
    pub(crate) fn remove_old_checkpoints(&self, folder: &RunFolder) -> Result<()> {
        let checkpoints = self.checkpoints_in(folder);
        match self.checkpoints.keep_checkpoints {
            Some(_) => checkpoints.remove_old(),
            None => checkpoints.remove_all(),
        }
    }

    /// Its checkpoints in its folder.
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
