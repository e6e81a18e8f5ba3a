//! The folder of a run. It is checked before anything is computed, never mixed with an older run,
//! and removed if the run fails before it has written a file. An older run stays until the run that
//! replaces it has a result.

pub(crate) mod atomic_file;
pub(crate) mod cannot_write;
pub(crate) mod checkpoints;
pub(crate) mod hash;
pub(crate) mod job;
pub(crate) mod manifest;
pub(crate) mod metrics;
mod older_run;
mod refusal;
pub(crate) mod tensor_file;
pub(crate) mod tensorboard;
pub(crate) mod written_lines;

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use beear_models::CausalLm;
use beear_models::checkpoint::{
    BaseName, Checkpoint, CheckpointError, remove_partial, save, save_adapters,
};
use burn::tensor::backend::Backend;
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::refusal::{refuse_inputs, refuse_others};
use crate::recipe::SMALLER_STEPS;
use crate::run_folder::atomic_file::{sweep, write_atomically};
use crate::run_folder::cannot_write::CannotWrite;
use crate::user_error::UserError;

/// Name of a file that every folder of a run contains and no other folder. `--force` removes
/// nothing without it.
const MARK: &str = ".beear-run";

/// Name of the folder with the weights after the last whole round of a run that diverged.
pub(crate) const LAST_GOOD: &str = "last-good";

/// Name of the file with the results of `--track` after each round.
pub(crate) const TRACKED: &str = "tracked.jsonl";

/// Names of the folders of models that runs write.
const MODELS: [&str; 5] = ["model", "adapter", LAST_GOOD, "control", "cleaned"];

/// A folder that belongs to this run.
#[derive(Debug)]
pub(crate) struct RunFolder {
    path: PathBuf,
    force: bool,
    /// True if the mark in the folder is this run's.
    started: bool,
    /// Folders to remove if nothing is written, the innermost first.
    leftovers: Vec<PathBuf>,
    /// Mark of the folder, locked as long as this run writes to it.
    lock: Option<File>,
    /// True if a later process can resume this run, so that the older run must not be restored yet.
    is_begun: AtomicBool,
}

impl RunFolder {
    /// Checks that a run that reads `inputs` can write to `path`, and creates the folder if needed.
    /// An older run stays as it is.
    ///
    /// # Errors
    ///
    /// If the path exists and is not an older run, or is one and `force` is not set; if an input
    /// lies in it; or if it cannot be written to.
    pub(crate) fn reserve(path: &Path, force: bool, inputs: &[&Path]) -> Result<Self> {
        refuse_inputs(path, inputs)?;
        refuse_others(path, force)?;
        let missing = |folder: &&Path| {
            !folder.as_os_str().is_empty() && fs::symlink_metadata(folder).is_err()
        };
        let leftovers = path.ancestors().take_while(missing).map(Path::to_owned).collect();
        let is_begun = AtomicBool::new(false);
        let path_of_run = path.to_owned();
        let folder =
            Self { path: path_of_run, force, started: false, leftovers, lock: None, is_begun };
        let writable = fs::create_dir_all(path).and_then(|()| tempfile::tempfile_in(path));
        writable.map_err(CannotWrite::at(path))?;
        Ok(folder)
    }

    /// Resumes an earlier run with the same settings: one whose file `name` has the text `content`.
    /// Returns `None` if there is no such run.
    ///
    /// # Errors
    ///
    /// If another process is writing to it.
    pub(crate) fn resume(path: &Path, (name, content): (&str, &str)) -> Result<Option<Self>> {
        if older_run::is_moving(path) {
            Self::reopen(path)?;
        }
        let settings = beear_input::read_to_string(path.join(name));
        let same = path.join(MARK).is_file() && settings.is_ok_and(|text| text == content);
        same.then(|| Self::reopen(path)).transpose()
    }

    /// Reopens the folder of an earlier run. Files that its process has left half-written are
    /// removed.
    ///
    /// # Errors
    ///
    /// If there is no run, or another process is writing to it.
    pub(crate) fn reopen(path: &Path) -> Result<Self> {
        if !path.join(MARK).is_file() {
            let what = format!("`{}` is no folder of a run", path.display());
            return Err(UserError::arguments(what, "name what `--out` was").into());
        }
        let lock = Some(lock(path)?);
        let is_begun = AtomicBool::new(true);
        let path = path.to_owned();
        let folder =
            Self { path, force: false, started: true, leftovers: Vec::new(), lock, is_begun };
        older_run::recover(&folder.path)?;
        folder.sweep()?;
        Ok(folder)
    }

    /// Takes possession of the folder and sets an older run aside.
    ///
    /// # Errors
    ///
    /// If the path has been taken in the meantime, another process is writing to it, or it cannot
    /// be written to.
    pub(crate) fn start(&mut self) -> Result<()> {
        refuse_others(&self.path, self.force)?;
        self.lock = Some(lock(&self.path)?);
        older_run::recover(&self.path)?;
        self.sweep()?;
        if !is_unused(&self.path) {
            older_run::set_aside(&self.path)?;
        }
        self.started = true;
        // The mark is written in place, because a new file of that name would not be locked.
        let mark = self.path(MARK);
        let written = fs::write(&mark, "`beear --force` may replace this folder.\n");
        Ok(written.map_err(CannotWrite::at(&mark))?)
    }

    /// Records that a later process can resume this run. From here on an older run is restored only
    /// if this one [fails](Self::has_failed).
    pub(crate) fn has_begun(&self) {
        self.is_begun.store(true, Ordering::Relaxed);
    }

    /// Records that this run has no result, so that an older run that was set aside is restored.
    pub(crate) fn has_failed(&self) {
        self.is_begun.store(false, Ordering::Relaxed);
    }

    /// Removes the older run, because the result of this run is written, or about to be written in
    /// one last file.
    ///
    /// # Errors
    ///
    /// If the older run cannot be moved away.
    pub(crate) fn has_result(&self) -> Result<()> {
        self.has_begun();
        older_run::remove(&self.path)?;
        Ok(())
    }

    /// Returns true if there is an older run, in place or set aside, that this run will replace.
    pub(crate) fn has_older(&self) -> bool {
        older_run::is_aside(&self.path) || (!self.started && !is_unused(&self.path))
    }

    /// Returns the size of that older run in bytes.
    pub(crate) fn older_bytes(&self) -> u64 {
        if self.has_older() { older_run::bytes(&self.path) } else { 0 }
    }

    /// Removes files that killed processes have left half-written. They are recognised by their
    /// names, and nothing else is removed.
    ///
    /// # Errors
    ///
    /// If a file cannot be removed.
    pub(crate) fn sweep(&self) -> Result<()> {
        older_run::sweep(&self.path);
        for name in MODELS {
            self.saved(remove_partial(&self.path(name)))?;
        }
        sweep(&self.path)?;
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                sweep(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Reserves and starts the folder of a run without inputs.
    ///
    /// # Errors
    ///
    /// Errors of [`reserve`](Self::reserve).
    pub(crate) fn create(path: &Path, force: bool) -> Result<Self> {
        let mut folder = Self::reserve(path, force, &[])?;
        folder.start()?;
        Ok(folder)
    }

    /// Returns the path of a file or folder in the run's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file atomically. An older one stays until then.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<()> {
        write_atomically(&self.path(name), content.as_ref())
    }

    /// Writes one JSON value per line, atomically.
    ///
    /// # Errors
    ///
    /// If a row cannot be converted to JSON, or the file cannot be written.
    pub(crate) fn write_lines(&self, name: &str, rows: &[impl Serialize]) -> Result<()> {
        let lines: Result<String> =
            rows.iter().map(|row| Ok(serde_json::to_string(row)? + "\n")).collect();
        self.write(name, lines?)
    }

    /// Reads the lines of an earlier run. The list is empty if there is no such file, and a torn
    /// line is left out.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub(crate) fn read_lines<T: DeserializeOwned>(&self, name: &str) -> Result<Vec<T>> {
        let path = self.path(name);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let text = beear_input::read_to_string(&path);
        let text = text.with_context(|| format!("reading {}", path.display()))?;
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// Writes a CSV file with a head, atomically.
    ///
    /// # Errors
    ///
    /// If a row is not a flat record, or the file cannot be written.
    pub(crate) fn write_csv(&self, name: &str, rows: &[impl Serialize]) -> Result<()> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        rows.iter().try_for_each(|row| writer.serialize(row))?;
        self.write(name, writer.into_inner().map_err(csv::IntoInnerError::into_error)?)
    }

    /// Writes a trained model as a folder in the form of `checkpoint`, and returns its path. `seed`
    /// determines the stochastic rounding.
    ///
    /// # Errors
    ///
    /// If training has driven a weight out of the range of its stored type, or the folder cannot be
    /// written.
    pub(crate) fn save<B: Backend>(
        &self,
        name: &str,
        model: &CausalLm<B>,
        checkpoint: &Checkpoint,
        seed: u64,
    ) -> Result<PathBuf> {
        let path = self.path(name);
        self.saved(save(model, checkpoint, &path, seed)).map(|()| path)
    }

    /// Writes the adapters of a trained model as a PEFT folder, and returns its path.
    ///
    /// # Errors
    ///
    /// Errors of [`save`](Self::save).
    pub(crate) fn save_adapters<B: Backend>(
        &self,
        name: &str,
        model: &CausalLm<B>,
        base: &BaseName,
    ) -> Result<PathBuf> {
        let path = self.path(name);
        self.saved(save_adapters(model, base, &path)).map(|()| path)
    }

    /// Converts an error of saving to the errors of a run.
    fn saved(&self, saved: Result<(), CheckpointError>) -> Result<()> {
        match saved {
            Ok(()) => Ok(()),
            // The same error from reading a model is a fault of the input. Here it is a fault of
            // the run.
            Err(CheckpointError::NotFinite { name }) => {
                let what =
                    format!("training ended with a value that is not finite in tensor `{name}`");
                Err(UserError::non_finite(what, SMALLER_STEPS).into())
            }
            Err(CheckpointError::Io { path, source }) if path.starts_with(&self.path) => {
                Err(CannotWrite { path, source }.into())
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        let is_begun = self.is_begun.load(Ordering::Relaxed);
        if self.started && !is_begun && older_run::is_aside(&self.path) {
            // If this fails, the older run stays aside.
            let _ = older_run::restore(&self.path);
        }
        let made = fs::symlink_metadata(&self.path).is_ok();
        if !made || is_unused(&self.path) {
            if self.started {
                let _ = fs::remove_file(self.path.join(MARK));
            }
            // `remove_dir` removes empty folders only.
            for folder in &self.leftovers {
                let _ = fs::remove_dir(folder);
            }
        }
    }
}

/// Removes a file or a folder, if it exists.
///
/// # Errors
///
/// If it cannot be removed.
pub(crate) fn remove_any(path: &Path) -> Result<(), CannotWrite> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(CannotWrite::at(path)(error)),
        _ => Ok(()),
    }
}

/// Locks the folder of a run for this process.
fn lock(path: &Path) -> Result<File> {
    let mark = path.join(MARK);
    let file = File::options().create(true).truncate(false).write(true).open(&mark);
    let file = file.map_err(CannotWrite::at(&mark))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let what = format!("another process is writing to `{}`", path.display());
            Err(UserError::arguments(what, "wait for it, or choose another folder").into())
        }
        Err(TryLockError::Error(source)) => Err(CannotWrite { path: mark, source }.into()),
    }
}

/// Returns true if a folder contains nothing but the mark, as after a run that stopped at once.
fn is_unused(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|entries| entries.flatten().all(|entry| entry.file_name() == MARK))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("deep/run");
        (dir, run)
    }

    #[test]
    fn only_an_older_run_is_replaced_and_only_when_asked() {
        let (_dir, run) = run();
        fs::create_dir_all(&run).unwrap();
        fs::write(run.join("metrics.jsonl"), "mine").unwrap();
        assert!(RunFolder::create(&run, true).is_err(), "not a run's folder");
        fs::remove_file(run.join("metrics.jsonl")).unwrap();

        let folder = RunFolder::create(&run, false).unwrap();
        folder.write("notes.txt", "of the older run").unwrap();
        fs::create_dir(run.join("model")).unwrap();
        fs::write(run.join("model/weights"), "of the older run").unwrap();
        drop(folder);
        assert!(RunFolder::create(&run, false).is_err(), "nobody asked");
        let folder = RunFolder::create(&run, true).unwrap();
        folder.has_result().unwrap();
        folder.write("report.json", "{}").unwrap();
        drop(folder);
        let left: Vec<_> = fs::read_dir(&run).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.len() == 2 && left.contains(&"report.json".into()), "{left:?}");
    }

    #[test]
    fn what_was_made_for_nothing_is_removed() {
        let (dir, run) = run();
        drop(RunFolder::reserve(&run, false, &[]).unwrap());
        assert!(!dir.path().join("deep").exists());
        drop(RunFolder::create(&run, false).unwrap());
        assert!(!dir.path().join("deep").exists(), "a mark alone is nothing");
    }

    #[test]
    fn an_older_run_comes_back_unless_the_newer_one_has_begun() {
        let (_dir, run) = run();
        RunFolder::create(&run, false).unwrap().write("notes.txt", "older").unwrap();
        let notes = || fs::read_to_string(run.join("notes.txt")).ok();
        let newer = || {
            let folder = RunFolder::create(&run, true).unwrap();
            assert_eq!(notes(), None);
            folder.write("notes.txt", "newer").unwrap();
            folder
        };
        drop(newer());
        assert_eq!(notes().as_deref(), Some("older"));
        let folder = newer();
        folder.has_begun();
        drop(folder);
        assert_eq!(notes().as_deref(), Some("newer"));
        let folder = RunFolder::reopen(&run).unwrap();
        assert!(folder.has_older() && folder.older_bytes() == 5);
        folder.has_failed();
        drop(folder);
        assert_eq!(notes().as_deref(), Some("older"));
        assert!(!RunFolder::reopen(&run).unwrap().has_older());
    }

    #[test]
    fn a_run_that_was_killed_at_once_is_no_older_run() {
        let (_dir, run) = run();
        fs::create_dir_all(&run).unwrap();
        fs::write(run.join(MARK), "").unwrap();
        assert!(RunFolder::create(&run, false).is_ok());
    }

    #[test]
    fn two_runs_do_not_share_a_folder() {
        let (_dir, run) = run();
        let mut late = RunFolder::reserve(&run, false, &[]).unwrap();
        let early = RunFolder::create(&run, false).unwrap();
        early.write("notes.txt", "x").unwrap();
        assert!(late.start().is_err());
        drop(late);
        assert!(run.join("notes.txt").exists());
    }

    #[test]
    fn a_path_that_cannot_be_a_folder_is_told_from_a_full_disk() {
        let (dir, _) = run();
        fs::write(dir.path().join("file"), "").unwrap();
        let error = RunFolder::create(&dir.path().join("file/run"), false).unwrap_err();
        let error = error.downcast_ref::<CannotWrite>().unwrap();
        assert!(error.hint().contains("permissions"), "{error}");
        let full = CannotWrite::at(dir.path())(ErrorKind::StorageFull.into());
        assert!(full.hint().contains("space"));
    }
}
