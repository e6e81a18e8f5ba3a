//! API key: a rejected key ends the run, and no file, error or log ever contains the key.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use beear_eval::judge::{Backoff, Judge, JudgeError, ReplyCache, RunConfig};

use crate::fixture::{KEY, TIMEOUT, chat, items, judge, milliseconds, quick, run, say, status};
use crate::server::{Act, Server};

#[test]
fn a_key_that_is_refused_stops_the_run() {
    for code in [401, 403] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("replies.jsonl");
        let cache = ReplyCache::open(&path).unwrap();
        let server = Server::start(
            move |seen| {
                if seen.index < 2 { say("Score: 2") } else { status(code, "") }
            },
        );
        let config = RunConfig { concurrency: 2, ..quick() };
        let error = run(&server, &cache, config, &items(50)).unwrap_err();
        let body = r#"{"error":{"message":"not now"}}"#;
        let expected = format!("the judge refuses the key, status {code}: {body}");
        assert_eq!(error.to_string(), expected);
        assert!(server.n_calls() <= 4, "{} calls", server.n_calls());
        assert_eq!(ReplyCache::open(&path).unwrap().n_replies(), 2, "what was judged is kept");
    }
}

#[test]
fn a_key_that_is_refused_wakes_those_that_wait() {
    let server = Server::start(|seen| {
        if seen.index == 0 {
            status(429, "Retry-After: 30\r\n")
        } else {
            Act::Slowly(milliseconds(50), Box::new(status(401, "")))
        }
    });
    let backoff = Backoff { longest_wait: Duration::from_mins(1), ..quick().backoff };
    let start = std::time::Instant::now();
    let config = RunConfig { backoff, ..quick() };
    let error = run(&server, &ReplyCache::in_memory(), config, &items(9)).unwrap_err();
    assert!(matches!(error, JudgeError::Unauthorised { status: 401, .. }));
    assert!(start.elapsed() < Duration::from_secs(10));
}

/// Reads the contents of all files of a folder.
fn everything_in(folder: &Path) -> String {
    let files = std::fs::read_dir(folder).expect("a folder");
    let text = |path| std::fs::read_to_string(path).expect("text");
    files.map(|file| text(file.expect("a file").path())).collect()
}

#[test]
fn the_key_is_nowhere_even_if_the_server_repeats_it() {
    let escaped = KEY.replace('/', "\\/");
    let bodies = [
        format!("no such key: {KEY}"),
        format!("{{\"error\": {{\"message\": \"bad {escaped}, \\u0073{}\"}}}}", &escaped[1..]),
        chat(&format!("Your key is {KEY}.\nScore: 4")),
        format!(
            "{{\"choices\": [{{\"message\": {{\"content\": null, \"{KEY}\": \"{escaped}\"}}}}]}}"
        ),
        format!("<html>{}{KEY}</html>", "x".repeat(285)),
    ];
    for code in [200, 400, 401, 403, 429, 500] {
        for body in bodies.clone() {
            let folder = tempfile::tempdir().unwrap();
            let cache = ReplyCache::open(&folder.path().join("replies.jsonl")).unwrap();
            let server = Server::start(move |_| Act::Say(code, "", body.clone()));
            let judge = judge(&server, TIMEOUT);
            let result = run(&server, &cache, quick(), &items(1));
            let mut shown = format!("{result:?} {judge:?} {cache:?} {}", judge.id());
            match &result {
                Ok(report) => shown += &serde_json::to_string(report).unwrap(),
                Err(error) => {
                    shown +=
                        &[error.to_string(), format!("{error:#?} {:?}", error.hint())].concat();
                }
            }
            shown += &everything_in(folder.path());
            // If only a part of the key were redacted, the rest would show.
            let parts = [KEY, "sk-secret", "0123456789"];
            assert!(!parts.iter().any(|part| shown.contains(part)), "{code}: {shown}");
            assert!(server.seen()[0].head.contains(KEY), "it was sent");
        }
    }
}

/// Logger that records everything that any library logs.
struct Everything(Mutex<String>);

impl log::Log for Everything {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let text = format!("{} {}\n", record.level(), record.args());
        self.0.lock().expect("no thread panicked").push_str(&text);
    }

    fn flush(&self) {}
}

static LOGGED: Everything = Everything(Mutex::new(String::new()));

#[test]
fn the_key_is_in_no_log_at_any_level() {
    log::set_logger(&LOGGED).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let server = Server::start(|_| Act::Say(500, "", format!("{KEY} is unknown")));
    run(&server, &ReplyCache::in_memory(), quick(), &items(2)).unwrap();
    let logged = LOGGED.0.lock().unwrap().clone();
    assert!(logged.contains("DEBUG"), "something is logged: {logged}");
    assert!(!logged.contains(KEY) && !logged.contains("TRACE"), "{logged}");
}
