//! The cache of Hugging Face's own library: content by its hash, and one folder per commit with
//! links to it.
//!
//! ```text
//! models--org--name/blobs/HASH
//! models--org--name/refs/REVISION             holds the commit that it meant last
//! models--org--name/snapshots/COMMIT/FILE  -> ../../blobs/HASH
//! .locks/models--org--name/HASH.lock
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::HubError;
use super::content_hash::ContentHash;
use super::name::{Commit, Repository, Revision};
use crate::display::console::Console;

/// Part of the cache that belongs to a repository.
#[derive(Clone, Debug)]
pub(super) struct RepositoryCache {
    /// Folder of all repositories.
    root: PathBuf,
    /// Name of this repository's folder.
    name: String,
}

impl RepositoryCache {
    pub(super) fn new(root: &Path, repository: &Repository) -> Self {
        Self { root: root.to_owned(), name: repository.folder() }
    }

    /// Returns the folder of all repositories.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the folder of a commit.
    pub(super) fn snapshot(&self, commit: &Commit) -> PathBuf {
        self.root.join(&self.name).join("snapshots").join(commit.as_str())
    }

    /// Returns the path of complete content.
    pub(super) fn blob(&self, hash: &ContentHash) -> PathBuf {
        self.root.join(&self.name).join("blobs").join(hash.as_str())
    }

    /// Returns the path of incomplete content.
    pub(super) fn incomplete(&self, hash: &ContentHash) -> PathBuf {
        let name = format!("{}.incomplete", hash.as_str());
        self.root.join(&self.name).join("blobs").join(name)
    }

    /// Returns the commit of a revision at the last request, or `None` if the revision has not been
    /// requested.
    pub(super) fn commit_of(&self, revision: &Revision) -> Option<Commit> {
        if let Some(commit) = revision.commit() {
            return Some(commit);
        }
        Commit::parse(beear_input::read_to_string(self.reference(revision)).ok()?.trim())
    }

    /// Stores the commit of a revision.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub(super) fn refer(&self, revision: &Revision, commit: &Commit) -> Result<(), HubError> {
        if revision.commit().is_some() || self.commit_of(revision).as_ref() == Some(commit) {
            return Ok(());
        }
        let path = self.reference(revision);
        let folder = made(path.parent().unwrap_or(&self.root))?;
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(commit.as_str().as_bytes())?;
            file.persist(&path)?;
            io::Result::Ok(())
        };
        write().map_err(unwritable(&path))
    }

    /// Creates the folders of the content and of a commit.
    ///
    /// # Errors
    ///
    /// If they cannot be created.
    pub(super) fn prepare(&self, commit: &Commit) -> Result<(), HubError> {
        made(&self.root.join(&self.name).join("blobs"))?;
        made(&self.snapshot(commit))?;
        made(&self.locks()).map(drop)
    }

    /// Waits until no other process downloads this content.
    ///
    /// # Errors
    ///
    /// If the lock cannot be acquired.
    pub(super) fn lock(&self, hash: &ContentHash, console: Console) -> Result<File, HubError> {
        let path = self.locks().join(format!("{}.lock", hash.as_str()));
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(unwritable(&path))?;
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {
                console.say("another process downloads the same: waiting");
            }
            Err(TryLockError::Error(source)) => return Err(unwritable(&path)(source)),
        }
        file.lock().map_err(unwritable(&path))?;
        Ok(file)
    }

    /// Links content as `file` in the folder of a commit.
    ///
    /// # Errors
    ///
    /// If the link cannot be written.
    pub(super) fn link(
        &self,
        commit: &Commit,
        file: &str,
        hash: &ContentHash,
    ) -> Result<(), HubError> {
        let path = self.snapshot(commit).join(file);
        let target = Path::new("../../blobs").join(hash.as_str());
        if fs::read_link(&path).is_ok_and(|known| known == target) {
            return Ok(());
        }
        // Renamed into place, because another process may do the same at this moment.
        let part = self.snapshot(commit).join(format!(".{file}.{}", std::process::id()));
        let _ = fs::remove_file(&part);
        let place = || {
            symlink(&target, &part)?;
            fs::rename(&part, &path)
        };
        place().map_err(unwritable(&path))
    }

    fn reference(&self, revision: &Revision) -> PathBuf {
        self.root.join(&self.name).join("refs").join(revision.as_str())
    }

    fn locks(&self) -> PathBuf {
        self.root.join(".locks").join(&self.name)
    }
}

/// Adds the path to an error in writing there.
pub(super) fn unwritable(path: &Path) -> impl Fn(io::Error) -> HubError {
    move |source| HubError::Unwritable { path: path.to_owned(), source }
}

fn made(path: &Path) -> Result<&Path, HubError> {
    fs::create_dir_all(path).map_err(unwritable(path))?;
    Ok(path)
}

#[cfg(unix)]
fn symlink(target: &Path, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

/// Creates a hard link where symbolic links need a privilege.
#[cfg(not(unix))]
fn symlink(target: &Path, path: &Path) -> io::Result<()> {
    fs::hard_link(path.parent().unwrap_or(path).join(target), path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hub::name::HubName;

    #[test]
    fn a_reference_that_is_no_commit_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let name = HubName::parse("org/name@refs/pr/1").unwrap().unwrap();
        let cache = RepositoryCache::new(dir.path(), &name.repository);
        let commit = Commit::parse(&"a1".repeat(20)).unwrap();
        assert_eq!(cache.commit_of(&name.revision), None);
        cache.refer(&name.revision, &commit).unwrap();
        assert_eq!(cache.commit_of(&name.revision), Some(commit));
        let path = dir.path().join("models--org--name/refs/refs/pr/1");
        assert_eq!(fs::read_to_string(&path).unwrap(), "a1".repeat(20));
        fs::write(&path, "../../../etc").unwrap();
        assert_eq!(cache.commit_of(&name.revision), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_relative_and_replaces_another() {
        let dir = tempfile::tempdir().unwrap();
        let name = HubName::parse("org/name").unwrap().unwrap();
        let cache = RepositoryCache::new(dir.path(), &name.repository);
        let commit = Commit::parse(&"a1".repeat(20)).unwrap();
        cache.prepare(&commit).unwrap();
        for (digit, content) in [("b", "old"), ("c", "new"), ("c", "new")] {
            let hash = ContentHash::of_etag(&digit.repeat(40)).unwrap();
            fs::write(cache.blob(&hash), content).unwrap();
            cache.link(&commit, "config.json", &hash).unwrap();
            let path = cache.snapshot(&commit).join("config.json");
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            assert!(fs::read_link(path).unwrap().starts_with("../../blobs"));
        }
        assert_eq!(fs::read_dir(cache.snapshot(&commit)).unwrap().count(), 1);
    }
}
