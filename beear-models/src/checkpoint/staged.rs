//! Staging folder that is renamed into place, and removal of folders left by killed processes.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::CheckpointError;

/// Part after the destination's name in the name of a staging folder.
const PARTIAL: &str = ".partial-";

/// Staging folder beside its destination; removed unless published.
pub(super) struct Staged {
    pub(super) path: PathBuf,
    out: PathBuf,
    /// Handle that locks the folder while this process writes to it, if the system can lock
    /// folders.
    _lock: Option<File>,
}

impl Staged {
    pub(super) fn new(out: &Path) -> Result<Self, CheckpointError> {
        // A dangling link exists too.
        let there = fs::symlink_metadata(out).is_ok();
        let empty = || fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none());
        if there && !empty() {
            return Err(CheckpointError::Exists { path: out.to_owned() });
        }
        fs::create_dir_all(parent(out)).map_err(CheckpointError::io(parent(out)))?;
        remove_partial(out)?;
        let name = out.file_name().unwrap_or_default().to_string_lossy();
        for attempt in 0.. {
            let unique = format!(".{name}{PARTIAL}{}-{attempt}", std::process::id());
            let path = parent(out).join(unique);
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self { _lock: lock(&path), path, out: out.to_owned() }),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(source) => return Err(CheckpointError::Io { path, source }),
            }
        }
        unreachable!("some attempt finds a free name")
    }

    pub(super) fn publish(self) -> Result<(), CheckpointError> {
        for entry in fs::read_dir(&self.path).map_err(CheckpointError::io(&self.path))? {
            sync(&entry.map_err(CheckpointError::io(&self.path))?.path())?;
        }
        sync(&self.path)?;
        fs::rename(&self.path, &self.out).map_err(CheckpointError::io(&self.out))?;
        sync(parent(&self.out))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After `publish` the folder has moved and this removes nothing.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes incomplete folders that killed processes have left beside `out`. A folder that another
/// process is writing remains.
///
/// # Errors
///
/// Returns [`CheckpointError::Io`] if a folder cannot be removed.
pub fn remove_partial(out: &Path) -> Result<(), CheckpointError> {
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    for entry in fs::read_dir(parent(out)).into_iter().flatten().flatten() {
        let path = entry.path();
        if is_partial(&entry.file_name().to_string_lossy(), &name)
            && entry.file_type().is_ok_and(|kind| kind.is_dir())
            && lock(&path).is_some()
        {
            fs::remove_dir_all(&path).map_err(CheckpointError::io(&path))?;
        }
    }
    Ok(())
}

/// True if a folder has the name of a staging folder: `.NAME.partial-PROCESS-ATTEMPT`.
fn is_partial(folder: &str, name: &str) -> bool {
    let rest = folder.strip_prefix('.').and_then(|rest| rest.strip_prefix(name));
    let numbers = rest.and_then(|rest| rest.strip_prefix(PARTIAL)?.split_once('-'));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    numbers.is_some_and(|(process, attempt)| is_number(process) && is_number(attempt))
}

/// Locks a folder; None if another process holds the lock, or the system cannot lock folders.
fn lock(path: &Path) -> Option<File> {
    let folder = File::open(path).ok()?;
    folder.try_lock().ok().map(|()| folder)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync(path: &Path) -> Result<(), CheckpointError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(CheckpointError::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_a_killed_process_is_removed_and_strange_names_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let strange = [
            ".model.partial-7",
            ".model.partial-7-x",
            ".model.partial-",
            "model.partial-7-0",
            ".other.partial-7-0",
            ".modelx.partial-7-0",
        ];
        for name in strange.into_iter().chain([".model.partial-7-0", ".model.partial-8-12"]) {
            fs::create_dir(path(name)).unwrap();
            fs::write(path(name).join("model.safetensors"), "half").unwrap();
        }
        fs::write(path(".model.partial-9-0"), "a file").unwrap();
        let staged = Staged::new(&path("model")).unwrap();
        assert!(!path(".model.partial-7-0").exists() && !path(".model.partial-8-12").exists());
        assert!(strange.iter().all(|name| path(name).exists()));
        assert!(path(".model.partial-9-0").exists());
        staged.publish().unwrap();
        assert!(path("model").is_dir());
    }

    #[test]
    fn a_folder_that_is_being_written_stays() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("model");
        let staged = Staged::new(&out).unwrap();
        remove_partial(&out).unwrap();
        assert!(staged.path.exists());
        let other = Staged::new(&out).unwrap();
        assert!(staged.path.exists() && other.path != staged.path);
    }
}
