//! Access to the files of an untrusted folder.
//!
//! A symbolic link in a model's folder can name any file of the reader's machine. A file *belongs*
//! to a folder if its resolved path lies inside the folder, or inside `blobs` of the cached
//! repository that the folder is a snapshot of: in the Hugging Face cache,
//! `snapshots/REVISION/config.json` is a link to `../../blobs/HASH`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::{Refusal, open};

/// Folder of which only the files that belong to it are opened.
#[derive(Clone, Debug)]
pub struct OwnFolder {
    dir: PathBuf,
    /// Resolved folders in which files belong to this folder.
    roots: Vec<PathBuf>,
}

impl OwnFolder {
    /// Creates access to a folder, which may itself be named through links.
    ///
    /// # Errors
    ///
    /// Returns an error if the folder does not exist.
    pub fn new(dir: &Path) -> io::Result<Self> {
        let real = dir.canonicalize()?;
        let blobs = blobs_of_snapshot(&real);
        Ok(Self { dir: dir.to_owned(), roots: std::iter::once(real).chain(blobs).collect() })
    }

    /// Returns the resolved path of the file `name`.
    ///
    /// # Errors
    ///
    /// Returns an error if the file does not exist, and [`Refusal::LeavesFolder`] if it does not
    /// belong to the folder.
    pub fn resolve(&self, name: &Path) -> io::Result<PathBuf> {
        let target = self.dir.join(name).canonicalize()?;
        if self.roots.iter().any(|root| target.starts_with(root)) {
            Ok(target)
        } else {
            Err(Refusal::LeavesFolder { target }.into())
        }
    }

    /// Opens the file `name` if it is a regular file and belongs to the folder.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`resolve`](Self::resolve) and [`open`].
    pub fn open(&self, name: &Path) -> io::Result<File> {
        open(&self.resolve(name)?)
    }

    /// Reads the file `name`, which has at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`open`](Self::open), and [`Refusal::TooLarge`] if the file is larger.
    pub fn read(&self, name: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let file = self.open(name)?;
        let n_bytes = file.metadata()?.len();
        if n_bytes > limit {
            return Err(Refusal::TooLarge { n_bytes, limit }.into());
        }
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads the file `name` as UTF-8 text of at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`read`](Self::read), and an error if the file is not UTF-8.
    pub fn read_to_string(&self, name: &Path, limit: u64) -> io::Result<String> {
        let text = String::from_utf8(self.read(name, limit)?);
        text.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// Returns the folder `blobs` beside the ancestor `snapshots` of `real`. None if `blobs` is a link,
/// which may lead anywhere.
fn blobs_of_snapshot(real: &Path) -> Option<PathBuf> {
    let snapshots = real.ancestors().skip(1).find(|folder| folder.ends_with("snapshots"))?;
    let blobs = snapshots.parent()?.join("blobs");
    blobs.symlink_metadata().ok()?.is_dir().then_some(blobs)
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const LIMIT: u64 = 100;

    fn read(dir: &Path, name: &str) -> io::Result<String> {
        OwnFolder::new(dir)?.read_to_string(Path::new(name), LIMIT)
    }

    fn leaves(result: io::Result<String>) -> bool {
        result.is_err_and(|error| matches!(Refusal::of(&error), Some(Refusal::LeavesFolder { .. })))
    }

    #[test]
    fn links_inside_the_folder_are_followed_and_links_out_of_it_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("model");
        fs::create_dir_all(model.join("sub")).unwrap();
        fs::write(dir.path().join("secret"), "s").unwrap();
        fs::write(model.join("sub/own"), "o").unwrap();
        symlink("sub/own", model.join("inside")).unwrap();
        symlink(dir.path().join("secret"), model.join("absolute")).unwrap();
        symlink("../secret", model.join("relative")).unwrap();
        symlink("..", model.join("folder")).unwrap();
        symlink("absolute", model.join("twice")).unwrap();
        assert_eq!(read(&model, "inside").unwrap(), "o");
        for name in ["absolute", "relative", "twice", "folder/secret", "../secret", "/etc/passwd"] {
            assert!(leaves(read(&model, name)), "{name}");
        }
        // The name of the folder itself may be a link.
        symlink("model", dir.path().join("alias")).unwrap();
        assert_eq!(read(&dir.path().join("alias"), "sub/own").unwrap(), "o");
        // A sibling whose name begins with the folder's name is outside.
        fs::create_dir(dir.path().join("model-b")).unwrap();
        fs::write(dir.path().join("model-b/x"), "x").unwrap();
        symlink("../model-b/x", model.join("sibling")).unwrap();
        assert!(leaves(read(&model, "sibling")));
    }

    #[test]
    fn a_snapshot_of_the_hub_cache_owns_its_blobs_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let repository = dir.path().join("models--org--name");
        let snapshot = repository.join("snapshots/abc");
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir_all(repository.join("blobs")).unwrap();
        fs::write(repository.join("blobs/hash"), "b").unwrap();
        fs::create_dir_all(repository.join("refs")).unwrap();
        fs::write(repository.join("refs/main"), "r").unwrap();
        symlink("../../blobs/hash", snapshot.join("config.json")).unwrap();
        symlink("../../refs/main", snapshot.join("README.md")).unwrap();
        assert_eq!(read(&snapshot, "config.json").unwrap(), "b");
        assert!(leaves(read(&snapshot, "README.md")));
        // A `blobs` that is a link to another place does not belong to the repository.
        fs::create_dir(dir.path().join("private")).unwrap();
        fs::write(dir.path().join("private/hash"), "s").unwrap();
        fs::remove_dir_all(repository.join("blobs")).unwrap();
        symlink(dir.path().join("private"), repository.join("blobs")).unwrap();
        assert!(leaves(read(&snapshot, "config.json")));
    }

    #[test]
    fn a_file_beyond_its_limit_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("long"), vec![b'a'; 101]).unwrap();
        let error = read(dir.path(), "long").unwrap_err();
        assert_eq!(Refusal::of(&error), Some(&Refusal::TooLarge { n_bytes: 101, limit: 100 }));
        fs::write(dir.path().join("long"), vec![b'a'; 100]).unwrap();
        assert_eq!(read(dir.path(), "long").unwrap().len(), 100);
    }
}
