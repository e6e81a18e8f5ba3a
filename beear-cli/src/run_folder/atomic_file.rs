//! Files that another process reads later. Each is complete or absent.
//!
//! A file is written under another name, synced and renamed. A process that is killed in between
//! leaves a file with that other name, which [`sweep`] recognises.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::run_folder::cannot_write::CannotWrite;

/// Suffix of a file that is being written. No other program uses it.
const PARTIAL: &str = ".beear-partial";

/// Replaces a file by a new one. The old file stays complete until then.
///
/// # Errors
///
/// If the file cannot be written. Nothing of it stays then.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    let partial = partial(path);
    let replace = || -> io::Result<()> {
        let mut file = File::create(&partial)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        sync_folder(path.parent().unwrap_or(Path::new(".")))
    };
    let replaced = replace();
    if replaced.is_err() {
        let _ = fs::remove_file(&partial);
    }
    replaced.map_err(CannotWrite::at(path))?;
    Ok(())
}

/// Removes the files directly in `folder` that killed processes have left half-written. No other
/// process may be writing there.
///
/// # Errors
///
/// If a file cannot be removed.
pub(crate) fn sweep(folder: &Path) -> Result<(), CannotWrite> {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_partial = name.to_string_lossy().strip_suffix(PARTIAL).is_some_and(|name| {
            // The name has more than the dot.
            name.starts_with('.') && name.len() > 1
        });
        if is_partial && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            fs::remove_file(entry.path()).map_err(CannotWrite::at(&entry.path()))?;
        }
    }
    Ok(())
}

/// Syncs the names in a folder to the disk, on systems that can open a folder for that.
///
/// # Errors
///
/// If the system cannot sync the folder.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

fn partial(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}{PARTIAL}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_file_that_cannot_be_replaced_stays_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.json");
        fs::create_dir(&path).unwrap();
        assert!(write_atomically(&path, b"{}").is_err());
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_names_of_half_written_files_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let strange =
            [".DS_Store", ".notes.partial", "a.beear-partial", ".tmpAb3xYz", ".beear-partial"];
        for name in strange {
            fs::write(path(name), "").unwrap();
        }
        fs::create_dir(path(".folder.beear-partial")).unwrap();
        fs::write(partial(&path("manifest.json")), "{").unwrap();
        sweep(folder.path()).unwrap();
        let left = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let expected = strange.into_iter().chain([".folder.beear-partial"]).map(Into::into);
        assert_eq!(left.collect::<BTreeSet<_>>(), expected.collect());
    }
}
