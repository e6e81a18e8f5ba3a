//! Options for the time limit and the display of a defence.

use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::display::console::Console;
use crate::display::dashboard;
use crate::run_folder::job::CheckpointOptions;
use crate::user_error::UserError;

/// The time limit and the display of a run.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct RunOptions {
    /// Time after which to write a checkpoint and stop with exit code 9, such as 90m or 1h30m.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) max_time: Option<Duration>,
    /// Show the run on the whole terminal of standard error: losses, validation metrics, memory and
    /// the time left. The key q stops the run like Ctrl-C; c writes a checkpoint.
    #[arg(long)]
    pub(crate) tui: bool,
}

impl RunOptions {
    /// Checks the options before anything is read or written.
    ///
    /// # Errors
    ///
    /// If the options make a run that cannot be stopped and resumed, or cannot be shown.
    pub(crate) fn check(&self, checkpoints: CheckpointOptions, console: Console) -> Result<()> {
        let refuse = |what: &str, hint: &str| Err(UserError::arguments(what, hint).into());
        if !checkpoints.are_written() && self.max_time.is_some() {
            let what = "a run without checkpoints cannot be gone on with when its time is up";
            return refuse(what, "leave `--max-time` or `--checkpoint-every never` out");
        }
        if !checkpoints.are_written() && checkpoints.keep_checkpoints.is_some() {
            let what = "a run without checkpoints keeps none";
            return refuse(what, "leave `--keep-checkpoints` or `--checkpoint-every never` out");
        }
        if self.tui { dashboard::check(console) } else { Ok(()) }
    }
}
