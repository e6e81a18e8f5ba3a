//! Client that sends many requests to a judge: cached replies need no call, failed calls are
//! retried, and every request has a result.

use std::collections::BTreeMap;
use std::thread;

use super::asked::{AskProgress, Asking, CallOutcome};
use super::cache::ReplyCache;
use super::chat::{ChatRequest, Judge, JudgeId, Reply};
use super::cost::Cost;
use super::error::JudgeError;
use super::run_config::RunConfig;
use super::run_state::{RunState, Work};

/// Client that sends requests to a judge, independent of the meaning of the replies.
#[derive(Clone, Copy, Debug)]
pub struct JudgeClient<'a> {
    cache: &'a ReplyCache,
    config: RunConfig,
}

impl<'a> JudgeClient<'a> {
    /// Creates a client that stores replies in `cache`.
    ///
    /// # Errors
    ///
    /// Returns [`JudgeError::Setting`], the first problem of [`RunConfig::validate`].
    pub fn new(cache: &'a ReplyCache, config: RunConfig) -> Result<Self, JudgeError> {
        match config.validate().into_iter().next() {
            Some(problem) => Err(problem),
            None => Ok(Self { cache, config }),
        }
    }

    /// Estimates the cost of [`JudgeClient::ask`] without calling the judge.
    #[must_use]
    pub fn preview(&self, judge: &JudgeId, requests: &[ChatRequest]) -> Cost {
        let mut cost = Cost { n_items: requests.len(), ..Cost::default() };
        for work in work(judge, requests) {
            if self.cache.get(&work.key).is_some() {
                cost.n_cached += work.indices.len();
            } else {
                cost.n_repeated += work.indices.len() - 1;
                cost.add(work.request);
            }
        }
        cost
    }

    /// Removes the cached replies for which `is_good` is false, so that their requests are sent
    /// again. `is_good` receives the index of the request and its reply. A later reply also
    /// replaces the removed one in the cache's file.
    pub fn forget_unless(
        &self,
        judge: &JudgeId,
        requests: &[ChatRequest],
        is_good: &dyn Fn(usize, &Reply) -> bool,
    ) {
        for (index, request) in requests.iter().enumerate() {
            let key = request.key(judge);
            if self.cache.get(&key).is_some_and(|reply| !is_good(index, &reply)) {
                self.cache.forget(&key);
            }
        }
    }

    /// Sends `requests` on this thread, in batches of the judge's preferred size, and reports each
    /// result to `progress`.
    ///
    /// Requests with a cached reply are not sent. Equal requests are sent once. Calls with a
    /// transient error are retried. Every request has a result.
    ///
    /// # Errors
    ///
    /// Returns [`JudgeError::Unauthorised`] at the first status 401 or 403, and [`JudgeError::Io`]
    /// if the cache cannot be written: no further request is sent, and all earlier replies are in
    /// the cache.
    pub fn ask<J: Judge>(
        &self,
        judge: &J,
        requests: &[ChatRequest],
        progress: &mut (dyn FnMut(AskProgress<'_>) + Send),
    ) -> Result<Asking, JudgeError> {
        let state = self.start(judge.id(), requests, progress);
        state.work(judge);
        state.finish()
    }

    /// Sends `requests` like [`JudgeClient::ask`], with up to [`RunConfig::concurrency`] calls at
    /// the same time.
    ///
    /// The results are in the order of the requests. `progress` is called in the order of
    /// completion, by one thread at a time.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`JudgeClient::ask`], after the calls in progress have ended.
    ///
    /// # Panics
    ///
    /// Panics if the judge or `progress` does.
    pub fn ask_concurrently<J: Judge + Sync>(
        &self,
        judge: &J,
        requests: &[ChatRequest],
        progress: &mut (dyn FnMut(AskProgress<'_>) + Send),
    ) -> Result<Asking, JudgeError> {
        let state = self.start(judge.id(), requests, progress);
        let n_threads = self.config.concurrency.min(state.n_requests());
        thread::scope(|scope| {
            for _ in 0..n_threads {
                scope.spawn(|| state.work(judge));
            }
        });
        state.finish()
    }

    /// Creates the state of a run in which all cached requests are done.
    fn start<'s>(
        &self,
        judge: &JudgeId,
        requests: &'s [ChatRequest],
        progress: &'s mut (dyn FnMut(AskProgress<'_>) + Send),
    ) -> RunState<'s>
    where
        'a: 's,
    {
        let mut new = Vec::new();
        let mut cached = Vec::new();
        for work in work(judge, requests) {
            match self.cache.get(&work.key) {
                Some(reply) => cached.push((work, CallOutcome::Replied { reply, is_cached: true })),
                None => new.push(work),
            }
        }
        let state = RunState::new((self.cache, self.config), new, requests.len(), progress);
        for (work, asked) in cached {
            state.settle(&work, asked);
        }
        state
    }
}

/// Groups equal `requests`, each with its indices.
fn work<'r>(judge: &JudgeId, requests: &'r [ChatRequest]) -> Vec<Work<'r>> {
    let mut work: Vec<Work<'r>> = Vec::new();
    let mut places = BTreeMap::new();
    for (index, request) in requests.iter().enumerate() {
        let key = request.key(judge);
        let place = *places.entry(key.clone()).or_insert(work.len());
        match work.get_mut(place) {
            Some(same) => same.indices.push(index),
            None => work.push(Work { key, request, indices: vec![index] }),
        }
    }
    work
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::judge::CallError;
    use crate::language_model::{Message, Role};

    /// Judge that repeats the question, counts its calls and fails for `no`.
    struct Echo {
        id: JudgeId,
        asked: RefCell<Vec<String>>,
    }

    impl Judge for Echo {
        fn id(&self) -> &JudgeId {
            &self.id
        }

        fn ask(&self, request: &ChatRequest) -> Result<Reply, CallError> {
            let text = request.messages[0].content.clone();
            self.asked.borrow_mut().push(text.clone());
            if text == "no" {
                return Err(CallError::Model { reason: text });
            }
            let text = format!("{text} {}", self.asked.borrow().len());
            Ok(Reply { text, finish: None })
        }
    }

    fn echo() -> Echo {
        let id = JudgeId { model: "echo".to_owned(), place: "here".to_owned() };
        Echo { id, asked: RefCell::default() }
    }

    fn requests(texts: &[&str]) -> Vec<ChatRequest> {
        let request = |text: &&str| ChatRequest {
            messages: vec![Message::new(Role::User, *text)],
            temperature: 0.0,
            max_tokens: 1,
        };
        texts.iter().map(request).collect()
    }

    fn replied(text: &str, is_cached: bool) -> CallOutcome {
        let reply = Reply { text: text.to_owned(), finish: None };
        CallOutcome::Replied { reply, is_cached }
    }

    #[test]
    fn every_request_has_its_outcome_and_equal_ones_are_asked_once() {
        let (judge, cache) = (echo(), ReplyCache::in_memory());
        let asker = JudgeClient::new(&cache, RunConfig::default()).unwrap();
        let mut places = Vec::new();
        let texts = ["a", "no", "b", "a"];
        let asking =
            asker.ask(&judge, &requests(&texts), &mut |p| places.push((p.index, p.n_done)));
        let asking = asking.unwrap();
        let error = CallError::Model { reason: "no".to_owned() };
        let failed = CallOutcome::Failed { error, n_attempts: 1 };
        let expected =
            [replied("a 1", false), failed, replied("b 3", false), replied("a 1", false)];
        assert_eq!(asking.outcomes, expected);
        assert_eq!((asking.n_calls, asking.n_cached), (3, 0));
        assert_eq!(places, [(0, 1), (3, 2), (1, 3), (2, 4)]);
        let again = asker.ask(&judge, &requests(&["b", "c"]), &mut |_| ()).unwrap();
        assert_eq!(again.outcomes, [replied("b 3", true), replied("c 4", false)]);
        assert_eq!((again.n_calls, again.n_cached), (1, 1));
    }

    #[test]
    fn a_reply_that_is_no_good_is_asked_again_and_replaced_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("replies.jsonl");
        let (judge, cache) = (echo(), ReplyCache::open(&path).unwrap());
        let asker = JudgeClient::new(&cache, RunConfig::default()).unwrap();
        let requests = requests(&["a", "b"]);
        asker.ask(&judge, &requests, &mut |_| ()).unwrap();
        asker.forget_unless(judge.id(), &requests, &|index, reply| {
            assert_eq!(reply.text, ["a 1", "b 2"][index]);
            index == 0
        });
        assert_eq!(asker.preview(judge.id(), &requests).n_calls, 1);
        let again = asker.ask(&judge, &requests, &mut |_| ()).unwrap();
        assert_eq!(again.outcomes, [replied("a 1", true), replied("b 3", false)]);
        let reopened = ReplyCache::open(&path).unwrap();
        assert_eq!(reopened.get(&requests[1].key(judge.id())).unwrap().text, "b 3");
    }
}
