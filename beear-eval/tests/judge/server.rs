//! Local server that misbehaves on request and counts requests.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Action of the server on a request.
#[derive(Clone)]
pub(crate) enum Act {
    /// Sends this status, these header lines and this body.
    Say(u16, &'static str, String),
    /// Sends nothing for this duration, then closes.
    Hang(Duration),
    /// Announces the whole body and sends half of it.
    Half(String),
    /// Closes at once.
    Close,
    /// Sends these bytes and closes.
    Raw(&'static [u8]),
    /// Waits, then performs the other action.
    Slowly(Duration, Box<Act>),
}

/// Request received by the server.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Number of earlier requests.
    pub(crate) index: usize,
    /// Request line and headers.
    pub(crate) head: String,
    /// Body of the request.
    pub(crate) body: String,
    /// Time of arrival.
    pub(crate) at: Instant,
}

type Script = dyn Fn(&Seen) -> Act + Send + Sync;

struct Shared {
    script: Box<Script>,
    seen: Mutex<Vec<Seen>>,
    n_open: AtomicUsize,
    most_open: AtomicUsize,
    is_over: AtomicBool,
}

pub(crate) struct Server {
    scheme: &'static str,
    address: String,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(script: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        Self::start_with(None, script)
    }

    /// Starts a server for `https`.
    pub(crate) fn start_secure(
        tls: ServerConfig,
        script: impl Fn(&Seen) -> Act + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(Some(Arc::new(tls)), script)
    }

    fn start_with(
        tls: Option<Arc<ServerConfig>>,
        script: impl Fn(&Seen) -> Act + Send + Sync + 'static,
    ) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            seen: Mutex::default(),
            n_open: AtomicUsize::new(0),
            most_open: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        });
        let ours = Arc::clone(&shared);
        let accepting = thread::spawn(move || {
            for stream in listener.incoming() {
                if ours.is_over.load(SeqCst) {
                    return;
                }
                let ours = Arc::clone(&ours);
                let (stream, tls) = (stream.expect("a connection"), tls.clone());
                thread::spawn(move || drop(serve(stream, tls, &ours)));
            }
        });
        Self { scheme, address, shared, accepting: Some(accepting) }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}/v1", self.scheme, self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().expect("no thread panicked").clone()
    }

    pub(crate) fn n_calls(&self) -> usize {
        self.seen().len()
    }

    /// Returns the maximum number of concurrent requests.
    pub(crate) fn most_open(&self) -> usize {
        self.shared.most_open.load(SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.is_over.store(true, SeqCst);
        drop(TcpStream::connect(&self.address));
        if let Some(accepting) = self.accepting.take() {
            accepting.join().expect("no thread panicked");
        }
    }
}

fn serve(stream: TcpStream, tls: Option<Arc<ServerConfig>>, shared: &Shared) -> io::Result<()> {
    let Some(tls) = tls else {
        answer(&stream, shared)?;
        return stream.shutdown(Shutdown::Both);
    };
    let connection = ServerConnection::new(tls).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    answer(&mut stream, shared)?;
    stream.conn.send_close_notify();
    stream.flush()?;
    stream.sock.shutdown(Shutdown::Both)
}

fn answer(mut stream: impl Read + Write, shared: &Shared) -> io::Result<()> {
    let Some((head, body)) = request(&mut stream)? else { return Ok(()) };
    shared.most_open.fetch_max(shared.n_open.fetch_add(1, SeqCst) + 1, SeqCst);
    let seen = {
        let all = &mut *shared.seen.lock().expect("no thread panicked");
        let seen = Seen { index: all.len(), head, body, at: Instant::now() };
        all.push(seen.clone());
        seen
    };
    let act = (shared.script)(&seen);
    let reply = prepared(act);
    // The request is no longer open once the client may have received the reply.
    shared.n_open.fetch_sub(1, SeqCst);
    stream.write_all(&reply)
}

/// Waits as specified by `act`; returns the bytes to send.
fn prepared(act: Act) -> Vec<u8> {
    let head = |status: u16, more: &str, length: usize| {
        format!(
            "HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\nConnection: close\r\n{more}\r\n"
        )
    };
    match act {
        Act::Say(status, more, body) => (head(status, more, body.len()) + &body).into_bytes(),
        Act::Half(body) => (head(200, "", body.len()) + &body[..body.len() / 2]).into_bytes(),
        Act::Hang(duration) => {
            thread::sleep(duration);
            Vec::new()
        }
        Act::Slowly(duration, then) => {
            thread::sleep(duration);
            prepared(*then)
        }
        Act::Close => Vec::new(),
        Act::Raw(bytes) => bytes.to_vec(),
    }
}

/// Reads head and body of a request; `None` if the client closed.
fn request(stream: impl Read) -> io::Result<Option<(String, String)>> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    loop {
        let n_before = head.len();
        if reader.read_line(&mut head)? == 0 {
            return Ok(None);
        }
        if head[n_before..].trim().is_empty() {
            break;
        }
    }
    let length = head.to_ascii_lowercase();
    let length = length.split("content-length:").nth(1).and_then(|rest| rest.lines().next());
    let mut body = vec![0; length.map_or(0, |text| text.trim().parse().expect("a number"))];
    reader.read_exact(&mut body)?;
    Ok(Some((head, String::from_utf8(body).expect("JSON is UTF-8"))))
}
