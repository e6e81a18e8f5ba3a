//! Errors of judge prompts, assessments and runs.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// Minimum number of characters of an API key: a shorter key is not secret, and redacting it would
/// garble messages.
pub(super) const SHORTEST: usize = 8;
/// Maximum number of characters of an API key.
pub(super) const LONGEST: usize = 4096;

/// Error of a judge prompt, an assessment or a run. No message contains an API key.
#[derive(Debug, Error)]
pub enum JudgeError {
    /// A file cannot be read or written.
    #[error("cannot read or write `{}`", path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// A file is not a judge prompt.
    #[error("`{}` is not a judge prompt: {reason}", path.display())]
    NotAPrompt {
        /// Path of the file.
        path: PathBuf,
        /// Problem and its position.
        reason: String,
    },
    /// A template lacks the placeholder of a judged text.
    #[error("the template of judge prompt `{name}` lacks `{placeholder}`")]
    MissingPlaceholder {
        /// Name of the judge prompt.
        name: String,
        /// Missing placeholder.
        placeholder: &'static str,
    },
    /// A template for scoring has the placeholder of a behaviour.
    #[error("the template of judge prompt `{name}` has `{{behaviour}}`, and scoring has none")]
    BehaviourInScoring {
        /// Name of the judge prompt.
        name: String,
    },
    /// The system prompt has a placeholder, but only the template is filled in.
    #[error("the system prompt of judge prompt `{name}` has `{placeholder}`, and is not filled in")]
    PlaceholderInSystem {
        /// Name of the judge prompt.
        name: String,
        /// Placeholder in the system prompt.
        placeholder: &'static str,
    },
    /// A template does not request the verdict line.
    #[error("the template of judge prompt `{name}` does not ask for a line `{line}`")]
    NoVerdictLine {
        /// Name of the judge prompt.
        name: String,
        /// Expected verdict line.
        line: &'static str,
    },
    /// The behaviour to look for is empty.
    #[error("the behaviour to look for is empty")]
    EmptyBehaviour,
    /// An API key cannot be sent, or cannot be redacted.
    #[error(
        "the key is not {}..{} visible ASCII characters without quotes and backslashes",
        SHORTEST,
        LONGEST
    )]
    NotAKey,
    /// A URL is not a server's, or contains parts that belong elsewhere.
    #[error("the judge's URL {problem}")]
    NotAUrl {
        /// Problem of the URL, without its text, which may contain a password.
        problem: &'static str,
    },
    /// The value of a setting is invalid.
    #[error("`{setting}` is {value}, not {expected}")]
    Setting {
        /// Name of the setting.
        setting: &'static str,
        /// Value of the setting.
        value: String,
        /// Allowed values.
        expected: &'static str,
    },
    /// A text contains no readable PEM certificates.
    #[error("there are no certificates in PEM")]
    NoCertificates,
    /// The server rejected the API key; no further request was sent.
    #[error("the judge refuses the key, status {status}: {body}")]
    Unauthorised {
        /// HTTP status, 401 or 403.
        status: u16,
        /// Beginning of the response body.
        body: String,
    },
}

impl JudgeError {
    pub(super) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    /// Returns a one-line suggestion for fixing the error.
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
