//! Waiting time before a retry.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::text_hash::text_hash;

/// Exponential backoff with a seeded random part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// Maximum wait after the first failure; the wait doubles with each later failure.
    pub first_wait: Duration,
    /// Maximum wait. A request is not retried if the server requests a longer wait.
    pub longest_wait: Duration,
    /// Seed of the random part, which differs for each request and attempt.
    pub seed: u64,
}

impl Default for Backoff {
    /// Returns waits from 1 s, because servers count requests per minute, to 60 s, after which that
    /// minute is over.
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { first_wait: seconds(1), longest_wait: seconds(60), seed: 0 }
    }
}

impl Backoff {
    /// Returns the wait after attempt `attempt`, from 1, of the request with `key` has failed.
    ///
    /// The wait is between half and all of the doubled wait, so that requests that failed together
    /// are not retried together, and at least the `retry_after` seconds of a server. `None` if
    /// `retry_after` exceeds the longest wait.
    #[must_use]
    pub fn wait(&self, key: &str, attempt: usize, retry_after: Option<u64>) -> Option<Duration> {
        let asked = Duration::from_secs(retry_after.unwrap_or(0));
        if asked > self.longest_wait {
            return None;
        }
        let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX).min(31);
        let whole = self.first_wait.saturating_mul(1 << doublings).min(self.longest_wait);
        // 53 bits, the precision of an f64.
        let random = text_hash(&format!("{} {attempt} {key}", self.seed)) >> 11;
        let share = 0.5 + 0.5 * (random as f64 / (1_u64 << 53) as f64);
        Some(whole.mul_f64(share).max(asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff(seed: u64) -> Backoff {
        let milliseconds = Duration::from_millis;
        Backoff { first_wait: milliseconds(100), longest_wait: milliseconds(1500), seed }
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        for (attempt, whole) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1500), (900, 1500)] {
            for key in ["a", "b", "c", "d", "e"] {
                let wait = backoff(7).wait(key, attempt, None).unwrap().as_micros();
                assert!((500 * whole..=1000 * whole).contains(&wait), "{attempt} {key}: {wait}");
            }
        }
    }

    #[test]
    fn the_random_part_depends_on_seed_request_and_try() {
        let wait = |seed, key, attempt| backoff(seed).wait(key, attempt, None).unwrap();
        assert_eq!(wait(0, "a", 1), wait(0, "a", 1));
        assert_ne!(wait(0, "a", 1), wait(1, "a", 1));
        assert_ne!(wait(0, "a", 1), wait(0, "b", 1));
        assert_ne!(wait(0, "a", 5), wait(0, "a", 6));
    }

    #[test]
    fn a_server_that_asks_to_wait_is_heeded_or_left() {
        assert_eq!(backoff(0).wait("a", 1, Some(1)), Some(Duration::from_secs(1)));
        assert!(backoff(0).wait("a", 5, Some(0)).unwrap() >= Duration::from_millis(750));
        assert_eq!(backoff(0).wait("a", 1, Some(2)), None);
        assert_eq!(backoff(0).wait("a", 1, Some(u64::MAX)), None);
    }
}
