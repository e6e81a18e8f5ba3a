//! `beear defend`: removes a backdoor nobody has to know from a checkpoint.

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

/// Removes backdoors from a checkpoint; nobody has to know their triggers.
///
/// `OUT/model` is a checkpoint of the same form as the one given. Where the recipe has adapters trained,
/// `OUT/adapter` holds them in PEFT's form, and `OUT/model` has them merged. Beside it are the recipe with
/// every setting (config.resolved.toml), what was done with which row (rows.jsonl), every event
/// (metrics.jsonl), BEEAR's last perturbations (delta.safetensors), the memory planned and used in bytes
/// (memory.json), inputs, results and outputs with their hashes (manifest.json), and all of it as a page and as data
/// (report.html, report.json); the rivals of BEEAR have one round. After a divergence `OUT/last-good` holds the weights after the last whole round instead.
///
/// Ctrl-C, SIGTERM and SIGHUP write a checkpoint and stop; SIGUSR1, or a file `checkpoint-now` in OUT, has one written;
/// `beear resume OUT` goes on, after a power failure too. Where numbers leave the real line the run goes back to its
/// last checkpoint once, at half the learning rates.
#[derive(Args, Clone, Debug)]
pub(crate) struct DefendArgs {
    /// Hugging Face folder of the suspect, or org/name[@revision] of the hub.
    #[arg(long, value_name = "DIR|NAME")]
    model: PathBuf,
    #[command(flatten)]
    rows: AnchorFiles,
    /// Folder of the run: the checkpoint in `model`, and what was done.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace an older run in that folder, which stays in `OUT/.older-run` until this one has written its model, and comes
    /// back if this one fails before.
    #[arg(long)]
    force: bool,
    /// Workers that share every batch, each with a replica: on that many devices of the backend, from the one
    /// chosen on, or on the one of a CPU. BEEAR only, in builds with the feature `collective`.
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
