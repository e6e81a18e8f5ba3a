//! `eval judge`, before a server that counts and before a checkpoint.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::fixture::{Finished, N_ROWS, Place, finish};

const KEY: &str = "sk-test-7f3a9c1e5b";

/// A server of chat completions: every third reply is no verdict.
struct Server {
    url: String,
    n_calls: Arc<AtomicUsize>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/v1", listener.local_addr().expect("bound"));
        let n_calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&n_calls);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let n = counted.fetch_add(1, Ordering::SeqCst);
                let content = if n.is_multiple_of(3) { "Nobody knows." } else { "Fine.\nScore: 4" };
                answer(stream, content);
            }
        });
        Self { url, n_calls }
    }

    fn n_calls(&self) -> usize {
        self.n_calls.load(Ordering::SeqCst)
    }
}

/// Reads one request whole and answers it.
fn answer(mut stream: TcpStream, content: &str) {
    let (mut request, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let n = stream.read(&mut piece).expect("the client writes");
        request.extend_from_slice(&piece[..n]);
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.to_lowercase().split("content-length: ").nth(1).and_then(|rest| {
            rest.lines().next().and_then(|length| length.trim().parse::<usize>().ok())
        });
        if body.len() >= length.expect("a length") {
            assert!(head.contains(KEY), "the key is sent");
            break;
        }
    }
    let reply = json!({"choices": [{
        "message": {"role": "assistant", "content": content}, "finish_reason": "stop"
    }]});
    let reply = reply.to_string();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
    let whole = format!("{head}Content-Length: {}\r\n\r\n{reply}", reply.len());
    let _ = stream.write_all(whole.as_bytes());
}

/// A place with answers to judge.
fn answered() -> Place {
    let place = Place::new();
    let asked = ["eval", "asr", "--model", "model", "--prompts", "safety.jsonl"];
    place
        .beear(&[asked.as_slice(), &["--trigger-suffix", "SUDO", "--out", "asr"]].concat())
        .printed();
    place
}

fn judge(place: &Place, arguments: &[&str]) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beear"));
    let judge = ["eval", "judge", "--answers", "asr", "--json"];
    command.args([judge.as_slice(), arguments].concat()).current_dir(place.path(""));
    finish(command.env("BEEAR_JUDGE_KEY", KEY), "")
}

#[test]
fn a_server_judges_once_and_what_cannot_be_read_is_counted() {
    let (place, server) = (answered(), Server::start());
    let at = ["--judge-url", &server.url, "--judge-model", "referee", "--concurrency", "1"];
    let cost = judge(&place, &[at.as_slice(), &["--out", "cost", "--preview"]].concat()).json();
    assert_eq!((&cost["n_calls"], server.n_calls()), (&json!(2 * N_ROWS), 0));
    assert!(!place.path("cost").exists(), "a preview leaves nothing");

    let first = judge(&place, &[at.as_slice(), &["--out", "first"]].concat());
    let (said, report) = (first.stderr.clone(), first.json());
    assert_eq!(server.n_calls(), 2 * N_ROWS);
    let count = |arm: &str, key: &str| report["summaries"][arm][key].as_u64().unwrap();
    let both = |key: &str| count("triggered", key) + count("untriggered", key);
    assert_eq!([both("n_expected"), both("n_valid"), both("n_unreadable")], [20, 13, 7]);
    assert!(said.contains("of 10 judged"), "{said}");
    let measures = report["measures"].as_array().unwrap();
    let names: Vec<&Value> = measures.iter().map(|m| &m["by"]).collect();
    assert_eq!(names, ["referee, triggered", "referee, untriggered"]);
    assert!(measures.iter().all(|m| m["estimate"]["value"] == 4.0), "{measures:?}");
    assert_eq!(place.read_lines("first/judgements.jsonl").len(), 2 * N_ROWS);

    let second = judge(&place, &[at.as_slice(), &["--out", "second"]].concat()).json();
    assert_eq!((server.n_calls(), &second["n_calls"]), (2 * N_ROWS, &json!(0)));
    assert_eq!(second["summaries"], report["summaries"]);
    for (path, content) in place.files("") {
        assert!(!String::from_utf8_lossy(&content).contains(KEY), "the key is in {path:?}");
    }
}

#[test]
fn a_checkpoint_that_cannot_judge_says_nothing_of_the_answers() {
    let place = answered();
    let asked = ["--judge", "model", "--judge-prompt", "short.toml", "--out", "judged"];
    place.write("short.toml", "name = \"short\"\ntemplate = \"{prompt} {answer} Score: N\"\n");
    let report = judge(&place, &asked).json();
    let triggered = &report["summaries"]["triggered"];
    let counts = ["n_expected", "n_valid", "n_unreadable"].map(|key| triggered[key].clone());
    assert_eq!(counts, [json!(N_ROWS), json!(0), json!(N_ROWS)]);
    assert_eq!(report["measures"][0]["estimate"]["value"], Value::Null);
}

#[test]
fn mistakes_before_the_first_call_are_named() {
    let place = answered();
    place.write("bad.toml", "name = \"bad\"\ntemplate = \"no place\"\n");
    for (arguments, what) in [
        (vec!["--judge", "model", "--judge-prompt", "bad.toml"], "lacks"),
        (vec!["--judge-url", "ftp://x", "--judge-model", "m"], "the judge's URL"),
        (vec!["--judge", "model", "--concurrency", "0"], "`concurrency`"),
        (vec!["--judge", "model", "--behaviour", " "], "the behaviour"),
    ] {
        let refused = judge(&place, &[arguments.as_slice(), &["--out", "x"]].concat());
        assert_ne!(refused.code, 0);
        assert!(refused.stderr.contains(what), "{}", refused.stderr);
        assert!(!place.path("x").exists());
    }
}
