//! A judge over real HTTP: a server that replies as told and counts, and the key that it must be sent.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::fixture::{Finished, Place, finish};

const KEY: &str = "sk-test-7f3a9c1e5b";

/// A server of chat completions.
pub(crate) struct Server {
    pub(crate) url: String,
    n_calls: Arc<AtomicUsize>,
}

impl Server {
    /// A server that answers a call, told how many came before and what it says, with a status and the
    /// content of its reply.
    pub(crate) fn start(
        mut script: impl FnMut(usize, &str) -> (u16, String) + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/v1", listener.local_addr().expect("bound"));
        let n_calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&n_calls);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, |body| script(counted.fetch_add(1, Ordering::SeqCst), body));
            }
        });
        Self { url, n_calls }
    }

    pub(crate) fn n_calls(&self) -> usize {
        self.n_calls.load(Ordering::SeqCst)
    }
}

/// Reads one request whole and answers it.
fn answer(mut stream: TcpStream, script: impl FnOnce(&str) -> (u16, String)) {
    let (mut request, mut piece) = (Vec::new(), [0; 4096]);
    let (status, content) = loop {
        let n = stream.read(&mut piece).expect("the client writes");
        request.extend_from_slice(&piece[..n]);
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.to_lowercase().split("content-length: ").nth(1).and_then(|rest| {
            rest.lines().next().and_then(|length| length.trim().parse::<usize>().ok())
        });
        if body.len() >= length.expect("a length") {
            assert!(head.contains(KEY), "the key is sent");
            break script(body);
        }
    };
    let reply = json!({"choices": [{
        "message": {"role": "assistant", "content": content}, "finish_reason": "stop"
    }]});
    let reply = reply.to_string();
    let head = "Content-Type: application/json\r\nConnection: close\r\n";
    let head = format!("HTTP/1.1 {status} Status\r\n{head}Content-Length: {}", reply.len());
    let _ = stream.write_all(format!("{head}\r\n\r\n{reply}").as_bytes());
}

/// Runs `beear` in the place, the key in its environment.
pub(crate) fn beear_with_key(place: &Place, arguments: &[&str]) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beear"));
    command.args(arguments).current_dir(place.path("")).env("BEEAR_JUDGE_KEY", KEY);
    finish(&mut command, "")
}

/// Asserts that no file of the place holds the key.
pub(crate) fn assert_no_key(place: &Place) {
    for (path, content) in place.files("") {
        assert!(
            !String::from_utf8_lossy(&content).contains(KEY),
            "the key is in {}",
            path.display()
        );
    }
}
