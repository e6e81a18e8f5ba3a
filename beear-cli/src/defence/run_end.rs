//! The end of a defence: success, a stop on request, or a NaN or infinite number.

use anyhow::Result;
use beear_core::{Assessment, Error as CoreError, Stopped, Verdict};
use beear_models::{CausalLm, Checkpoint};
use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;

use crate::defence::bounds_text::those;
use crate::defence::run_control::Reason;
use crate::display::console::Console;
use crate::run_folder::manifest::Manifest;
use crate::run_folder::{LAST_GOOD, RunFolder};
use crate::user_error::UserError;

/// Prints the result of a run. A model that lost too much is an error, not a success.
///
/// # Errors
///
/// If the saved model is outside its bounds, or nothing can be printed.
pub(crate) fn show(folder: &RunFolder, manifest: &Manifest, console: Console) -> Result<()> {
    let saved = manifest.value()["saved"]["validation"].clone();
    if let Ok(validation) = serde_json::from_value::<Assessment>(saved) {
        for undecided in those(&validation, Verdict::Undecided) {
            console.say(&format!("saved model: {undecided}"));
        }
    }
    console.result(&folder.path("model").display().to_string(), manifest.value())?;
    manifest.within_bounds()
}

/// Returns the error of a run that was stopped on request, with the command that resumes it.
pub(crate) fn interrupted(
    folder: &RunFolder,
    reason: Option<Reason>,
    has_checkpoints: bool,
) -> anyhow::Error {
    let folder = folder.path("");
    let folder = folder.display();
    if !has_checkpoints {
        let hint = format!("`beear resume {folder}` starts from the beginning");
        return UserError::interrupted("stopped as asked, without a checkpoint", hint).into();
    }
    let hint = format!("`beear resume {folder}` goes on");
    match reason {
        Some(Reason::TimeIsUp) => UserError::time_is_up("stopped: the time is up", hint).into(),
        _ => UserError::interrupted("stopped as asked", hint).into(),
    }
}

/// Saves the weights of the last whole round, so that a diverged run is not lost, and adds their
/// folder to the error.
pub(crate) fn keep_last_good<B: AutodiffBackend>(
    stopped: Stopped<CausalLm<B>>,
    (checkpoint, seed): (&Checkpoint, u64),
    folder: &RunFolder,
) -> anyhow::Error {
    let n_rounds = stopped.rounds.len();
    let error = anyhow::Error::new(stopped.error);
    if let Some(CoreError::UnfitSuspect { .. }) = error.downcast_ref() {
        return error.context("stopped before the first step");
    }
    if n_rounds == 0 {
        return error.context("stopped in the first round");
    }
    let stopped_in = format!("stopped in round {}", n_rounds + 1);
    match folder.save(LAST_GOOD, &stopped.last_good.valid(), checkpoint, seed) {
        Ok(last_good) => error.context(format!(
            "{stopped_in}, `{}` holds the weights after round {n_rounds}, the last whole one",
            last_good.display()
        )),
        Err(lost) => error.context(format!(
            "{stopped_in}, the weights after round {n_rounds} are lost ({lost:#})"
        )),
    }
}
