//! The error of a file that cannot be written, with advice.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A file of a run that cannot be written, and the reason.
#[derive(Debug, Error)]
#[error("cannot write `{}`", path.display())]
pub(crate) struct CannotWrite {
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

impl CannotWrite {
    /// Adds the path to an error of the system.
    pub(crate) fn at(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self { path: path.to_owned(), source }
    }

    /// Returns advice in one line.
    pub(crate) fn hint(&self) -> &'static str {
        if is_full(self.source.kind()) {
            "free some space, or choose another --out"
        } else {
            "choose another --out, or look at its permissions"
        }
    }
}

/// Returns true if the disk cannot take more data.
pub(crate) fn is_full(kind: ErrorKind) -> bool {
    use ErrorKind::{FileTooLarge, QuotaExceeded, ReadOnlyFilesystem, StorageFull, WriteZero};
    matches!(kind, FileTooLarge | QuotaExceeded | ReadOnlyFilesystem | StorageFull | WriteZero)
}
