//! Settings of a run: concurrency, attempts and waits.

use serde::{Deserialize, Serialize};

use super::error::JudgeError;
use super::retry::Backoff;

/// Maximum number of concurrent calls; each call takes a thread.
const MOST_CONCURRENT: usize = 256;

/// Settings of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunConfig {
    /// Maximum number of concurrent calls in
    /// [`JudgeClient::ask_concurrently`](super::JudgeClient::ask_concurrently).
    pub concurrency: usize,
    /// Maximum number of attempts per request, the first included.
    pub max_attempts: usize,
    /// Maximum number of calls in the whole run, failed attempts included; None for no limit other
    /// than the attempts.
    pub max_calls: Option<usize>,
    /// Waits between the attempts.
    pub backoff: Backoff,
}

impl Default for RunConfig {
    /// Returns four concurrent calls, which the smallest accounts allow, and six attempts, which
    /// take about half a minute with the default waits.
    fn default() -> Self {
        Self { concurrency: 4, max_attempts: 6, max_calls: None, backoff: Backoff::default() }
    }
}

impl RunConfig {
    /// Returns every problem of the values.
    #[must_use]
    pub fn validate(&self) -> Vec<JudgeError> {
        let mut problems = Vec::new();
        let mut check = |setting, is_good: bool, value: String, expected| {
            if !is_good {
                problems.push(JudgeError::Setting { setting, value, expected });
            }
        };
        let Self { concurrency, max_attempts, max_calls, backoff } = self;
        let is_good = (1..=MOST_CONCURRENT).contains(concurrency);
        check("concurrency", is_good, concurrency.to_string(), "in 1..=256");
        check("max_attempts", *max_attempts > 0, max_attempts.to_string(), "at least 1");
        check("max_calls", *max_calls != Some(0), "0".to_owned(), "at least 1");
        let longest = backoff.longest_wait;
        let is_good = longest >= backoff.first_wait;
        check("longest_wait", is_good, format!("{longest:?}"), "at least `first_wait`");
        problems
    }
}
