//! Errors of obtaining a model from a hub.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::memory::bytes::show;
use crate::run_folder::cannot_write::is_full;

/// Reason why a model cannot be obtained from a hub.
#[derive(Debug, Error)]
pub(crate) enum HubError {
    /// The text after the `@` cannot be a revision.
    #[error("`{revision}` cannot be a revision")]
    NotARevision { revision: String },
    /// `HF_ENDPOINT` is not a valid address.
    #[error("HF_ENDPOINT is no address of a hub")]
    NotAnEndpoint,
    /// The token contains characters that no token has.
    #[error("the token of the hub has characters that no token has")]
    NotAToken,
    /// No environment variable tells the place of the cache.
    #[error("no variable says where the cache of the hub is")]
    NoHome,
    /// A file that the environment names cannot be read.
    #[error("cannot read `{}`", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// A file that should contain certificates contains none.
    #[error("`{}` holds no certificate in PEM", path.display())]
    NoCertificates { path: PathBuf },
    /// The cache cannot be written.
    #[error("cannot write `{}`", path.display())]
    Unwritable { path: PathBuf, source: io::Error },
    /// The disk of the cache has too little space.
    #[error("the download takes {}, {} are free in `{}`", show(*needed), show(*free), cache.display())]
    NoSpace { needed: u64, free: u64, cache: PathBuf },
    /// The cache does not have the whole model, and no request may be made.
    #[error("no folder `{name}` is here, nor is that model whole in the cache `{}`", cache.display())]
    NotCached { name: String, cache: PathBuf },
    /// There is no connection, or it broke.
    #[error("cannot reach the hub at {endpoint}: {reason}")]
    Unreachable { endpoint: String, reason: String },
    /// There is no such repository, or it is hidden from this user.
    #[error(
        "no folder `{repository}` is here, and the hub shows no such repository (status {status})"
    )]
    NoRepository { repository: String, page: String, status: u16, has_token: bool },
    /// The hub rejects the token.
    #[error("the hub refuses the token (status {status})")]
    TokenRefused { page: String, status: u16 },
    /// The licence of the model has not been accepted.
    #[error("the hub does not give `{repository}` {} (status {status})", whom(*has_token))]
    Gated { repository: String, page: String, status: u16, has_token: bool },
    /// The repository has no such revision.
    #[error("`{repository}` has no revision `{revision}`")]
    NoRevision { repository: String, revision: String, page: String },
    /// The repository has no such file.
    #[error("`{repository}` has no file `{file}`")]
    NoFile { repository: String, file: String },
    /// Any other unsuccessful status.
    #[error("the hub answers with status {status}{}", because(said))]
    Status { status: u16, said: String },
    /// A reply that cannot be interpreted.
    #[error("the hub's reply makes no sense: {reason}")]
    Malformed { reason: String },
    /// A redirect that must not be followed.
    #[error("the hub leads to `{address}`")]
    LedAstray { address: String },
    /// A file of the repository would be outside its folder.
    #[error("the repository has a file outside its folder: {file}")]
    EscapingFile { file: String },
    /// A file does not have the hash that the hub reported.
    #[error("`{file}` of `{repository}` does not have the hash that the hub says; it was removed")]
    WrongHash { repository: String, file: String },
}

fn whom(has_token: bool) -> &'static str {
    if has_token { "to the account of the token" } else { "without a token" }
}

fn because(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

impl HubError {
    /// Returns advice in one line.
    pub(crate) fn hint(&self) -> String {
        let fixed = match self {
            Self::NotARevision { .. } => "name a branch, a tag or a commit after the `@`",
            Self::NotAnEndpoint => "set HF_ENDPOINT to an address such as https://huggingface.co",
            Self::NotAToken => "look at HF_TOKEN, or at the file that HF_TOKEN_PATH names",
            Self::NoHome => "set HF_HOME, or HF_HUB_CACHE",
            Self::Unreadable { .. } => "look at its permissions",
            Self::NoCertificates { .. } => {
                "look at REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE or SSL_CERT_FILE"
            }
            Self::Unwritable { source, .. } if !is_full(source.kind()) => {
                "look at its permissions, or set HF_HUB_CACHE to another folder"
            }
            Self::Unwritable { .. } | Self::NoSpace { .. } => {
                "free some space, or set HF_HUB_CACHE to a folder on another disk"
            }
            Self::NotCached { .. } => {
                "without HF_HUB_OFFLINE a command downloads it; or correct the folder"
            }
            Self::Unreachable { reason, .. } if reason.contains("certificate") => {
                "set SSL_CERT_FILE to the certificates that your network trusts, in PEM"
            }
            Self::Unreachable { .. } => {
                "look at the connection, or name a folder; what was downloaded stays and is gone on with"
            }
            Self::NoRepository { page, has_token: false, .. } => {
                return format!(
                    "correct the name; if {page} is private or gated, accept its licence there and set HF_TOKEN"
                );
            }
            Self::NoRepository { page, .. } => {
                return format!("correct the name; the token may not see {page}");
            }
            Self::TokenRefused { page, .. } => {
                return format!("set HF_TOKEN to a token that is valid and may read {page}");
            }
            Self::Gated { page, has_token: false, .. } => {
                return format!("accept its licence at {page} and set HF_TOKEN");
            }
            Self::Gated { page, .. } => {
                return format!(
                    "accept its licence at {page} with that account, and let the token read gated repositories"
                );
            }
            Self::NoRevision { page, .. } => {
                return format!("{page}/tree/main lists its branches and tags");
            }
            Self::NoFile { .. } => "choose another revision, or another model",
            Self::Status { status: 429, .. } => "wait a while; a token raises the limits",
            Self::Status { .. } | Self::Malformed { .. } => {
                "try again later, or look at HF_ENDPOINT"
            }
            Self::LedAstray { .. } | Self::EscapingFile { .. } => "do not trust this hub",
            Self::WrongHash { .. } => "download it again; if that fails too, do not trust it",
        };
        fixed.to_owned()
    }

    /// Returns the exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::NotARevision { .. }
            | Self::NotAnEndpoint
            | Self::NotAToken
            | Self::NoHome
            | Self::NoCertificates { .. } => 2,
            Self::Unwritable { .. } | Self::NoSpace { .. } => 6,
            _ => 3,
        }
    }

    /// Returns true if the hub has told nothing about the model: there was no connection, or it
    /// answered with too many requests or a server error.
    pub(super) fn is_silence(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Status { status: 429 | 500.., .. })
    }

    pub(super) fn malformed(reason: impl Into<String>) -> Self {
        Self::Malformed { reason: reason.into() }
    }
}
