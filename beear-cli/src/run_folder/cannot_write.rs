//! Files that cannot be written, and what to do about them.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A part of a run that cannot be written, and why.
#[derive(Debug, Error)]
#[error("cannot write `{}`", path.display())]
pub(crate) struct CannotWrite {
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

impl CannotWrite {
    /// Puts the path to what the system said.
    pub(crate) fn at(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self { path: path.to_owned(), source }
    }

    /// What to do about it, in one line.
    pub(crate) fn hint(&self) -> &'static str {
        if is_full(self.source.kind()) {
            "free some space, or choose another --out"
        } else {
            "choose another --out, or look at its permissions"
        }
    }
}

/// Whether a disk takes no more.
pub(crate) fn is_full(kind: ErrorKind) -> bool {
    use ErrorKind::{FileTooLarge, QuotaExceeded, ReadOnlyFilesystem, StorageFull, WriteZero};
    matches!(kind, FileTooLarge | QuotaExceeded | ReadOnlyFilesystem | StorageFull | WriteZero)
}
