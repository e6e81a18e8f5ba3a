//! The folder of a run: made once, never mixed with an older one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::exit::Mistake;

/// A file that only folders of runs hold; `--force` removes no other folder.
const MARK: &str = "metrics.jsonl";

/// A folder that belongs to this run.
#[derive(Clone, Debug)]
pub(crate) struct RunFolder(PathBuf);

impl RunFolder {
    /// Looks whether `path` can be a run's folder, long before it is made.
    ///
    /// # Errors
    ///
    /// If something is there already, and it is not an older run that `force` may replace.
    pub(crate) fn check(path: &Path, force: bool) -> Result<()> {
        let there = std::fs::symlink_metadata(path).is_ok();
        let empty = std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
        if !there || empty || (force && path.join(MARK).is_file()) {
            return Ok(());
        }
        let hint = if force {
            "--force replaces folders of runs only: choose another folder"
        } else {
            "choose another folder, or --force to replace an older run"
        };
        Err(Mistake::arguments(format!("`{}` exists already", path.display()), hint).into())
    }

    /// Makes the folder, removing an older run first where `force` allows it.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check), or if the folder cannot be made.
    pub(crate) fn create(path: &Path, force: bool) -> Result<Self> {
        Self::check(path, force)?;
        if path.join(MARK).is_file() {
            std::fs::remove_dir_all(path)
                .with_context(|| format!("removing {}", path.display()))?;
        }
        std::fs::create_dir_all(path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self(path.to_owned()))
    }

    /// The path of a file or folder in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The events of the run, as they happen.
    pub(crate) fn metrics(&self) -> PathBuf {
        self.path(MARK)
    }

    /// Writes a file.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let path = self.path(name);
        std::fs::write(&path, content).with_context(|| format!("writing {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_older_run_is_replaced_and_only_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        let folder = RunFolder::create(&run, false).unwrap();
        folder.write("notes.txt", "mine").unwrap();
        assert!(RunFolder::create(&run, true).is_err(), "not a run's folder");
        std::fs::write(folder.metrics(), "").unwrap();
        assert!(RunFolder::create(&run, false).is_err(), "nobody asked");
        RunFolder::create(&run, true).unwrap();
        assert!(!run.join("notes.txt").exists());
    }
}
