//! HTTP requests to a hub and the errors it answers with. The token is sent to the hub only.

use std::time::Duration;

use serde::Deserialize;
use ureq::http::Response;
use ureq::tls::TlsConfig;
use ureq::{Agent, Body, BodyReader};

use super::address::Address;
use super::content_hash::ContentHash;
use super::name::{Commit, HubName, in_url};
use super::settings::Settings;
use super::{HubError, authorities};

/// Maximum number of redirects that are followed for one request.
const MOST_REDIRECTS: usize = 5;

/// Longest list of files that is read, in bytes.
const LONGEST_LISTING: u64 = 16 << 20;

/// Maximum number of characters of a hub's message that an error shows.
const SHOWN: usize = 300;

const CONNECT: Duration = Duration::from_secs(30);

/// Longest time that the hub may send nothing.
const SILENCE: Duration = Duration::from_mins(1);

/// HTTP client of a hub with its settings.
pub(super) struct Client<'a> {
    agent: Agent,
    settings: &'a Settings,
}

/// A repository at a revision: its commit and the names of its files.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) commit: Commit,
    pub(super) files: Vec<String>,
}

/// A file of a repository, as described by the hub.
#[derive(Clone, Debug)]
pub(super) struct RemoteFile {
    pub(super) name: String,
    pub(super) hash: ContentHash,
    pub(super) size: u64,
}

/// Content of a file from an offset on.
pub(super) struct Content {
    pub(super) offset: u64,
    pub(super) body: BodyReader<'static>,
}

#[derive(Deserialize)]
struct ModelInfo {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    Head,
    Get,
}

impl<'a> Client<'a> {
    /// Creates a client with the given settings.
    ///
    /// # Errors
    ///
    /// If the certificates that the environment names cannot be read.
    pub(super) fn new(settings: &'a Settings) -> Result<Self, HubError> {
        let roots = authorities::of_file(settings.authorities.as_deref())?;
        let agent = Agent::config_builder()
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .http_status_as_error(false)
            // Redirects are followed in `send`, which controls the servers that get the token.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("beear/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .build()
            .into();
        Ok(Self { agent, settings })
    }

    /// Requests the current commit and the files of a revision.
    ///
    /// # Errors
    ///
    /// [`HubError`], with one variant per kind of refusal.
    pub(super) fn listing(&self, name: &HubName) -> Result<Listing, HubError> {
        let (repository, revision) = (name.repository.as_str(), name.revision.in_url());
        let path = format!("api/models/{repository}/revision/{revision}");
        let mut response = self.send(Method::Get, &path, None)?;
        if response.status() != 200 {
            return Err(self.refusal(name, None, response));
        }
        let body = response.body_mut().with_config().limit(LONGEST_LISTING).read_to_vec();
        let body = body.map_err(|error| self.unreachable(&error))?;
        let info: ModelInfo = serde_json::from_slice(&body)
            .map_err(|error| HubError::malformed(format!("a list of files: {error}")))?;
        let commit = Commit::parse(&info.sha).ok_or_else(|| HubError::malformed("no commit"))?;
        if name.revision.commit().is_some_and(|asked| asked != commit) {
            return Err(HubError::malformed("another commit than was asked for"));
        }
        let files = info.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        Ok(Listing { commit, files })
    }

    /// Requests the hash and the size of a file.
    ///
    /// # Errors
    ///
    /// [`HubError`], with one variant per kind of refusal.
    pub(super) fn describe(
        &self,
        name: &HubName,
        commit: &Commit,
        file: &str,
    ) -> Result<RemoteFile, HubError> {
        let response = self.send(Method::Head, &path_of(name, commit, file), None)?;
        let header = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
        let status = response.status().as_u16();
        let is_elsewhere = (300..400).contains(&status);
        if status != 200 && !is_elsewhere {
            return Err(self.refusal(name, Some(file), response));
        }
        if header("X-Repo-Commit").is_some_and(|found| found != commit.as_str()) {
            return Err(HubError::malformed("a file of another commit"));
        }
        let lacks = |what: &str| HubError::malformed(format!("no {what} of `{file}`"));
        let etag = header("X-Linked-Etag").or_else(|| header("ETag"));
        let hash =
            etag.and_then(|etag| ContentHash::of_etag(&etag)).ok_or_else(|| lacks("hash"))?;
        let size = header("X-Linked-Size");
        let size = size.or_else(|| header("Content-Length").filter(|_| !is_elsewhere));
        let size = size.and_then(|size| size.parse().ok()).ok_or_else(|| lacks("size"))?;
        Ok(RemoteFile { name: file.to_owned(), hash, size })
    }

    /// Opens the content of a file at `offset`, or at its beginning if the server does not send
    /// parts of files.
    ///
    /// # Errors
    ///
    /// [`HubError`], with one variant per kind of refusal.
    pub(super) fn open(
        &self,
        name: &HubName,
        commit: &Commit,
        (file, offset): (&str, u64),
    ) -> Result<Content, HubError> {
        let range = (offset > 0).then(|| format!("bytes={offset}-"));
        let response = self.send(Method::Get, &path_of(name, commit, file), range.as_deref())?;
        let offset = match response.status().as_u16() {
            200 => 0,
            206 => {
                let range = response.headers().get("Content-Range");
                let range = range.and_then(|range| range.to_str().ok()).unwrap_or_default();
                if !range.starts_with(&format!("bytes {offset}-")) {
                    return Err(HubError::malformed("another part of a file than was asked for"));
                }
                offset
            }
            _ => return Err(self.refusal(name, Some(file), response)),
        };
        Ok(Content { offset, body: response.into_body().into_reader() })
    }

    /// Sends a request to the hub and follows its redirects. A request that describes a file
    /// returns the last response of the hub itself, in which the hub describes content that is
    /// stored elsewhere.
    fn send(
        &self,
        method: Method,
        path: &str,
        range: Option<&str>,
    ) -> Result<Response<Body>, HubError> {
        let hub = &self.settings.endpoint;
        let (mut address, mut is_trusted) = (hub.below(path), true);
        for _ in 0..=MOST_REDIRECTS {
            let response = self.send_once(method, (&address, is_trusted), range)?;
            let Some(next) = redirect(&address, &response)? else { return Ok(response) };
            if next.is_open() && !hub.is_open() {
                return Err(HubError::LedAstray { address: self.shown(next.as_str()) });
            }
            is_trusted = is_trusted && next.is_of_the_server_of(hub);
            let linked = ["X-Linked-Etag", "X-Linked-Size"];
            let is_described = linked.iter().all(|name| response.headers().contains_key(*name));
            if method == Method::Head && (is_described || !is_trusted) {
                return Ok(response);
            }
            address = next;
        }
        Err(HubError::malformed("too many redirects"))
    }

    fn send_once(
        &self,
        method: Method,
        (address, is_trusted): (&Address, bool),
        range: Option<&str>,
    ) -> Result<Response<Body>, HubError> {
        let mut request = match method {
            Method::Head => self.agent.head(address.as_str()),
            Method::Get => self.agent.get(address.as_str()),
        };
        // Compressed content would have another size, and parts of it would not be parts of the
        // file.
        request = request.header("Accept-Encoding", "identity");
        if let Some(range) = range {
            request = request.header("Range", range);
        }
        if let Some(token) = self.settings.token.as_ref().filter(|_| is_trusted) {
            request = request.header("Authorization", token.bearer());
        }
        request.call().map_err(|error| self.unreachable(&error))
    }

    /// Returns the error that an unsuccessful status means.
    fn refusal(
        &self,
        name: &HubName,
        file: Option<&str>,
        mut response: Response<Body>,
    ) -> HubError {
        let status = response.status().as_u16();
        let header = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
        let code = header("X-Error-Code").unwrap_or_default();
        let said = header("X-Error-Message");
        let repository = name.repository.as_str().to_owned();
        let page = self.settings.endpoint.below(&repository).as_str().to_owned();
        let has_token = self.settings.token.is_some();
        let is_of_repository = ["GatedRepo", "RepoNotFound"].contains(&&*code);
        match (status, &*code, file) {
            (401, _, _) if has_token && !is_of_repository => {
                HubError::TokenRefused { page, status }
            }
            (401, "GatedRepo", _) | (403, _, _) => {
                HubError::Gated { repository, page, status, has_token }
            }
            (404, "RevisionNotFound", _) => {
                let revision = name.revision.as_str().to_owned();
                HubError::NoRevision { repository, revision, page }
            }
            (404, _, Some(file)) if !is_of_repository => {
                HubError::NoFile { repository, file: file.to_owned() }
            }
            (401 | 404, _, _) => HubError::NoRepository { repository, page, status, has_token },
            _ => {
                let body =
                    || response.body_mut().with_config().limit(1 << 16).read_to_string().ok();
                let said = said.or_else(body).unwrap_or_default();
                HubError::Status { status, said: self.shown(&said) }
            }
        }
    }

    fn unreachable(&self, error: &ureq::Error) -> HubError {
        self.broken(&error.to_string())
    }

    /// Returns the error of a broken connection.
    pub(super) fn broken(&self, reason: &str) -> HubError {
        let endpoint = self.settings.endpoint.as_str().to_owned();
        HubError::Unreachable { endpoint, reason: self.shown(reason) }
    }

    /// Prepares a server's text for people: removes the token and limits the length.
    fn shown(&self, text: &str) -> String {
        let token = self.settings.token.as_ref();
        let text = token.map_or_else(|| text.to_owned(), |token| token.redact(text));
        let text = text.trim().replace(|c: char| c.is_control(), " ");
        match text.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}..", &text[..end]),
            None => text,
        }
    }
}

fn path_of(name: &HubName, commit: &Commit, file: &str) -> String {
    format!("{}/resolve/{}/{}", name.repository.as_str(), commit.as_str(), in_url(file))
}

/// Returns the target of a response that is a redirect.
fn redirect(from: &Address, response: &Response<Body>) -> Result<Option<Address>, HubError> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let location = response.headers().get("Location").and_then(|value| value.to_str().ok());
    let next = location.and_then(|location| from.redirected(location));
    next.map(Some).ok_or_else(|| HubError::malformed("a redirect to nowhere"))
}
