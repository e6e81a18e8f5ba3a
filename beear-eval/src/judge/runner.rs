//! Judging of many items: replies to a [`JudgeClient`], parsed as verdicts.

use super::asked::AskProgress;
use super::assessment::Assessment;
use super::cache::ReplyCache;
use super::chat::{ChatRequest, Judge, JudgeId};
use super::cost::Cost;
use super::error::JudgeError;
use super::item::Item;
use super::judge_client::JudgeClient;
use super::outcome::{Outcome, Progress, Report};
use super::run_config::RunConfig;

/// Runner that judges items with one assessment.
#[derive(Clone, Copy, Debug)]
pub struct Runner<'a> {
    assessment: &'a Assessment,
    asker: JudgeClient<'a>,
}

impl<'a> Runner<'a> {
    /// Creates a runner of `assessment` that stores replies in `cache`.
    ///
    /// # Errors
    ///
    /// Returns [`JudgeError::Setting`], the first problem of [`RunConfig::validate`].
    pub fn new(
        assessment: &'a Assessment,
        cache: &'a ReplyCache,
        config: RunConfig,
    ) -> Result<Self, JudgeError> {
        Ok(Self { assessment, asker: JudgeClient::new(cache, config)? })
    }

    /// Estimates the cost of [`Runner::run`] without calling the judge.
    #[must_use]
    pub fn preview(&self, judge: &JudgeId, items: &[Item]) -> Cost {
        self.asker.preview(judge, &self.requests(items))
    }

    /// Judges `items` on this thread, like [`JudgeClient::ask`]. Every item has an outcome.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`JudgeClient::ask`].
    pub fn run<J: Judge>(
        &self,
        judge: &J,
        items: &[Item],
        progress: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<Report, JudgeError> {
        let mut told = |done: AskProgress<'_>| self.tell(done, progress);
        let asking = self.asker.ask(judge, &self.requests(items), &mut told)?;
        Ok(Report::of(self.assessment, judge.id(), &asking))
    }

    /// Judges `items` concurrently, like [`JudgeClient::ask_concurrently`].
    ///
    /// # Errors
    ///
    /// Returns the errors of [`JudgeClient::ask_concurrently`].
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
        let mut told = |done: AskProgress<'_>| self.tell(done, progress);
        let asking = self.asker.ask_concurrently(judge, &self.requests(items), &mut told)?;
        Ok(Report::of(self.assessment, judge.id(), &asking))
    }

    fn requests(&self, items: &[Item]) -> Vec<ChatRequest> {
        items.iter().map(|item| self.assessment.request(item)).collect()
    }

    fn tell(&self, done: AskProgress<'_>, progress: &mut (dyn FnMut(Progress<'_>) + Send)) {
        let AskProgress { index, asked, n_done, n_expected } = done;
        let outcome = &Outcome::of(self.assessment, asked);
        let is_cached = asked.is_cached();
        progress(Progress { index, outcome, is_cached, n_done, n_expected });
    }
}
