//! Why a judgement cannot be asked for, or a run cannot go on.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// Fewest characters of a key: a shorter one is not secret, and leaving it out would garble what is shown.
pub(super) const SHORTEST: usize = 8;
/// Most characters of a key.
pub(super) const LONGEST: usize = 4096;

/// Why a judgement cannot be asked for, or a run cannot go on. No message holds a key.
#[derive(Debug, Error)]
pub enum JudgeError {
    /// A file cannot be read or written.
    #[error("cannot read or write `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not a judge prompt.
    #[error("`{}` is not a judge prompt: {reason}", path.display())]
    NotAPrompt {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
    /// A template leaves out what is judged.
    #[error("the template of judge prompt `{name}` lacks `{placeholder}`")]
    MissingPlaceholder {
        /// The prompt.
        name: String,
        /// What is missing.
        placeholder: &'static str,
    },
    /// A template asks for a behaviour where there is none.
    #[error("the template of judge prompt `{name}` has `{{behaviour}}`, and scoring has none")]
    BehaviourInScoring {
        /// The prompt.
        name: String,
    },
    /// The system prompt has a placeholder, and is not filled.
    #[error("the system prompt of judge prompt `{name}` has `{placeholder}`, and is not filled in")]
    PlaceholderInSystem {
        /// The prompt.
        name: String,
        /// What is there.
        placeholder: &'static str,
    },
    /// A prompt does not ask for the line that is read.
    #[error("the template of judge prompt `{name}` does not ask for a line `{line}`")]
    NoVerdictLine {
        /// The prompt.
        name: String,
        /// The line that is read.
        line: &'static str,
    },
    /// There is no behaviour to look for.
    #[error("the behaviour to look for is empty")]
    EmptyBehaviour,
    /// A key cannot be sent, or cannot be kept out of what is shown.
    #[error(
        "the key is not {}..{} visible ASCII characters without quotes and backslashes",
        SHORTEST,
        LONGEST
    )]
    NotAKey,
    /// An address is not one of a server, or has what belongs elsewhere.
    #[error("the judge's URL {problem}")]
    NotAUrl {
        /// What is wrong with it, without its text, which may hold a password.
        problem: &'static str,
    },
    /// A setting makes no sense.
    #[error("`{setting}` is {value}, not {expected}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// Text that should hold certificates and holds none that can be read.
    #[error("there are no certificates in PEM")]
    NoCertificates,
    /// The server refuses the key: nothing more was asked.
    #[error("the judge refuses the key, status {status}: {body}")]
    Unauthorised {
        /// 401 or 403.
        status: u16,
        /// The beginning of what it says.
        body: String,
    },
}

impl JudgeError {
    pub(super) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    /// What to do about it, in one line.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Io { .. } => "check the path, the permissions and the space on the disk",
            Self::NotAPrompt { .. } => "a judge prompt has `name`, `template` and perhaps `system`",
            Self::MissingPlaceholder { .. } => "write it where the text belongs",
            Self::BehaviourInScoring { .. } => "take it out, or ask for a yes or no",
            Self::PlaceholderInSystem { .. } => "move it to the template",
            Self::NoVerdictLine { .. } => "tell the judge to end with that line and nothing else",
            Self::EmptyBehaviour => "say in a sentence what the answer must not do",
            Self::NotAKey => "a server that wants no key needs none",
            Self::NotAUrl { .. } => "it looks like `https://host/v1`; the key is given apart",
            Self::NoCertificates => "it holds blocks that begin with `-----BEGIN CERTIFICATE-----`",
            Self::Setting { .. } => return None,
            Self::Unauthorised { .. } => {
                "check the key and what it may use; what was judged is kept, if there is a cache"
            }
        })
    }
}
