//! Many items before a judge: what is cached is not asked, what fails is tried again, nothing is dropped.

use std::collections::BTreeMap;
use std::thread;

use serde::{Deserialize, Serialize};

use super::assessment::{Assessment, Item};
use super::cache::ReplyCache;
use super::chat::{Judge, JudgeId};
use super::cost::Cost;
use super::error::JudgeError;
use super::outcome::{Progress, Report};
use super::retry::Backoff;
use super::run_state::{RunState, Work};

/// Most calls at the same time; each takes a thread.
const MOST_CONCURRENT: usize = 256;

/// How a judge is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunConfig {
    /// Calls at the same time, at most, in [`Runner::run_concurrently`].
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

/// Judges items.
#[derive(Clone, Copy, Debug)]
pub struct Runner<'a> {
    assessment: &'a Assessment,
    cache: &'a ReplyCache,
    config: RunConfig,
}

impl<'a> Runner<'a> {
    /// Asks for `assessment`, keeps replies in `cache`.
    ///
    /// # Errors
    ///
    /// [`JudgeError::Setting`], the first problem of [`RunConfig::validate`].
    pub fn new(
        assessment: &'a Assessment,
        cache: &'a ReplyCache,
        config: RunConfig,
    ) -> Result<Self, JudgeError> {
        match config.validate().into_iter().next() {
            Some(problem) => Err(problem),
            None => Ok(Self { assessment, cache, config }),
        }
    }

    /// What [`Runner::run`] would cost. Nothing is asked.
    #[must_use]
    pub fn preview(&self, judge: &JudgeId, items: &[Item]) -> Cost {
        let mut cost = Cost { n_items: items.len(), ..Cost::default() };
        for work in self.work(judge, items) {
            if self.cache.get(&work.key).is_some() {
                cost.n_cached += work.indices.len();
            } else {
                cost.n_repeated += work.indices.len() - 1;
                cost.add(&work.request);
            }
        }
        cost
    }

    /// Judges `items` on this thread, as many at once as the judge likes, and tells `progress` of each.
    ///
    /// What is in the cache is not asked. Items that ask the same are asked once. A call that may go well
    /// later is tried again. Every item has an outcome, whatever happens.
    ///
    /// # Errors
    ///
    /// [`JudgeError::Unauthorised`] at the first status 401 or 403, and [`JudgeError::Io`] if the cache
    /// cannot be written: nothing more is asked, and what was judged is in the cache.
    pub fn run<J: Judge>(
        &self,
        judge: &J,
        items: &[Item],
        progress: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<Report, JudgeError> {
        let state = self.start(judge.id(), items, progress);
        state.work(judge);
        state.finish(judge.id(), &self.assessment.prompt().name)
    }

    /// [`Runner::run`] with up to [`RunConfig::concurrency`] calls at the same time. The outcomes are in
    /// the order of the items, `progress` is told in the order in which they are done, one at a time.
    ///
    /// # Errors
    ///
    /// Those of [`Runner::run`]; calls under way are waited for.
    ///
    /// # Panics
    ///
    /// Panics if the judge or `progress` does.
    pub fn run_concurrently<J: Judge + Sync>(
        &self,
        judge: &J,
        items: &[Item],
        progress: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<Report, JudgeError> {
        let state = self.start(judge.id(), items, progress);
        let n_threads = self.config.concurrency.min(state.n_requests());
        thread::scope(|scope| {
            for _ in 0..n_threads {
                scope.spawn(|| state.work(judge));
            }
        });
        state.finish(judge.id(), &self.assessment.prompt().name)
    }

    /// A state in which all that is cached is done.
    fn start<'s>(
        &self,
        judge: &JudgeId,
        items: &[Item],
        progress: &'s mut (dyn FnMut(Progress<'_>) + Send),
    ) -> RunState<'s>
    where
        'a: 's,
    {
        let work = self.work(judge, items);
        let (cached, new) = work.into_iter().partition(|w| self.cache.get(&w.key).is_some());
        let context = (self.assessment, self.cache, self.config);
        let state = RunState::new(context, new, items.len(), progress);
        state.settle_cached(cached);
        state
    }

    /// The different requests about `items`, each with whom it is about.
    fn work(&self, judge: &JudgeId, items: &[Item]) -> Vec<Work> {
        let mut work: Vec<Work> = Vec::new();
        let mut places = BTreeMap::new();
        for (index, item) in items.iter().enumerate() {
            let request = self.assessment.request(item);
            let key = request.key(judge);
            let place = *places.entry(key.clone()).or_insert(work.len());
            match work.get_mut(place) {
                Some(same) => same.indices.push(index),
                None => work.push(Work { key, request, indices: vec![index] }),
            }
        }
        work
    }
}
