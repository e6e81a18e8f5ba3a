//! Test judge on a local server, with items and quick retries.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use beear_eval::judge::{
    ApiKey, Assessment, Backoff, CallError, Item, JudgeError, OpenAiCompatible, OpenAiConfig,
    Outcome, ReplyCache, Report, RunConfig, Runner, Summary,
};
use serde_json::json;

use crate::server::{Act, Seen, Server};

pub(crate) const KEY: &str = "sk-secret/0123456789";

/// Time limit of calls that should be fast: long enough for a busy machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) fn milliseconds(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Builds a reply of the usual form.
pub(crate) fn chat(content: &str) -> String {
    let message = json!({"role": "assistant", "content": content});
    json!({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).to_string()
}

pub(crate) fn say(content: &str) -> Act {
    Act::Say(200, "", chat(content))
}

pub(crate) fn status(status: u16, more: &'static str) -> Act {
    Act::Say(status, more, json!({"error": {"message": "not now"}}).to_string())
}

pub(crate) fn judge(server: &Server, timeout: Duration) -> OpenAiCompatible {
    judge_trusting(server, timeout, None)
}

pub(crate) fn judge_trusting(
    server: &Server,
    timeout: Duration,
    authorities: Option<String>,
) -> OpenAiCompatible {
    let config = OpenAiConfig { url: server.url(), model: "m".to_owned(), timeout, authorities };
    let key = ApiKey::new(KEY).expect("a key");
    OpenAiCompatible::new(config, Some(key)).expect("a server")
}

pub(crate) fn quick() -> RunConfig {
    let backoff = Backoff { first_wait: milliseconds(1), longest_wait: milliseconds(20), seed: 3 };
    RunConfig { concurrency: 3, max_attempts: 3, max_calls: None, backoff }
}

pub(crate) fn items(n: usize) -> Vec<Item> {
    (0..n).map(|i| Item::new(format!("Question {i}?"), format!("answer {i}."))).collect()
}

/// Judges `items` with `server`, and checks that progress reports each item once.
pub(crate) fn run(
    server: &Server,
    cache: &ReplyCache,
    config: RunConfig,
    items: &[Item],
) -> Result<Report, JudgeError> {
    run_by(&judge(server, TIMEOUT), cache, config, items)
}

pub(crate) fn run_by(
    judge: &OpenAiCompatible,
    cache: &ReplyCache,
    config: RunConfig,
    items: &[Item],
) -> Result<Report, JudgeError> {
    let assessment = Assessment::fulfilment();
    let runner = Runner::new(&assessment, cache, config).expect("valid settings");
    let mut heard = Vec::new();
    let report = runner.run_concurrently(judge, items, &mut |progress| {
        assert_eq!((progress.n_done, progress.n_expected), (heard.len() + 1, items.len()));
        heard.push((progress.index, progress.outcome.clone()));
    })?;
    heard.sort_by_key(|(index, _)| *index);
    let heard: Vec<Outcome> = heard.into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(heard, report.outcomes, "progress and report agree");
    Ok(report)
}

/// Judges one item without retries.
pub(crate) fn one(act: Act) -> Outcome {
    let server = Server::start(move |_| act.clone());
    let config = RunConfig { max_attempts: 1, ..quick() };
    let cache = ReplyCache::in_memory();
    let mut report = run(&server, &cache, config, &items(1)).expect("no stop");
    assert_eq!((server.n_calls(), report.n_calls), (1, 1));
    let was_answered = !matches!(report.outcomes[0], Outcome::Failed { .. });
    assert_eq!(cache.n_replies(), usize::from(was_answered), "only replies are kept");
    report.outcomes.swap_remove(0)
}

pub(crate) fn error(act: Act) -> CallError {
    match one(act) {
        Outcome::Failed { error, n_attempts: 1 } => error,
        other => panic!("{other:?} did not fail"),
    }
}

/// Returns the number of earlier requests with the body of `seen`.
pub(crate) fn n_before(counts: &Mutex<BTreeMap<String, usize>>, seen: &Seen) -> usize {
    let mut counts = counts.lock().expect("no thread panicked");
    let count = counts.entry(seen.body.clone()).or_default();
    *count += 1;
    *count - 1
}

/// Starts a server that answers each question `n` times with `first` and then with a reply.
pub(crate) fn after(n: usize, first: Act) -> Server {
    let counts = Mutex::default();
    Server::start(
        move |seen| {
            if n_before(&counts, seen) < n { first.clone() } else { say("Good.\nScore: 4") }
        },
    )
}

pub(crate) fn n_valid(report: &Report) -> usize {
    Summary::of(Assessment::fulfilment().judgement(), &report.outcomes).n_valid
}
