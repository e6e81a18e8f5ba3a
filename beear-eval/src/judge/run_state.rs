//! Shared state of a run in progress.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::asked::{AskProgress, Asking, CallOutcome};
use super::cache::ReplyCache;
use super::chat::{CallError, ChatRequest, Judge, Reply};
use super::error::JudgeError;
use super::run_config::RunConfig;

/// Distinct request with its indices in the list of all requests.
pub(super) struct Work<'a> {
    pub(super) key: String,
    pub(super) request: &'a ChatRequest,
    pub(super) indices: Vec<usize>,
}

/// State shared by the workers.
pub(super) struct RunState<'a> {
    cache: &'a ReplyCache,
    config: RunConfig,
    work: Vec<Work<'a>>,
    /// Index of the first work that no worker has taken.
    next: AtomicUsize,
    n_calls: AtomicUsize,
    ledger: Mutex<Ledger<'a>>,
    /// Error that ended the run early.
    failure: Mutex<Option<JudgeError>>,
    failed: Condvar,
}

struct Ledger<'a> {
    outcomes: Vec<Option<CallOutcome>>,
    n_done: usize,
    n_cached: usize,
    progress: &'a mut (dyn FnMut(AskProgress<'_>) + Send),
}

/// Result of an attempt.
enum Step {
    Done,
    Again(Duration),
}

impl<'a> RunState<'a> {
    pub(super) fn new(
        (cache, config): (&'a ReplyCache, RunConfig),
        work: Vec<Work<'a>>,
        n_requests: usize,
        progress: &'a mut (dyn FnMut(AskProgress<'_>) + Send),
    ) -> Self {
        let outcomes = vec![None; n_requests];
        let ledger = Mutex::new(Ledger { outcomes, n_done: 0, n_cached: 0, progress });
        let (next, n_calls) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (failure, failed) = (Mutex::new(None), Condvar::new());
        Self { cache, config, work, next, n_calls, ledger, failure, failed }
    }

    /// Returns the number of distinct requests to be sent.
    pub(super) fn n_requests(&self) -> usize {
        self.work.len()
    }

    /// Processes work until none is left or the run has failed.
    pub(super) fn work<J: Judge>(&self, judge: &J) {
        let n = judge.batch_size().max(1);
        while !self.has_failed() {
            let start = self.next.fetch_add(n, Ordering::Relaxed).min(self.work.len());
            let batch = &self.work[start..(start + n).min(self.work.len())];
            if batch.is_empty() {
                return;
            }
            self.ask(judge, batch.iter().collect());
        }
    }

    /// Returns the results of all requests.
    ///
    /// # Panics
    ///
    /// Panics if a worker did.
    pub(super) fn finish(self) -> Result<Asking, JudgeError> {
        if let Some(failure) = self.failure.into_inner().expect("no worker panicked") {
            return Err(failure);
        }
        let ledger = self.ledger.into_inner().expect("no worker panicked");
        let outcome = |asked: Option<CallOutcome>| asked.expect("the workers leave no request out");
        Ok(Asking {
            outcomes: ledger.outcomes.into_iter().map(outcome).collect(),
            n_calls: self.n_calls.into_inner(),
            n_cached: ledger.n_cached,
        })
    }

    /// Sends the requests of `pending` until each is settled or the run has failed.
    fn ask<J: Judge>(&self, judge: &J, mut pending: Vec<&Work<'a>>) {
        for attempt in 1.. {
            let refused = pending.split_off(self.take_calls(pending.len()));
            for work in refused {
                let max_calls = self.config.max_calls.unwrap_or_default();
                let error = CallError::CallLimit { max_calls };
                self.settle(work, CallOutcome::Failed { error, n_attempts: attempt - 1 });
            }
            if pending.is_empty() {
                return;
            }
            let requests: Vec<&ChatRequest> = pending.iter().map(|work| work.request).collect();
            let replies = judge.ask_all(&requests);
            assert_eq!(replies.len(), pending.len(), "a judge replies to every request");
            let mut longest = Duration::ZERO;
            let mut again = Vec::new();
            for (work, reply) in pending.into_iter().zip(replies) {
                if let Step::Again(wait) = self.step(work, reply, attempt) {
                    longest = longest.max(wait);
                    again.push(work);
                }
            }
            pending = again;
            if pending.is_empty() || self.wait(longest) {
                return;
            }
        }
    }

    /// Evaluates the reply of attempt `attempt`: settles the request, ends the run or requests a
    /// retry.
    fn step(&self, work: &Work<'a>, reply: Result<Reply, CallError>, attempt: usize) -> Step {
        let error = match reply {
            Ok(reply) => {
                match self.cache.put(&work.key, &reply) {
                    Ok(()) => self.settle(work, CallOutcome::Replied { reply, is_cached: false }),
                    Err(error) => self.fail(error),
                }
                return Step::Done;
            }
            Err(error) => error,
        };
        if let CallError::Status { status: status @ (401 | 403), body, .. } = error {
            self.fail(JudgeError::Unauthorised { status, body });
            return Step::Done;
        }
        if error.is_transient() && attempt < self.config.max_attempts {
            let wait = self.config.backoff.wait(&work.key, attempt, error.retry_after());
            if let Some(wait) = wait {
                return Step::Again(wait);
            }
        }
        self.settle(work, CallOutcome::Failed { error, n_attempts: attempt });
        Step::Done
    }

    /// Records the outcome at every index of `work` and reports it to `progress`.
    pub(super) fn settle(&self, work: &Work<'a>, asked: CallOutcome) {
        let ledger = &mut *self.ledger.lock().expect("no worker panicked");
        for &index in &work.indices {
            ledger.n_done += 1;
            ledger.n_cached += usize::from(asked.is_cached());
            let (n_done, n_expected) = (ledger.n_done, ledger.outcomes.len());
            let asked = ledger.outcomes[index].insert(asked.clone());
            (ledger.progress)(AskProgress { index, asked, n_done, n_expected });
        }
    }

    /// Reserves up to `n` of the remaining calls and returns the number reserved.
    fn take_calls(&self, n: usize) -> usize {
        let max_calls = self.config.max_calls.unwrap_or(usize::MAX);
        let take = |n_calls: usize| Some(n_calls + n.min(max_calls - n_calls));
        let order = Ordering::Relaxed;
        let before = self.n_calls.fetch_update(order, order, take).expect("always taken");
        n.min(max_calls - before)
    }

    fn failure(&self) -> MutexGuard<'_, Option<JudgeError>> {
        self.failure.lock().expect("nothing panics while it holds the failure")
    }

    fn has_failed(&self) -> bool {
        self.failure().is_some()
    }

    /// Ends the run; the first error is kept.
    fn fail(&self, error: JudgeError) {
        self.failure().get_or_insert(error);
        self.failed.notify_all();
    }

    /// Waits for `duration`, or until the run fails. True if the run has failed.
    fn wait(&self, duration: Duration) -> bool {
        let waited = self.failed.wait_timeout_while(self.failure(), duration, |f| f.is_none());
        waited.expect("nothing panics while it holds the failure").0.is_some()
    }
}
