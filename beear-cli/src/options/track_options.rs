//! Options for the prompts that track attack success between the rounds of a defence.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use super::trigger::TriggerArgs;
use crate::defence::contamination::share;
use crate::defence::tracking::Track;
use crate::user_error::UserError;

/// Options for a curve of attack success in the report. The defence sees neither prompts nor
/// trigger nor answers.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Asked between rounds, for the report alone")]
pub(crate) struct TrackArgs {
    /// Forbidden prompts that are answered before the first round and after every round, with the
    /// trigger and without, for a curve in the report. Nothing of the defence depends on the curve.
    ///
    /// None of the prompts may be a row of the defence, exactly or nearly. The formats are those of
    /// `eval asr --prompts`.
    #[arg(long = "track", value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Maximum length of an answer to these prompts, in tokens.
    #[arg(long = "track-tokens", value_name = "N", default_value_t = 100, requires = "prompts")]
    max_new_tokens: usize,
    /// Share of common word pairs from which one of these prompts counts as a row of the defence.
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
    /// Reads the prompts to track, if any are given.
    ///
    /// # Errors
    ///
    /// If a trigger is given without prompts.
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

    /// Returns the file, if one is given.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.prompts.as_deref()
    }
}
