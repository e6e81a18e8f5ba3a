//! A file of lines that grows during a run, and the part of it that a checkpoint covers.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::run_folder::cannot_write::CannotWrite;
use crate::run_folder::hash::hex;
use crate::user_error::UserError;

/// The beginning of a file: its content at a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extent {
    /// Length in bytes.
    pub(crate) bytes: u64,
    /// SHA-256 of these bytes in hexadecimal.
    pub(crate) sha256: String,
}

impl Extent {
    /// Returns the extent of a whole file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub(crate) fn of_file(path: &Path) -> Result<Self> {
        let content =
            beear_input::read(path).with_context(|| format!("reading {}", path.display()))?;
        Ok(Self::of(&content))
    }

    /// Reads this part of a file, without the rest.
    ///
    /// # Errors
    ///
    /// If the file does not begin with it.
    pub(crate) fn read(&self, path: &Path) -> Result<Vec<u8>> {
        let mut content =
            beear_input::read(path).with_context(|| format!("reading {}", path.display()))?;
        content.truncate(usize::try_from(self.bytes).unwrap_or(usize::MAX));
        if Self::of(&content) == *self {
            return Ok(content);
        }
        let what = format!("`{}` is not what it was at the last checkpoint", path.display());
        Err(UserError::input(what, "bring the file back, or start the run anew").into())
    }

    fn of(content: &[u8]) -> Self {
        let sha256 = hex(Sha256::digest(content));
        Self { bytes: content.len() as u64, sha256 }
    }
}

/// A file that is being written.
pub(crate) struct WrittenLines {
    path: PathBuf,
    file: BufWriter<File>,
    bytes: u64,
    hasher: Sha256,
}

impl WrittenLines {
    /// Creates a file.
    ///
    /// # Errors
    ///
    /// If it cannot be created.
    pub(crate) fn create(path: PathBuf) -> Result<Self> {
        let file = BufWriter::new(File::create(&path).map_err(CannotWrite::at(&path))?);
        Ok(Self { path, file, bytes: 0, hasher: Sha256::new() })
    }

    /// Continues a file that begins with `content`, and cuts off the rest.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub(crate) fn reopen(path: PathBuf, content: &[u8]) -> Result<Self> {
        let bytes = content.len() as u64;
        let reopen = || -> io::Result<File> {
            let mut file = OpenOptions::new().append(true).open(&path)?;
            file.set_len(bytes)?;
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        };
        let file = BufWriter::new(reopen().map_err(CannotWrite::at(&path))?);
        Ok(Self { path, file, bytes, hasher: Sha256::new().chain_update(content) })
    }

    /// Returns the path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a line.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub(crate) fn add(&mut self, line: &str) -> io::Result<()> {
        let line = format!("{line}\n");
        self.bytes += line.len() as u64;
        self.hasher.update(&line);
        self.file.write_all(line.as_bytes())
    }

    /// Hands all lines over to the system.
    ///
    /// # Errors
    ///
    /// If a line cannot be written.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    /// Syncs all lines to the disk, and returns the extent of the file.
    ///
    /// # Errors
    ///
    /// If a line cannot be written.
    pub(crate) fn sync(&mut self) -> Result<Extent> {
        let synced = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        synced.map_err(CannotWrite::at(&self.path))?;
        Ok(Extent { bytes: self.bytes, sha256: hex(self.hasher.clone().finalize()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extent_is_that_of_the_file_over_two_processes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut lines = WrittenLines::create(path.clone()).unwrap();
        lines.add("{}").unwrap();
        let first = lines.sync().unwrap();
        lines.add("lost").unwrap();
        lines.flush().unwrap();
        drop(lines);
        let content = first.read(&path).unwrap();
        assert_eq!(content, b"{}\n");
        let mut lines = WrittenLines::reopen(path.clone(), &content).unwrap();
        lines.add("[]").unwrap();
        assert_eq!(lines.sync().unwrap(), Extent::of_file(&path).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"{}\n[]\n");
    }

    #[test]
    fn a_file_that_is_shorter_or_altered_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let extent = Extent::of(b"{}\n[]\n");
        for content in ["{}\n[]", "{}\n[}\n", ""] {
            std::fs::write(&path, content).unwrap();
            let error = extent.read(&path).unwrap_err();
            assert!(error.to_string().contains("metrics.jsonl"), "{error}");
        }
        std::fs::write(&path, "{}\n[]\nmore").unwrap();
        assert_eq!(extent.read(&path).unwrap(), b"{}\n[]\n");
    }
}
