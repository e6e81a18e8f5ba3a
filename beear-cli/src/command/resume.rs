//! `beear resume`: goes on with a defence that was stopped.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::Device;
use crate::backend::ComputeBackend;
use crate::defence::defence_run::DefenceRun;
use crate::defence::run_end::show;
use crate::display::console::Console;
use crate::model::Model;
use crate::options::run_options::RunOptions;
use crate::recipe::Recipe;
use crate::report::{self, PAGE};
use crate::run_folder::RunFolder;
use crate::run_folder::manifest::{Manifest, SETTINGS};
use crate::user_error::UserError;

/// Goes on with a run of `defend` that was stopped or killed, from its newest whole checkpoint.
///
/// Everything is as the run has it: inputs, whose hashes must be those of its manifest, recipe, workers and backend.
/// On one backend and machine the outcome is that of a run that was never stopped, bit for bit. Of a run that is done
/// the result is shown again, and checkpoints that a kill at its very end has left are removed.
#[derive(Args, Clone, Debug)]
pub(crate) struct ResumeArgs {
    /// Folder of the run.
    #[arg(value_name = "RUN")]
    run: PathBuf,
    #[command(flatten)]
    options: RunOptions,
}

impl ResumeArgs {
    /// The backend that the run is on, if it says so.
    pub(crate) fn backend(&self) -> Option<String> {
        Manifest::read(&RunFolder::reopen(&self.run).ok()?).ok()?.backend().map(str::to_owned)
    }
}

pub(crate) fn run<C: ComputeBackend>(
    args: &ResumeArgs,
    device: &Device<C>,
    console: Console,
) -> Result<()> {
    let folder = RunFolder::reopen(&args.run)?;
    // Where it never began, an older run comes back.
    let manifest = Manifest::read(&folder).inspect_err(|_| folder.has_failed())?;
    if manifest.is_done() {
        manifest.same_outputs(&folder)?;
        console.say("the run is done");
        manifest.remove_leftovers(&folder)?;
        if !folder.path(PAGE).exists() {
            report::write_or_say(&folder, console);
        }
        return show(&folder, &manifest, console);
    }
    if manifest.has_failed_without_weights(&folder) {
        folder.has_failed();
    }
    let job = manifest.job()?;
    if let Some(backend) = manifest.backend().filter(|backend| *backend != C::NAME) {
        let what = format!("the run is on backend `{backend}`");
        return Err(UserError::arguments(what, "name that one, or none").into());
    }
    manifest.same_records(&folder)?;
    let recipe = Recipe::read(Some(&folder.path(SETTINGS)), None, &[])?;
    args.options.check(job.checkpoints, console)?;
    let model = Model::find_stored(&job.model, console)?;
    manifest.same_inputs(&job, &model)?;
    let run = DefenceRun::<C>::prepare((job, model), recipe, device, console)?;
    run.resume(folder, args.options)
}
