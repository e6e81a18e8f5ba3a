//! Single calls: requests, retries and the error of each failure.

use beear_eval::judge::{
    Assessment, Backoff, CallError, Judge, Outcome, ReplyCache, RunConfig, Verdict,
};
use serde_json::{Value, json};

use crate::fixture::{
    KEY, TIMEOUT, after, chat, error, items, judge, milliseconds, n_valid, quick, run, run_by, say,
    status,
};
use crate::server::{Act, Server};

#[test]
fn the_request_is_openais_and_the_key_is_its_bearer() {
    let server = Server::start(|_| say("Score: 4"));
    let report = run(&server, &ReplyCache::in_memory(), quick(), &items(1)).unwrap();
    let verdict = Verdict::Score(4);
    assert_eq!(report.outcomes, [Outcome::Judged { verdict, text: "Score: 4".to_owned() }]);
    let seen = server.seen().swap_remove(0);
    assert!(seen.head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{}", seen.head);
    let head = seen.head.to_ascii_lowercase();
    assert!(head.contains(&format!("authorization: bearer {KEY}\r\n")), "{head}");
    let body: Value = serde_json::from_str(&seen.body).unwrap();
    let messages = Assessment::fulfilment().request(&items(1)[0]).messages;
    let expected = json!({
        "model": "m", "messages": messages, "temperature": 0.0, "max_tokens": 256,
    });
    assert_eq!(body, expected);
}

#[test]
fn what_passes_is_tried_again_until_it_goes_well() {
    let half = Act::Half(chat("Score: 4"));
    let acts = [
        status(429, ""),
        status(429, "Retry-After: 0\r\n"),
        status(500, ""),
        status(502, ""),
        status(503, "Retry-After: 0\r\n"),
        status(504, ""),
        Act::Close,
        half,
        Act::Raw(b"\xff\x00garbage\r\n\r\n"),
        Act::Say(200, "", String::new()),
        Act::Say(200, "", chat("Score: 4")[..40].to_owned()),
    ];
    for (index, act) in acts.into_iter().enumerate() {
        let server = after(2, act.clone());
        let report = run(&server, &ReplyCache::in_memory(), quick(), &items(2)).unwrap();
        assert_eq!(n_valid(&report), 2, "{index}: {:?}", report.outcomes);
        assert_eq!((server.n_calls(), report.n_calls), (6, 6), "{index}");
        // One failure more than there are attempts.
        let server = after(3, act);
        let report = run(&server, &ReplyCache::in_memory(), quick(), &items(2)).unwrap();
        let failed = |o: &Outcome| matches!(o, Outcome::Failed { n_attempts: 3, .. });
        assert!(report.outcomes.iter().all(failed), "{index}: {:?}", report.outcomes);
        assert_eq!(server.n_calls(), 6, "{index}");
    }
}

#[test]
fn a_server_that_hangs_is_left_and_asked_again() {
    let hang = || Act::Hang(milliseconds(2500));
    let run = |server: &Server| {
        let judge = judge(server, milliseconds(1000));
        let config = RunConfig { max_attempts: 2, ..quick() };
        run_by(&judge, &ReplyCache::in_memory(), config, &items(1)).unwrap()
    };
    let server = after(1, hang());
    assert_eq!((n_valid(&run(&server)), server.n_calls()), (1, 2));
    let server = after(2, hang());
    let error = CallError::Timeout { milliseconds: 1000 };
    assert_eq!(run(&server).outcomes, [Outcome::Failed { error, n_attempts: 2 }]);
}

#[test]
fn every_failure_has_its_name() {
    assert!(matches!(error(Act::Close), CallError::Connection { .. }));
    assert!(matches!(error(Act::Raw(b"\xff\x00garbage")), CallError::Connection { .. }));
    assert!(matches!(error(Act::Half(chat("Score: 4"))), CallError::Truncated { .. }));
    assert!(matches!(error(Act::Say(200, "", String::new())), CallError::Truncated { n_bytes: 0 }));
    let found = error(status(503, "Retry-After: 7\r\n"));
    let body = r#"{"error":{"message":"not now"}}"#.to_owned();
    assert_eq!(found, CallError::Status { status: 503, retry_after: Some(7), body });
    let date = error(status(429, "Retry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\n"));
    assert_eq!(date.retry_after(), None);
    for body in [
        "<html><body>Score: 5</body></html>",
        "{}",
        "[]",
        "3",
        "\"Score: 5\"",
        "{\"choices\": []}",
        "{\"choices\": [{\"message\": {\"content\": null}}]}",
        "{\"choices\": [{\"text\": \"Score: 5\"}]}",
        "{\"choices\": [{\"message\": {\"content\": [\"Score: 5\"]}}]}",
        "{\"choices\": {\"0\": 1}}",
        "{\"choices\": [{\"message\": {\"content\": \"Score: 5\"}}]} more",
        "\u{0}\u{1}",
    ] {
        let found = error(Act::Say(200, "", body.to_owned()));
        assert!(matches!(found, CallError::Malformed { .. }), "{body}: {found:?}");
    }
}

#[test]
fn no_connection_is_an_outcome_too() {
    // A port without a listener.
    let gone = Server::start(|_| Act::Close);
    let judge = judge(&gone, TIMEOUT);
    drop(gone);
    let request = Assessment::fulfilment().request(&items(1)[0]);
    assert!(matches!(judge.ask(&request), Err(CallError::Connection { .. })));
}

#[test]
fn what_does_not_pass_is_asked_once() {
    for code in [400, 404, 422, 302, 201] {
        let server = Server::start(move |_| status(code, "Location: /elsewhere\r\n"));
        let report = run(&server, &ReplyCache::in_memory(), quick(), &items(2)).unwrap();
        let failed = |outcome: &Outcome| match outcome {
            Outcome::Failed { error: CallError::Status { status, .. }, n_attempts: 1 } => {
                *status == code
            }
            _ => false,
        };
        assert!(report.outcomes.iter().all(failed), "{code}: {:?}", report.outcomes);
        assert_eq!(server.n_calls(), 2, "{code}");
    }
}

#[test]
fn a_server_that_asks_to_wait_is_waited_for_or_left() {
    let server = after(1, status(429, "Retry-After: 1\r\n"));
    let longest_wait = milliseconds(1000);
    let backoff = Backoff { longest_wait, ..quick().backoff };
    let patient = RunConfig { backoff, ..quick() };
    let report = run(&server, &ReplyCache::in_memory(), patient, &items(1)).unwrap();
    let seen = server.seen();
    assert_eq!((n_valid(&report), seen.len()), (1, 2));
    assert!(seen[1].at - seen[0].at >= milliseconds(1000));
    // The requested wait exceeds the longest one, so the request is not retried.
    let server = after(1, status(429, "Retry-After: 1\r\n"));
    let report = run(&server, &ReplyCache::in_memory(), quick(), &items(1)).unwrap();
    assert!(matches!(report.outcomes[0], Outcome::Failed { n_attempts: 1, .. }));
    assert_eq!(server.n_calls(), 1);
}
