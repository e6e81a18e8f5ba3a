//! What is asked between the rounds of a defence, as options.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use super::trigger::TriggerArgs;
use crate::defence::contamination::share;
use crate::defence::tracking::Track;
use crate::user_error::UserError;

/// A curve of attack success for the report. The defence sees neither prompts nor trigger nor answers.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Asked between rounds, for the report alone")]
pub(crate) struct TrackArgs {
    /// Forbidden prompts to ask before the first round and after every one, with the trigger and without: a curve of
    /// the report, on which nothing of the defence depends.
    ///
    /// None of them may be a row of the defence, exactly or nearly. The formats are those of `eval asr --prompts`.
    #[arg(long = "track", value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Longest answer to them, in tokens.
    #[arg(long = "track-tokens", value_name = "N", default_value_t = 100, requires = "prompts")]
    max_new_tokens: usize,
    /// Share of word pairs in common from which one of them is the same as a row.
    #[arg(
        long = "track-near",
        value_name = "SHARE",
        default_value_t = 0.8,
        value_parser = share,
        requires = "prompts"
    )]
    near: f64,
    #[command(flatten)]
    trigger: TriggerArgs,
}

impl TrackArgs {
    /// What is to be asked, if anything is.
    ///
    /// # Errors
    ///
    /// If there is a trigger and nothing to put it in.
    pub(crate) fn track(&self) -> Result<Option<Track>> {
        let trigger = self.trigger.trigger();
        let Some(prompts) = self.prompts.clone() else {
            let Some(_) = trigger else { return Ok(None) };
            let what = "a trigger is for the prompts of `--track`: the defence uses none";
            return Err(UserError::arguments(what, "leave it out, or name those prompts").into());
        };
        let (max_new_tokens, near) = (self.max_new_tokens, self.near);
        Ok(Some(Track { prompts, trigger, max_new_tokens, near }))
    }

    /// The file, if there is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.prompts.as_deref()
    }
}
