//! Why a model of a hub cannot be had.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::memory::bytes::show;
use crate::run_folder::cannot_write::is_full;

/// Why a model of a hub cannot be had.
#[derive(Debug, Error)]
pub(crate) enum HubError {
    /// What stands after the `@` cannot be a revision.
    #[error("`{revision}` cannot be a revision")]
    NotARevision { revision: String },
    /// `HF_ENDPOINT` is no address.
    #[error("HF_ENDPOINT is no address of a hub")]
    NotAnEndpoint,
    /// A token has characters that no token has.
    #[error("the token of the hub has characters that no token has")]
    NotAToken,
    /// Nothing says where the cache is.
    #[error("no variable says where the cache of the hub is")]
    NoHome,
    /// A file that the environment names cannot be read.
    #[error("cannot read `{}`", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// A file that should hold certificates holds none.
    #[error("`{}` holds no certificate in PEM", path.display())]
    NoCertificates { path: PathBuf },
    /// The cache cannot be written.
    #[error("cannot write `{}`", path.display())]
    Unwritable { path: PathBuf, source: io::Error },
    /// The disk of the cache is too small.
    #[error("the download takes {}, {} are free in `{}`", show(*needed), show(*free), cache.display())]
    NoSpace { needed: u64, free: u64, cache: PathBuf },
    /// The cache does not hold a model, and nobody else is asked.
    #[error("no folder `{name}` is here, nor is that model whole in the cache `{}`", cache.display())]
    NotCached { name: String, cache: PathBuf },
    /// No connection, or it broke.
    #[error("cannot reach the hub at {endpoint}: {reason}")]
    Unreachable { endpoint: String, reason: String },
    /// There is no such repository, or it is not shown to strangers.
    #[error(
        "no folder `{repository}` is here, and the hub shows no such repository (status {status})"
    )]
    NoRepository { repository: String, page: String, status: u16, has_token: bool },
    /// The token does not count.
    #[error("the hub refuses the token (status {status})")]
    TokenRefused { page: String, status: u16 },
    /// The licence has not been accepted.
    #[error("the hub does not give `{repository}` {} (status {status})", whom(*has_token))]
    Gated { repository: String, page: String, status: u16, has_token: bool },
    /// The repository has no such revision.
    #[error("`{repository}` has no revision `{revision}`")]
    NoRevision { repository: String, revision: String, page: String },
    /// The repository has no such file.
    #[error("`{repository}` has no file `{file}`")]
    NoFile { repository: String, file: String },
    /// Anything else than was asked for.
    #[error("the hub answers with status {status}{}", because(said))]
    Status { status: u16, said: String },
    /// A reply that means nothing.
    #[error("the hub's reply makes no sense: {reason}")]
    Malformed { reason: String },
    /// A redirect to where nobody should follow.
    #[error("the hub leads to `{address}`")]
    LedAstray { address: String },
    /// A file of a repository would leave its folder.
    #[error("the repository has a file outside its folder: {file}")]
    EscapingFile { file: String },
    /// A file is not what the hub says it is.
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
    /// What to do about it, in one line.
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

    /// The exit code.
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

    /// Whether the hub has said nothing of the model.
    pub(super) fn is_silence(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Status { status: 429 | 500.., .. })
    }

    pub(super) fn malformed(reason: impl Into<String>) -> Self {
        Self::Malformed { reason: reason.into() }
    }
}
