//! `beear resume`: resumes a stopped defence.

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

/// Resumes a run of `defend` that was stopped or killed, from its newest complete checkpoint.
///
/// Inputs, recipe, workers and backend are those of the run; the hashes of the inputs must be those
/// of its manifest. On one backend and machine the result equals that of a run that was never
/// stopped, bit for bit. For a finished run the result is shown again, and checkpoints that a kill
/// at its very end has left are removed.
#[derive(Args, Clone, Debug)]
pub(crate) struct ResumeArgs {
    /// Folder of the run.
    #[arg(value_name = "RUN")]
    run: PathBuf,
    #[command(flatten)]
    options: RunOptions,
}

impl ResumeArgs {
    /// Returns the backend of the run, if the run names one.
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
    // If the run never began, the older run is restored.
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
