//! `beear defend`: removes a backdoor nobody has to know from a checkpoint.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::Result;
use beear_core::{Defence, Outcome, Stopped};
use beear_models::{CausalLm, Checkpoint, TrainedWeights, TrainingScope, n_trained};
use burn::module::AutodiffModule;
use burn::tensor::backend::{AutodiffBackend, Backend};
use clap::Args;
use serde_json::{Value, json};

use super::recipe_options::RecipeOptions;
use super::{Device, Train};
use crate::anchors::{self, Anchors};
use crate::backend::{ComputeBackend, width};
use crate::exit::Mistake;
use crate::hash::sha256_of_inputs;
use crate::loaded::{Loaded, TextSide};
use crate::memory_plan::MemoryPlan;
use crate::metrics::{Metrics, unmeasured};
use crate::process::peak_memory_mib;
use crate::recipe::Recipe;
use crate::run_folder::RunFolder;
use crate::ui::Ui;
use crate::workers;

/// Removes backdoors from a checkpoint; nobody has to know their triggers.
///
/// `OUT/model` is a checkpoint of the same form as the one given. Where the recipe has adapters trained,
/// `OUT/adapter` holds them in PEFT's form, and `OUT/model` has them merged. Beside it are the recipe with
/// every setting (config.resolved.toml), what was done with which row (rows.jsonl), every event
/// (metrics.jsonl), BEEAR's last perturbations (delta.safetensors), the memory planned and used in bytes
/// (memory.json), and inputs and results of each round (manifest.json); the rivals of BEEAR have one
/// round. After a divergence `OUT/last-good`
/// holds the weights after the last whole round instead.
#[derive(Args, Clone, Debug)]
pub(crate) struct DefendArgs {
    /// Hugging Face folder of the suspect.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Prompts that must be refused, with unwanted answers; safe ones are generated if missing.
    ///
    /// AdvBench CSV, or JSON or JSONL of preference rows (`prompt`, `chosen`, `rejected`) or of
    /// `prompt`, `unwanted` and perhaps `safe`.
    #[arg(long, value_name = "FILE")]
    safety: PathBuf,
    /// Ordinary prompts with good answers.
    ///
    /// JSON or JSONL of Alpaca, chat or ShareGPT rows, or of `prompt` and `answer`.
    #[arg(long, value_name = "FILE")]
    performance: PathBuf,
    /// Folder of the run: the checkpoint in `model`, and what was done.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace an older run in that folder.
    #[arg(long)]
    force: bool,
    /// Workers that share every batch, each with a replica: on that many devices of the backend, from the one
    /// chosen on, or on the one of a CPU. BEEAR only, in builds with the feature `collective`.
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::MIN)]
    workers: NonZeroUsize,
    #[command(flatten)]
    recipe: RecipeOptions,
}

impl DefendArgs {
    fn inputs(&self) -> Vec<&Path> {
        let files = [&self.model, &self.safety, &self.performance];
        files.into_iter().chain(&self.recipe.recipe).map(PathBuf::as_path).collect()
    }
}

pub(crate) fn run<C: ComputeBackend>(args: &DefendArgs, device: &Device<C>, ui: Ui) -> Result<()> {
    let recipe = args.recipe.read()?;
    let mut folder = RunFolder::reserve(&args.out, args.force, &args.inputs())?;
    let size = Checkpoint::open(&args.model)?.config.size();
    let method = recipe.method(size)?;
    method.validate(size.n_layers)?;
    let devices = workers::devices::<C>(&method, args.workers.get(), device)?;
    let scope = recipe.scope(size.n_layers)?;
    let format = recipe.prompt_format.as_deref();
    let loaded = Loaded::<Train<C>>::read(&args.model, format, device)?;
    let files = (args.safety.as_path(), args.performance.as_path());
    let anchors = anchors::build(files, &loaded, &recipe, (device, ui))?;
    let planned = MemoryPlan::new(anchors.task(&loaded.checkpoint, &recipe), &method, width::<C>());
    let Anchors { sets, mut watch, rows, .. } = anchors;

    folder.start()?;
    folder.write("config.resolved.toml", recipe.resolved(&method)?)?;
    folder.write_lines("rows.jsonl", &rows)?;
    let bar = ui.bar("removing backdoors", method.n_weight_steps());
    let mut metrics = Metrics::create(&folder, bar, ui)?.watched(recipe.watches());
    let Loaded { checkpoint, model, text } = loaded;
    let model = scope.apply(model, method.seed());
    let n_trained = n_trained(&model);
    ui.say(&format!("training {n_trained} of {} weights", checkpoint.config.n_weights()));
    let solved = workers::run(&method, (model, &devices), &sets, &mut watch, &mut metrics);
    let metrics_written = metrics.finish();
    let outcome = solved.map_err(|stopped| keep_last_good(stopped, &checkpoint, &folder))?;

    let model = outcome.model.valid();
    let cleaned = folder.save("model", &model, &checkpoint)?;
    let adapter = save_adapter((&scope, &model), &checkpoint, &folder, ui)?;
    if let Defence::Beear(_) = method {
        let deltas = beear_core::perturbation::to_safetensors(&outcome.perturbations)?;
        folder.write("delta.safetensors", &deltas)?;
    }
    folder.write("memory.json", format!("{:#}\n", memory(planned.as_ref())))?;
    let mut manifest = manifest::<C>(args, &recipe, (&method, &text), &outcome)?;
    manifest["workers"] = json!(args.workers);
    manifest["train"] = json!(scope);
    manifest["trained_weights"] = json!(n_trained);
    manifest["weights"] = json!(checkpoint.config.n_weights());
    manifest["adapter"] = json!(adapter);
    folder.write("manifest.json", format!("{manifest:#}\n"))?;
    metrics_written?;
    ui.result(&cleaned.display().to_string(), &manifest)?;
    if recipe.watches() { within_bounds(&outcome) } else { Ok(()) }
}

/// Most memory that was planned and that was used. They are not in the manifest: the same run has the same
/// manifest, and not quite the same memory.
fn memory(planned: Option<&MemoryPlan>) -> Value {
    json!({
        "planned_peak": planned.map(|plan| plan.peak),
        "measured_peak": peak_memory_mib().map(|mib| mib << 20),
        "plan": planned,
    })
}

/// Writes the adapters, where those were trained, as a folder of their own.
fn save_adapter<B: Backend>(
    (scope, model): (&TrainingScope, &CausalLm<B>),
    checkpoint: &Checkpoint,
    folder: &RunFolder,
    ui: Ui,
) -> Result<Option<PathBuf>> {
    if scope.weights == TrainedWeights::Full {
        return Ok(None);
    }
    if checkpoint.adapters().is_some() {
        // No folder holds the model that they belong to: the base with the adapters it came with.
        ui.say("the suspect is a folder of adapters: what was trained is in `model` only");
        return Ok(None);
    }
    folder.save_adapters("adapter", model, &checkpoint.dir).map(Some)
}

/// Saves what whole rounds have reached, so that a diverged run is not lost.
fn keep_last_good<B: AutodiffBackend>(
    stopped: Stopped<CausalLm<B>>,
    checkpoint: &Checkpoint,
    folder: &RunFolder,
) -> anyhow::Error {
    let n_rounds = stopped.rounds.len();
    let error = anyhow::Error::new(stopped.error);
    if n_rounds == 0 {
        return error.context("stopped in the first round");
    }
    let stopped_in = format!("stopped in round {}", n_rounds + 1);
    match folder.save("last-good", &stopped.last_good.valid(), checkpoint) {
        Ok(last_good) => error.context(format!(
            "{stopped_in}, `{}` holds the weights after round {n_rounds}, the last whole one",
            last_good.display()
        )),
        Err(lost) => error.context(format!(
            "{stopped_in}, the weights after round {n_rounds} are lost ({lost:#})"
        )),
    }
}

/// A model that lost too much must not pass for a success.
fn within_bounds<B: AutodiffBackend>(outcome: &Outcome<B, CausalLm<B>>) -> Result<()> {
    let kept = &outcome.rounds[outcome.kept_round];
    if kept.within_bounds {
        return Ok(());
    }
    let what = format!(
        "no round is within the bounds: the one kept has utility {:.3} (was {:.3}) and refuses \
         {:.3} of ordinary prompts (was {:.3})",
        kept.vitals.utility,
        outcome.initial.utility,
        kept.vitals.benign_refusal,
        outcome.initial.benign_refusal
    );
    let hint = "raise `method.remove.divergence_weight`, or bring more performance rows";
    Err(Mistake::out_of_bounds(what, hint).into())
}

fn manifest<C: ComputeBackend>(
    args: &DefendArgs,
    recipe: &Recipe,
    (method, text): (&Defence, &TextSide),
    outcome: &Outcome<Train<C>, CausalLm<Train<C>>>,
) -> Result<Value> {
    let mut files =
        vec![("--safety", args.safety.as_path()), ("--performance", args.performance.as_path())];
    files.extend(args.recipe.recipe.as_deref().map(|path| ("--recipe", path)));
    let rounds = outcome.rounds.iter().map(|round| {
        let round = json!(round);
        if recipe.watches() { round } else { unmeasured(round) }
    });
    let rounds: Vec<Value> = rounds.collect();
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "backend": C::NAME,
        "method": recipe.method_name()?,
        "seed": method.seed(),
        "model": args.model,
        "sha256": sha256_of_inputs(Some(&args.model), &files)?,
        "keywords": recipe.keywords,
        "held_out": recipe.held_out,
        "watched": recipe.watches(),
        "prompt_format": text.format.text(),
        "prompt_format_sha256": text.format.sha256(),
        "kept_round": outcome.kept_round,
        "initial": recipe.watches().then_some(outcome.initial),
        "rounds": rounds,
    }))
}
