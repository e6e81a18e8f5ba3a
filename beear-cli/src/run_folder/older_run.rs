//! The older run that `--force` replaces. It is set aside within the folder until the run that
//! replaces it has a result, and restored if that run fails before.
//!
//! Each step is one rename, so that a process can be killed between any two. [`MOVING`] holds an
//! unfinished move, which [`recover`] undoes; [`ASIDE`] holds a whole older run; [`REMOVED`] holds
//! one that is no longer needed.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::Result;

use super::{MARK, remove_any};
use crate::run_folder::atomic_file::sync_folder;
use crate::run_folder::cannot_write::CannotWrite;

/// Name of the folder with a whole older run.
pub(super) const ASIDE: &str = ".older-run";
/// Name of the folder with a part of it that is being moved there or back.
const MOVING: &str = ".older-run.moving";
/// Name of the folder with its remains once the run that replaces it has a result.
const REMOVED: &str = ".older-run.removed";

/// Returns true if an older run is set aside.
pub(super) fn is_aside(folder: &Path) -> bool {
    folder.join(ASIDE).is_dir()
}

/// Returns true if a process was killed while it moved an older run.
pub(super) fn is_moving(folder: &Path) -> bool {
    folder.join(MOVING).is_dir()
}

/// Sets everything in `folder` aside. If an older run is set aside already, the run after it has no
/// result and is removed.
///
/// # Errors
///
/// If something cannot be moved. Everything is then moved back.
pub(super) fn set_aside(folder: &Path) -> Result<(), CannotWrite> {
    if is_aside(folder) {
        return remove_others(folder);
    }
    let moving = folder.join(MOVING);
    let set_aside = || -> Result<(), CannotWrite> {
        fs::create_dir(&moving).map_err(CannotWrite::at(&moving))?;
        move_all(folder, &moving)?;
        sync_folder(&moving).map_err(CannotWrite::at(&moving))?;
        rename(&moving, &folder.join(ASIDE))
    };
    set_aside().inspect_err(|_| {
        let _ = recover(folder);
    })
}

/// Restores the older run in place of the files that came after it.
///
/// # Errors
///
/// If something cannot be removed or moved.
pub(super) fn restore(folder: &Path) -> Result<(), CannotWrite> {
    remove_others(folder)?;
    rename(&folder.join(ASIDE), &folder.join(MOVING))?;
    recover(folder)
}

/// Removes the older run.
///
/// # Errors
///
/// If it cannot be moved away. Files that cannot be removed after that are left to [`sweep`].
pub(super) fn remove(folder: &Path) -> Result<(), CannotWrite> {
    if is_aside(folder) {
        sweep(folder);
        rename(&folder.join(ASIDE), &folder.join(REMOVED))?;
        sync_folder(folder).map_err(CannotWrite::at(folder))?;
        sweep(folder);
    }
    Ok(())
}

/// Undoes an unfinished move.
///
/// # Errors
///
/// If something cannot be moved back.
pub(super) fn recover(folder: &Path) -> Result<(), CannotWrite> {
    let moving = folder.join(MOVING);
    if moving.is_dir() {
        move_all(&moving, folder)?;
        fs::remove_dir(&moving).map_err(CannotWrite::at(&moving))?;
    }
    Ok(())
}

/// Removes the remains of an older run that is no longer needed.
pub(super) fn sweep(folder: &Path) {
    let _ = fs::remove_dir_all(folder.join(REMOVED));
}

/// Returns the size in bytes of a run, or of the older run that is set aside.
pub(super) fn bytes(folder: &Path) -> u64 {
    let aside = folder.join(ASIDE);
    bytes_below(if aside.is_dir() { &aside } else { folder })
}

fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.fold(0, u64::saturating_add)
}

/// Removes everything except an older run that is set aside.
fn remove_others(folder: &Path) -> Result<(), CannotWrite> {
    each(folder, remove_any)
}

/// Moves everything in `from` to `to`.
fn move_all(from: &Path, to: &Path) -> Result<(), CannotWrite> {
    each(from, |entry| rename(entry, &to.join(entry.file_name().unwrap_or_default())))
}

/// Calls `act` on everything in a folder except its mark and older runs.
fn each(
    folder: &Path,
    mut act: impl FnMut(&Path) -> Result<(), CannotWrite>,
) -> Result<(), CannotWrite> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    for entry in entries.map_err(CannotWrite::at(folder))? {
        if ![MARK, ASIDE, MOVING, REMOVED].iter().any(|name| entry.file_name() == *name) {
            act(&entry.path())?;
        }
    }
    Ok(())
}

fn rename(from: &Path, to: &Path) -> Result<(), CannotWrite> {
    fs::rename(from, to).map_err(CannotWrite::at(to))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A folder with a model and a file, beside the mark.
    fn older() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("model")).unwrap();
        for name in [MARK, "model/weights", "notes.txt"] {
            fs::write(folder.path().join(name), "older").unwrap();
        }
        folder
    }

    fn names(folder: &Path) -> BTreeSet<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn an_older_run_comes_back_in_place_of_a_newer_one() {
        let folder = older();
        let before = names(folder.path());
        set_aside(folder.path()).unwrap();
        assert_eq!(names(folder.path()), set(&[MARK, ASIDE]));
        fs::create_dir(folder.path().join("model")).unwrap();
        fs::write(folder.path().join("other.txt"), "newer").unwrap();
        restore(folder.path()).unwrap();
        assert_eq!(names(folder.path()), before);
        assert_eq!(fs::read(folder.path().join("model/weights")).unwrap(), b"older");
    }

    #[test]
    fn of_three_runs_the_one_with_a_result_is_kept_until_another_has_one() {
        let folder = older();
        set_aside(folder.path()).unwrap();
        fs::write(folder.path().join("notes.txt"), "killed").unwrap();
        set_aside(folder.path()).unwrap();
        assert_eq!(names(folder.path()), set(&[MARK, ASIDE]));
        assert_eq!(fs::read(folder.path().join(ASIDE).join("notes.txt")).unwrap(), b"older");
        remove(folder.path()).unwrap();
        assert_eq!(names(folder.path()), set(&[MARK]));
    }

    #[test]
    fn a_move_that_was_cut_short_is_undone() {
        let folder = older();
        let before = names(folder.path());
        fs::create_dir(folder.path().join(MOVING)).unwrap();
        rename(&folder.path().join("model"), &folder.path().join(MOVING).join("model")).unwrap();
        recover(folder.path()).unwrap();
        assert_eq!(names(folder.path()), before);
    }

    #[test]
    fn the_size_is_that_of_all_files_of_the_older_run() {
        let folder = older();
        // The mark, the weights and the notes.
        assert_eq!(bytes(folder.path()), 3 * 5);
        set_aside(folder.path()).unwrap();
        fs::write(folder.path().join("newer"), "newer").unwrap();
        assert_eq!(bytes(folder.path()), 2 * 5);
    }
}
