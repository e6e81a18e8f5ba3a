//! Checkpoints of a defence: `checkpoints/step-N/`. An incomplete one is never used.
//!
//! A checkpoint is written under another name, synced and renamed. The file `COMPLETE`, with the
//! hashes of the other files, is written last. A checkpoint without it, or with other hashes, is
//! torn and skipped. Entries with other names are not ours: they are neither read nor removed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use beear_core::{Progress, Snapshot};
use serde::{Deserialize, Serialize};

use crate::run_folder::atomic_file::{sync_folder, write_atomically};
use crate::run_folder::cannot_write::CannotWrite;
use crate::run_folder::hash::sha256_of_file;
use crate::run_folder::metrics::METRICS;
use crate::run_folder::tensor_file::TensorFile;
use crate::run_folder::written_lines::Extent;
use crate::run_folder::{RunFolder, TRACKED, remove_any};

const PROGRESS: &str = "progress.json";
const TENSORS: &str = "state.safetensors";
const POSITION: &str = "trainer_state.json";
const COMPLETE: &str = "COMPLETE";
const PREFIX: &str = "step-";
/// Suffix of a checkpoint that is being written. Its name begins with a dot.
const PARTIAL: &str = ".partial";

/// Position of the run, for people and for the files beside the checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Number of steps of either level so far.
    pub(crate) step: usize,
    /// Number of whole rounds so far.
    pub(crate) rounds: usize,
    /// Factor on the recipe's learning rates. It is 1 unless a NaN or infinite number has occurred.
    pub(crate) rate_factor: f64,
    /// Extent of `metrics.jsonl` so far.
    pub(crate) metrics: Extent,
    /// Extent of `tracked.jsonl` so far, if it exists.
    pub(crate) tracked: Option<Extent>,
    /// Seconds of work so far, over all processes.
    pub(crate) seconds: f64,
}

impl Position {
    /// Checks that the files of lines in `folder` begin with the lines they had at this position.
    ///
    /// # Errors
    ///
    /// If a file does not.
    pub(crate) fn check(&self, folder: &RunFolder) -> Result<()> {
        self.metrics.read(&folder.path(METRICS))?;
        if let Some(tracked) = &self.tracked {
            tracked.read(&folder.path(TRACKED))?;
        }
        Ok(())
    }
}

/// Checkpoints of a run.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoints {
    folder: PathBuf,
    /// Number of whole checkpoints that are kept.
    keep: usize,
}

/// A whole checkpoint.
#[derive(Debug)]
pub(crate) struct Restored {
    pub(crate) progress: Progress,
    pub(crate) position: Position,
    pub(crate) tensors: TensorFile,
}

impl Checkpoints {
    /// Returns the checkpoints of the run in `folder`. The `keep` newest are kept, at least one.
    pub(crate) fn of(folder: &Path, keep: usize) -> Self {
        Self { folder: folder.join("checkpoints"), keep: keep.max(1) }
    }

    /// Writes a checkpoint, and removes those that are no longer kept.
    ///
    /// # Errors
    ///
    /// If the checkpoint cannot be written. The older ones are then still whole, and nothing of the
    /// new one stays.
    pub(crate) fn save(&self, snapshot: &Snapshot, position: &Position) -> Result<()> {
        let path = self.path(position.step);
        let partial = self.folder.join(format!(".{PREFIX}{}{PARTIAL}", position.step));
        let written = self.write(snapshot, position, (&partial, &path));
        if written.is_err() {
            let _ = fs::remove_dir_all(&partial);
            if !path.join(COMPLETE).exists() {
                let _ = fs::remove_dir_all(&path);
            }
        }
        written?;
        self.remove_old()
    }

    fn write(
        &self,
        snapshot: &Snapshot,
        position: &Position,
        (partial, path): (&Path, &Path),
    ) -> Result<()> {
        remove_any(partial)?;
        remove_any(path)?;
        fs::create_dir_all(partial).map_err(CannotWrite::at(partial))?;
        TensorFile::write(&partial.join(TENSORS), &snapshot.tensors)?;
        write(&partial.join(PROGRESS), &serde_json::to_vec(&snapshot.progress)?)?;
        write(&partial.join(POSITION), &serde_json::to_vec_pretty(position)?)?;
        let hashes = hashes(partial)?;
        sync(partial)?;
        fs::rename(partial, path).map_err(CannotWrite::at(path))?;
        sync(&self.folder)?;
        write_atomically(&path.join(COMPLETE), &serde_json::to_vec_pretty(&hashes)?)
    }

    /// Reads the newest whole checkpoint, or returns `None` if there is none.
    ///
    /// # Errors
    ///
    /// If a whole checkpoint cannot be read.
    pub(crate) fn newest(&self) -> Result<Option<Restored>> {
        let whole =
            self.steps().into_iter().rev().map(|step| self.path(step)).find(|p| is_whole(p));
        let Some(path) = whole else { return Ok(None) };
        let read = |name: &str| {
            let path = path.join(name);
            beear_input::read(&path).with_context(|| format!("reading {}", path.display()))
        };
        Ok(Some(Restored {
            progress: serde_json::from_slice(&read(PROGRESS)?)?,
            position: serde_json::from_slice(&read(POSITION)?)?,
            tensors: TensorFile::open(&path.join(TENSORS))?,
        }))
    }

    /// Removes all checkpoints, and their folder if it contains nothing else.
    ///
    /// # Errors
    ///
    /// If a checkpoint cannot be removed.
    pub(crate) fn remove_all(&self) -> Result<()> {
        self.remove_all_but(&[])?;
        let _ = fs::remove_dir(&self.folder);
        Ok(())
    }

    /// Removes torn checkpoints, and all whole ones except the newest.
    ///
    /// # Errors
    ///
    /// If a checkpoint cannot be removed.
    pub(crate) fn remove_old(&self) -> Result<()> {
        let paths = self.steps().into_iter().rev().map(|step| self.path(step));
        let whole = paths.filter(|path| path.join(COMPLETE).exists());
        self.remove_all_but(&whole.take(self.keep).collect::<Vec<_>>())
    }

    fn remove_all_but(&self, kept: &[PathBuf]) -> Result<()> {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let partial = name.strip_prefix('.').and_then(|name| name.strip_suffix(PARTIAL));
            let is_ours = step_of(partial.unwrap_or(&name)).is_some();
            if is_ours && !kept.contains(&entry.path()) {
                remove_any(&entry.path())?;
            }
        }
        Ok(())
    }

    fn path(&self, step: usize) -> PathBuf {
        self.folder.join(format!("{PREFIX}{step}"))
    }

    /// Returns the steps of all checkpoints, torn or not, in ascending order.
    fn steps(&self) -> Vec<usize> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let step = |entry: fs::DirEntry| step_of(entry.file_name().to_str()?);
        let mut steps: Vec<usize> = entries.filter_map(step).collect();
        steps.sort_unstable();
        steps
    }
}

/// Returns the step in the name of a checkpoint, or `None` for other names, such as `step-007` and
/// `step-+7`.
fn step_of(name: &str) -> Option<usize> {
    let step = name.strip_prefix(PREFIX)?.parse().ok()?;
    (format!("{PREFIX}{step}") == name).then_some(step)
}

/// Returns the hashes of the files of a checkpoint.
fn hashes(path: &Path) -> Result<BTreeMap<String, String>> {
    let hash = |name: &str| Ok((name.to_owned(), sha256_of_file(&path.join(name))?));
    [PROGRESS, TENSORS, POSITION].into_iter().map(hash).collect()
}

fn is_whole(path: &Path) -> bool {
    let promised = beear_input::read(path.join(COMPLETE)).ok();
    let promised = promised.and_then(|text| serde_json::from_slice(&text).ok());
    promised.is_some_and(|promised: BTreeMap<String, String>| {
        hashes(path).is_ok_and(|found| found == promised)
    })
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    let written = fs::write(path, content).and_then(|()| File::open(path)?.sync_all());
    written.map_err(CannotWrite::at(path))?;
    Ok(())
}

fn sync(path: &Path) -> Result<()> {
    sync_folder(path).map_err(CannotWrite::at(path))?;
    Ok(())
}
