//! Opening of input files: only regular files are read, so no input blocks or is endless.

mod own_folder;

use std::fs::{File, FileType, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use own_folder::OwnFolder;

/// Reason why an existing file is not read. The functions of this crate return it inside an
/// [`io::Error`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The path is a pipe, a device, a socket or a folder.
    #[error("{kind} instead of a regular file")]
    NotRegular {
        /// Kind of the file, with its article.
        kind: &'static str,
    },
    /// A symbolic link in a folder leads to a file outside of that folder.
    #[error("the link leaves the folder: {}", target.display())]
    LeavesFolder {
        /// Target of the link.
        target: PathBuf,
    },
    /// The file is larger than a file of its kind needs to be.
    #[error("the file has {n_bytes} bytes, at most {limit} are read")]
    TooLarge {
        /// Size of the file.
        n_bytes: u64,
        /// Maximum size that is read.
        limit: u64,
    },
}

/// Name of the folder kind.
const FOLDER: &str = "a folder";

impl Refusal {
    /// Returns the refusal inside `error`, if this crate refused a file.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// Returns a one-line suggestion for fixing the refusal.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotRegular { kind: FOLDER } => "name a file, not a folder",
            Self::NotRegular { .. } => {
                "inputs are read more than once: write the content to a file and name that file"
            }
            Self::LeavesFolder { .. } => {
                "if the file belongs to the model, put a copy in the place of the link"
            }
            Self::TooLarge { .. } => "check that the path names the right file",
        }
    }
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        Self::new(ErrorKind::InvalidInput, refusal)
    }
}

/// Opens a regular file for reading. Links are followed; nothing else is opened, and the call never
/// blocks.
///
/// # Errors
///
/// Returns an error if the file does not exist or cannot be read, and a [`Refusal`] if it is not a
/// regular file.
pub fn open(path: impl AsRef<Path>) -> io::Result<File> {
    let path = path.as_ref();
    // Checked before opening too, because opening a device can have effects.
    refuse_irregular(std::fs::metadata(path)?.file_type())?;
    let mut options = OpenOptions::new();
    options.read(true);
    // The path may have become a pipe, and opening a pipe waits for its writer.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    let file = options.open(path)?;
    refuse_irregular(file.metadata()?.file_type())?;
    Ok(file)
}

/// Reads a regular file.
///
/// # Errors
///
/// Returns the errors of [`open`].
pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut file = open(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a regular file with UTF-8 text.
///
/// # Errors
///
/// Returns the errors of [`open`], and an error if the file is not UTF-8.
pub fn read_to_string(path: impl AsRef<Path>) -> io::Result<String> {
    let mut file = open(path)?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// Returns a [`Refusal`] for everything but regular files.
fn refuse_irregular(file_type: FileType) -> io::Result<()> {
    if file_type.is_file() {
        return Ok(());
    }
    let kind = if file_type.is_dir() { FOLDER } else { special_kind(file_type) };
    Err(Refusal::NotRegular { kind }.into())
}

#[cfg(unix)]
fn special_kind(file_type: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    if file_type.is_fifo() {
        "a pipe"
    } else if file_type.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

#[cfg(not(unix))]
fn special_kind(_: FileType) -> &'static str {
    "a device"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal<T>(result: io::Result<T>) -> Refusal {
        let Err(error) = result else { panic!("the file is refused") };
        Refusal::of(&error).expect("a refusal").clone()
    }

    #[test]
    fn a_regular_file_is_read_through_links() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.jsonl");
        std::fs::write(&path, "é").unwrap();
        assert_eq!(read(&path).unwrap(), "é".as_bytes());
        assert_eq!(read_to_string(&path).unwrap(), "é");
        std::fs::write(&path, [0xff]).unwrap();
        assert_eq!(read_to_string(&path).unwrap_err().kind(), ErrorKind::InvalidData);
        let missing = open(dir.path().join("missing")).unwrap_err();
        assert_eq!((missing.kind(), Refusal::of(&missing)), (ErrorKind::NotFound, None));
    }

    #[test]
    fn a_folder_is_no_input() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(refusal(read(dir.path())), Refusal::NotRegular { kind: "a folder" });
    }

    #[cfg(unix)]
    #[test]
    fn pipes_devices_and_sockets_are_refused_at_once() {
        use std::os::unix::{fs::symlink, net::UnixListener};

        let dir = tempfile::tempdir().unwrap();
        let [fifo, link, socket] = ["fifo", "link", "socket"].map(|name| dir.path().join(name));
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        symlink(&fifo, &link).unwrap();
        let _listener = UnixListener::bind(&socket).unwrap();
        let pipe = Refusal::NotRegular { kind: "a pipe" };
        // A pipe without a writer would block forever.
        assert_eq!([refusal(open(&fifo)), refusal(read(&link))], [pipe.clone(), pipe]);
        assert_eq!(refusal(open(&socket)), Refusal::NotRegular { kind: "a socket" });
        let device = Refusal::NotRegular { kind: "a device" };
        assert_eq!(refusal(read_to_string("/dev/zero")), device);
        assert!(device.hint().contains("a file"));
    }
}
