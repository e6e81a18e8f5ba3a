//! Many items before a judge: what an [`Asker`] hears, read as verdicts.

use super::asked::AskProgress;
use super::asker::Asker;
use super::assessment::Assessment;
use super::cache::ReplyCache;
use super::chat::{ChatRequest, Judge, JudgeId};
use super::cost::Cost;
use super::error::JudgeError;
use super::item::Item;
use super::outcome::{Outcome, Progress, Report};
use super::run_config::RunConfig;

/// Judges items.
#[derive(Clone, Copy, Debug)]
pub struct Runner<'a> {
    assessment: &'a Assessment,
    asker: Asker<'a>,
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
        Ok(Self { assessment, asker: Asker::new(cache, config)? })
    }

    /// What [`Runner::run`] would cost. Nothing is asked.
    #[must_use]
    pub fn preview(&self, judge: &JudgeId, items: &[Item]) -> Cost {
        self.asker.preview(judge, &self.requests(items))
    }

    /// Judges `items` on this thread, as [`Asker::ask`] does. Every item has an outcome, whatever happens.
    ///
    /// # Errors
    ///
    /// Those of [`Asker::ask`].
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

    /// [`Runner::run`] as [`Asker::ask_concurrently`] asks.
    ///
    /// # Errors
    ///
    /// Those of [`Asker::ask_concurrently`].
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
