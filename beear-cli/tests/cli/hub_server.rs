//! A hub on this machine that speaks the endpoints of huggingface.co, keeps large files elsewhere, and counts.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::fixture::{Finished, Place, finish};

/// The token of whoever has one.
pub(crate) const TOKEN: &str = "hf_SecretOfTheTest0123456789";

/// A request as a server saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Whether it came to where large files are.
    pub(crate) is_elsewhere: bool,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) range: Option<String>,
    pub(crate) authorization: Option<String>,
}

/// What happens to a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Twist {
    /// What should.
    None,
    /// The content ends after so many bytes.
    Cut(usize),
    /// The last byte is another.
    Wrong,
    /// It is refused with a status and an error code.
    Refuse(u16, &'static str),
    /// It is sent on to the same path of another repository.
    Moved(&'static str),
    /// The file is said to have another size.
    Huge,
}

/// What a repository holds, by name.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

type Script = dyn FnMut(&Seen) -> Twist + Send;

struct State {
    repositories: BTreeMap<String, Files>,
    script: Box<Script>,
    seen: Vec<Seen>,
}

/// A hub and the server of its large files.
pub(crate) struct Hub {
    pub(crate) endpoint: String,
    state: Arc<Mutex<State>>,
}

impl Hub {
    /// A hub of these repositories.
    pub(crate) fn start(repositories: impl IntoIterator<Item = (&'static str, Files)>) -> Self {
        Self::start_with(repositories, None)
    }

    /// The same over `https`.
    pub(crate) fn start_secure(
        repositories: impl IntoIterator<Item = (&'static str, Files)>,
        tls: ServerConfig,
    ) -> Self {
        Self::start_with(repositories, Some(Arc::new(tls)))
    }

    fn start_with(
        repositories: impl IntoIterator<Item = (&'static str, Files)>,
        tls: Option<Arc<ServerConfig>>,
    ) -> Self {
        let named = |(name, files): (&str, Files)| (name.to_owned(), files);
        let repositories = repositories.into_iter().map(named).collect();
        let script = Box::new(|_: &Seen| Twist::None);
        let state = Arc::new(Mutex::new(State { repositories, script, seen: Vec::new() }));
        let [hub, elsewhere] =
            [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port is free"));
        let url = |listener: &TcpListener| {
            let scheme = if tls.is_some() { "https" } else { "http" };
            format!("{scheme}://{}", listener.local_addr().expect("it is bound"))
        };
        let (endpoint, store) = (url(&hub), url(&elsewhere));
        for (listener, is_elsewhere) in [(hub, false), (elsewhere, true)] {
            let (state, store, tls) = (Arc::clone(&state), store.clone(), tls.clone());
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let (state, store, tls) = (Arc::clone(&state), store.clone(), tls.clone());
                    let answer = move |stream: &mut dyn ReadWrite| {
                        serve(stream, is_elsewhere, &store, &state)
                    };
                    // A client that goes away is no mistake of the test.
                    thread::spawn(move || drop(open(stream, tls, answer)));
                }
            });
        }
        Self { endpoint, state }
    }

    /// Changes what happens to requests from now on.
    pub(crate) fn twist(&self, script: impl FnMut(&Seen) -> Twist + Send + 'static) {
        self.state.lock().expect("no thread panicked").script = Box::new(script);
    }

    /// Puts other files into a repository.
    pub(crate) fn push(&self, repository: &str, files: Files) {
        let repositories = &mut self.state.lock().expect("no thread panicked").repositories;
        repositories.insert(repository.to_owned(), files);
    }

    /// What was asked since the last time.
    pub(crate) fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state.lock().expect("no thread panicked").seen)
    }

    /// Runs `beear` in the place with this hub, a cache in `hf`, and a token if there is to be one.
    pub(crate) fn beear(&self, place: &Place, token: Option<&str>, arguments: &[&str]) -> Finished {
        finish(&mut self.command(place, token, arguments), "")
    }

    /// The same, not started yet.
    pub(crate) fn command(
        &self,
        place: &Place,
        token: Option<&str>,
        arguments: &[&str],
    ) -> Command {
        let mut command = place.command(arguments);
        let hub = ["HF_HUB_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN"];
        let authorities = ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"];
        for name in hub.into_iter().chain(authorities) {
            command.env_remove(name);
        }
        command.env("HF_ENDPOINT", &self.endpoint).env("HF_HOME", place.path("hf"));
        command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
        if let Some(token) = token {
            command.env("HF_TOKEN", token);
        }
        command
    }
}

/// The commit of a repository: another one for other content.
pub(crate) fn commit(files: &Files) -> String {
    let mut hasher = Sha1::new();
    for (name, content) in files {
        hasher.update(name);
        hasher.update(content);
    }
    hexadecimal(&hasher.finalize())
}

/// Whether the hub keeps a file elsewhere.
fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors")
}

/// The name of a file's content in the cache.
pub(crate) fn hash(name: &str, content: &[u8]) -> String {
    if is_large(name) {
        return hexadecimal(&Sha256::digest(content));
    }
    let head = format!("blob {}\0", content.len());
    hexadecimal(&Sha1::digest([head.as_bytes(), content].concat()))
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digit = |digit: u8| char::from_digit(u32::from(digit), 16).expect("it is below 16");
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// A reply: status, header lines and content.
struct Reply(u16, Vec<String>, Vec<u8>);

trait ReadWrite: Read + Write {}

impl<T: Read + Write> ReadWrite for T {}

/// Answers on a connection, in secret if there is a configuration for that.
fn open(
    mut stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    answer: impl FnOnce(&mut dyn ReadWrite) -> io::Result<()>,
) -> io::Result<()> {
    let Some(tls) = tls else { return answer(&mut stream) };
    let connection = ServerConnection::new(tls).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    answer(&mut stream)?;
    stream.conn.send_close_notify();
    stream.flush()
}

fn serve(
    stream: &mut dyn ReadWrite,
    is_elsewhere: bool,
    store: &str,
    state: &Mutex<State>,
) -> io::Result<()> {
    let Some(seen) = request(stream, is_elsewhere)? else { return Ok(()) };
    let (twist, reply) = {
        let state = &mut *state.lock().expect("no thread panicked");
        state.seen.push(seen.clone());
        let twist = (state.script)(&seen);
        let reply = match twist {
            Twist::Refuse(status, code) => {
                let token = seen.authorization.as_deref().unwrap_or("no token");
                let said = format!("X-Error-Message: not with {token}");
                let code = format!("X-Error-Code: {code}");
                Reply(status, vec![code, said], Vec::new())
            }
            Twist::Moved(to) => {
                let place = seen.path.find("org/").expect("a path has an organisation");
                let rest = seen.path[place..].splitn(3, '/').nth(2).expect("and a name");
                let location = format!("Location: {}{to}/{rest}", &seen.path[..place]);
                Reply(307, vec![location], Vec::new())
            }
            _ if is_elsewhere => stored(&seen, &state.repositories),
            _ => said(&seen, store, &state.repositories),
        };
        (twist, reply)
    };
    let Reply(status, mut head, mut content) = reply;
    if let (Twist::Wrong, Some(last)) = (twist, content.last_mut()) {
        *last ^= 1;
    }
    if let Twist::Huge = twist {
        head.retain(|line| !line.starts_with("X-Linked-Size"));
        head.push(format!("X-Linked-Size: {}", 1_u64 << 60));
    }
    head.push(format!("Content-Length: {}", content.len()));
    if let Twist::Cut(length) = twist {
        content.truncate(length);
    }
    let head = head.join("\r\n");
    let head = format!("HTTP/1.1 {status} Status\r\nConnection: close\r\n{head}\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    if seen.method != "HEAD" {
        stream.write_all(&content)?;
    }
    Ok(())
}

fn request(stream: &mut dyn ReadWrite, is_elsewhere: bool) -> io::Result<Option<Seen>> {
    let mut lines = BufReader::new(stream).lines();
    let Some(first) = lines.next().transpose()? else { return Ok(None) };
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = words.next().zip(words.next()).expect("a request line");
    let mut seen = Seen { is_elsewhere, method, path, range: None, authorization: None };
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        match &*name.to_lowercase() {
            "range" => seen.range = Some(value.to_owned()),
            "authorization" => seen.authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    Ok(Some(seen))
}

/// What the hub itself says.
fn said(seen: &Seen, store: &str, repositories: &BTreeMap<String, Files>) -> Reply {
    let refused = |code: &str| Reply(404, vec![format!("X-Error-Code: {code}")], Vec::new());
    let path = seen.path.trim_start_matches('/');
    let is_api = path.starts_with("api/models/");
    let parts: Vec<&str> = path.trim_start_matches("api/models/").split('/').collect();
    let [organisation, name, kind, revision, rest @ ..] = &*parts else {
        return Reply(400, Vec::new(), Vec::new());
    };
    let Some(files) = repositories.get(&format!("{organisation}/{name}")) else {
        return refused("RepoNotFound");
    };
    let commit = commit(files);
    if ![commit.as_str(), "main", "refs%2Fpr%2F1"].contains(revision) {
        return refused("RevisionNotFound");
    }
    if is_api {
        assert_eq!(*kind, "revision");
        let siblings: Vec<_> = files.keys().map(|name| json!({"rfilename": name})).collect();
        let info =
            json!({"id": format!("{organisation}/{name}"), "sha": commit, "siblings": siblings});
        return Reply(200, Vec::new(), info.to_string().into_bytes());
    }
    assert_eq!((*kind, rest.len()), ("resolve", 1));
    let Some(content) = files.get(rest[0]) else { return refused("EntryNotFound") };
    let hash = hash(rest[0], content);
    let mut head = vec![format!("X-Repo-Commit: {commit}"), "Accept-Ranges: bytes".to_owned()];
    if is_large(rest[0]) {
        head.push(format!("Location: {store}/{hash}?signature=1"));
        head.push(format!("X-Linked-Etag: \"{hash}\""));
        head.push(format!("X-Linked-Size: {}", content.len()));
        head.push("ETag: \"of-the-redirect\"".to_owned());
        return Reply(302, head, b"elsewhere".to_vec());
    }
    head.push(format!("ETag: \"{hash}\""));
    part(seen, head, content)
}

/// What the server of large files says.
fn stored(seen: &Seen, repositories: &BTreeMap<String, Files>) -> Reply {
    let asked = seen.path.trim_start_matches('/').split('?').next().unwrap_or_default();
    let mut files = repositories.values().flatten();
    match files.find(|(name, content)| is_large(name) && hash(name, content) == asked) {
        Some((_, content)) => part(seen, Vec::new(), content),
        None => Reply(404, Vec::new(), Vec::new()),
    }
}

/// The part of a file that is asked for.
fn part(seen: &Seen, mut head: Vec<String>, content: &[u8]) -> Reply {
    let Some(range) = &seen.range else { return Reply(200, head, content.to_vec()) };
    let from = range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
    let from: usize = from.and_then(|from| from.parse().ok()).expect("an open range");
    head.push(format!("Content-Range: bytes {from}-{}/{}", content.len() - 1, content.len()));
    Reply(206, head, content[from..].to_vec())
}
