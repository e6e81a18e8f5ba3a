//! How a judge is asked: how much at once, how often, how long to wait.

use serde::{Deserialize, Serialize};

use super::error::JudgeError;
use super::retry::Backoff;

/// Most calls at the same time; each takes a thread.
const MOST_CONCURRENT: usize = 256;

/// How a judge is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunConfig {
    /// Calls at the same time, at most, in [`Asker::ask_concurrently`](super::Asker::ask_concurrently).
    pub concurrency: usize,
    /// Tries per request, the first included.
    pub max_attempts: usize,
    /// Calls of a whole run, tries that fail included; without it there is no limit but the tries.
    pub max_calls: Option<usize>,
    /// Waits between the tries.
    pub backoff: Backoff,
}

impl Default for RunConfig {
    /// Four calls at once, which the smallest accounts are allowed; six tries, which with the default
    /// waits last about half a minute.
    fn default() -> Self {
        Self { concurrency: 4, max_attempts: 6, max_calls: None, backoff: Backoff::default() }
    }
}

impl RunConfig {
    /// Every problem of the values.
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
