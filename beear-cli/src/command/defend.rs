//! `beear defend`: removes a backdoor from a model without knowing its trigger.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use super::Device;
use crate::backend::ComputeBackend;
use crate::defence::defence_run::DefenceRun;
use crate::defence::tracking::Track;
use crate::display::console::Console;
use crate::model::hub::Needed;
use crate::model::{Model, StoredModel};
use crate::options::anchor_files::AnchorFiles;
use crate::options::recipe_options::RecipeOptions;
use crate::options::run_options::RunOptions;
use crate::options::track_options::TrackArgs;
use crate::run_folder::RunFolder;
use crate::run_folder::job::{CheckpointOptions, Job};

/// Removes backdoors from a model without knowing their triggers.
///
/// `OUT/model` is a model folder of the same form as the given one. If the recipe trains adapters,
/// `OUT/adapter` holds them in PEFT's form, and `OUT/model` has them merged. Beside it are the
/// recipe with every setting (config.resolved.toml), the use of each row (rows.jsonl), every event
/// (metrics.jsonl), BEEAR's last perturbations (delta.safetensors), the planned and used memory in
/// bytes (memory.json), inputs, results and outputs with their hashes (manifest.json), and a report
/// of all of it as a page and as data (report.html, report.json). The baselines have one round.
/// After a divergence `OUT/last-good` holds the weights after the last whole round instead.
///
/// Ctrl-C, SIGTERM and SIGHUP write a checkpoint and stop the run. SIGUSR1, or a file
/// `checkpoint-now` in OUT, requests a checkpoint. `beear resume OUT` resumes the run, also after a
/// power failure. If a loss or a gradient becomes NaN or infinite, the run returns to its last
/// checkpoint once, at half the learning rates.
#[derive(Args, Clone, Debug)]
pub(crate) struct DefendArgs {
    /// Model folder of the suspect in Hugging Face form, or org/name[@revision] of the hub.
    #[arg(long, value_name = "DIR|NAME")]
    model: PathBuf,
    #[command(flatten)]
    rows: AnchorFiles,
    /// Folder of the run: the cleaned model in `model`, and the records of the run.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace an older run in that folder. The older run stays in `OUT/.older-run` until this one
    /// has written its model, and is restored if this one fails before.
    #[arg(long)]
    force: bool,
    /// Number of workers that share every batch, each with a replica of the model. They use as many
    /// devices of the backend, counted from the chosen one; on a CPU they share its one device.
    /// BEEAR only, in builds with the feature `collective`.
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::MIN)]
    workers: NonZeroUsize,
    #[command(flatten)]
    checkpoints: CheckpointOptions,
    #[command(flatten)]
    options: RunOptions,
    #[command(flatten)]
    recipe: RecipeOptions,
    #[command(flatten)]
    track: TrackArgs,
}

impl DefendArgs {
    fn job(&self, model: StoredModel, track: Option<Track>) -> Job {
        Job {
            model,
            safety: self.rows.safety.clone(),
            performance: self.rows.performance.clone(),
            recipe: self.recipe.recipe.clone(),
            workers: self.workers,
            checkpoints: self.checkpoints,
            track,
        }
    }

    fn inputs(&self) -> Vec<&Path> {
        let files = [&self.model, &self.rows.safety, &self.rows.performance];
        let files = files.into_iter().chain(&self.recipe.recipe).map(PathBuf::as_path);
        files.chain(self.track.file()).collect()
    }
}

pub(crate) fn run<C: ComputeBackend>(
    args: &DefendArgs,
    device: &Device<C>,
    console: Console,
) -> Result<()> {
    let recipe = args.recipe.read()?;
    args.options.check(args.checkpoints, console)?;
    let track = args.track.track()?;
    let folder = RunFolder::reserve(&args.out, args.force, &args.inputs())?;
    let model = Model::find(&args.model, Needed::Everything, console)?;
    let run = DefenceRun::<C>::prepare(
        (args.job(model.stored()?, track), model),
        recipe,
        device,
        console,
    )?;
    run.start(folder, args.options)
}
