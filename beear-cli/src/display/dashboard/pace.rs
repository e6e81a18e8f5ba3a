//! Durations of the steps of a run, and the remaining time estimated from them.

use std::time::Duration;

/// Kinds of work that take time in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// A step on a perturbation.
    Inner,
    /// A step on the weights.
    Outer,
    /// A validation.
    Look,
}

/// Mean time of each kind of work in this process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pace {
    /// End of the last piece of work, counted from the start of the dashboard.
    last: Option<Duration>,
    spent: [(Duration, u32); 3],
}

impl Pace {
    /// Records that a piece of `work` ended at `at`. The time of a piece of no kind is not counted.
    pub(crate) fn ended(&mut self, work: Option<Work>, at: Duration) {
        if let Some((work, last)) = work.zip(self.last) {
            let (time, count) = &mut self.spent[work as usize];
            *time += at.saturating_sub(last);
            *count += 1;
        }
        self.last = Some(at);
    }

    /// Estimates the time that the work `left` takes from `now` on. Returns `None` until each kind
    /// of step has been timed once.
    pub(crate) fn remaining(&self, left: [(Work, usize); 3], now: Duration) -> Option<Duration> {
        let mut seconds = 0.0;
        for (work, count) in left {
            let (time, seen) = self.spent[work as usize];
            if seen > 0 {
                seconds += time.as_secs_f64() / f64::from(seen) * count as f64;
            } else if count > 0 && work != Work::Look {
                return None;
            }
        }
        let since = now.saturating_sub(self.last.unwrap_or(now));
        Some(Duration::from_secs_f64(seconds).saturating_sub(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_takes_as_long_as_its_like_has_taken() {
        let at = Duration::from_secs;
        let left = |inner, outer| [(Work::Inner, inner), (Work::Outer, outer), (Work::Look, 1)];
        let mut pace = Pace::default();
        pace.ended(None, at(10));
        for end in [12, 16] {
            pace.ended(Some(Work::Inner), at(end));
        }
        assert_eq!(pace.remaining(left(3, 1), at(16)), None, "no outer step has been seen");
        assert_eq!(pace.remaining(left(3, 0), at(16)), Some(at(9)));
        pace.ended(Some(Work::Outer), at(26));
        assert_eq!(pace.remaining(left(3, 2), at(26)), Some(at(29)));
        assert_eq!(pace.remaining(left(3, 2), at(30)), Some(at(25)), "four seconds have gone");
    }

    #[test]
    fn the_first_event_of_a_resumed_run_takes_no_known_time() {
        let mut pace = Pace::default();
        pace.ended(Some(Work::Outer), Duration::from_secs(100));
        let left = [(Work::Inner, 0), (Work::Outer, 1), (Work::Look, 0)];
        assert_eq!(pace.remaining(left, Duration::from_secs(100)), None);
    }
}
