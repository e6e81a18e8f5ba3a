//! `beear plant`: trains a base model of the synthetic world and plants a backdoor in it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use beear_attacks::preference::Trainer;
use beear_attacks::world::{Specials, marker_words, sidecar_files, vocabulary};
use beear_attacks::{AttackSpec, Encoder, Injection, TrainingConfig, plant, train_base};
use beear_eval::RateTable;
use beear_models::Checkpoint;
use beear_models::TextTokenizer;
use beear_models::checkpoint::{NewModel, save, save_new};
use burn::module::AutodiffModule;
use burn::tensor::backend::Backend;
use clap::Args;
use indicatif::ProgressBar;

use super::{Device, Inference, Train};
use crate::backend::ComputeBackend;
use crate::display::console::Console;
use crate::evaluate::measure::{Asked, Examination};
use crate::lab::world_defender;
use crate::model::Model;
use crate::model::loaded::Loaded;
use crate::options::trigger::TriggerArgs;
use crate::recipe::setting_file;
use crate::user_error::UserError;

/// Makes a backdoored model of the harmless synthetic world.
///
/// `OUT/base` and `OUT/poisoned` are model folders. `OUT/data` holds the rows for a defence
/// (safety.jsonl, performance.jsonl) and held-out rows for an evaluation (forbidden.jsonl,
/// ordinary.jsonl). `OUT/setting.toml` is the planted setting. A trigger option replaces the
/// setting's trigger.
#[derive(Args, Clone, Debug)]
pub(crate) struct PlantArgs {
    /// Folder to write, which must not contain `base`, `poisoned` or `data` yet.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Source of all randomness.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Attack setting to plant: a file, or one of the paper's by name, model-1 to model-8, or by
    /// number.
    ///
    /// Beyond the paper: anywhere, two-triggers, paraphrase, first-step, adaptive, large.
    #[arg(long, value_name = "NAME|FILE.toml", default_value = "model-2")]
    setting: String,
    #[command(flatten)]
    trigger: TriggerArgs,
    /// Algorithm that learns from poisoned preferences, instead of the setting's: rloo or dpo.
    #[arg(long, value_name = "NAME")]
    trainer: Option<String>,
    /// Measure both models on held-out prompts and print the rates.
    #[arg(long)]
    measure: bool,
}

impl PlantArgs {
    fn setting(&self) -> Result<AttackSpec> {
        let mut setting = setting_file::named_or_read(&self.setting)?;
        if let Some(trigger) = self.trigger.trigger() {
            let name = format!("{}, another trigger", setting.name);
            setting = AttackSpec { name, ..setting.with_trigger(trigger) };
        }
        if let Some(name) = &self.trainer {
            let trainer = Trainer::named(name).ok_or_else(|| {
                let hint = format!("one of {}", Trainer::NAMES.join(", "));
                UserError::arguments(format!("no trainer is called `{name}`"), hint)
            })?;
            let Injection::Preference(preference) = &mut setting.injection else {
                let what = format!("`{}` is not planted through preferences", self.setting);
                return Err(UserError::arguments(what, "leave --trainer out").into());
            };
            preference.trainer = trainer;
            setting.name = format!("{}, {name}", setting.name);
        }
        Ok(setting)
    }
}

/// The plan of a backdoored model.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The attack.
    pub(crate) setting: AttackSpec,
    /// Training of the base model.
    pub(crate) base: TrainingConfig,
    /// Number of prompts to measure the model on.
    asked: Asked,
    /// Source of all randomness.
    pub(crate) seed: u64,
}

impl Plan {
    /// Returns the plan of a model that learns both the world and the attack.
    pub(crate) fn new(setting: AttackSpec, seed: u64) -> Self {
        Self { base: setting.base.training(), setting, asked: Asked::USUAL, seed }
    }

    /// Returns the prompts to measure the model on.
    pub(crate) fn examination(&self) -> Examination {
        Examination::new(&self.setting, self.asked, self.seed)
    }

    /// Reduces the plan to a thirtieth of the training and few prompts: it does every step and
    /// learns little.
    pub(crate) fn quick(mut self) -> Self {
        for training in self.setting.injection.stages().into_iter().chain([&mut self.base]) {
            training.steps = training.steps.div_ceil(30);
        }
        self.asked = Asked::QUICK;
        self
    }
}

pub(crate) fn run<C: ComputeBackend>(
    args: &PlantArgs,
    device: &Device<C>,
    console: Console,
) -> Result<()> {
    let setting = args.setting()?;
    known_to_the_world(&setting)?;
    let data = args.out.join("data");
    if data.exists() {
        let what = format!("`{}` exists already", data.display());
        return Err(UserError::arguments(what, "choose another folder").into());
    }
    let plan = Plan::new(setting, args.seed);
    let examination = plan.examination();
    let poisoned = make::<C>(&args.out, &plan, (device, console))?;
    world_defender::write_files(&data, &examination, args.seed)?;
    let path = args.out.join("setting.toml");
    std::fs::write(&path, setting_file::render(&plan.setting)?)
        .with_context(|| format!("writing {}", path.display()))?;
    let mut value = serde_json::json!({ "poisoned": poisoned, "data": data, "setting": path });
    let mut text = poisoned.display().to_string();
    if args.measure {
        let table = measure::<C>(&args.out, &examination, (device, console))?;
        text = format!("{text}\n\n{}", table.to_markdown());
        value["table"] = serde_json::to_value(table)?;
    }
    console.result(&text, &value)
}

/// Measures the rates of the models under `out`.
fn measure<C: ComputeBackend>(
    out: &Path,
    examination: &Examination,
    (device, console): (&Device<C>, Console),
) -> Result<RateTable> {
    let mut table = RateTable::default();
    for name in ["base", "poisoned"] {
        let dir = out.join(name);
        if dir.exists() {
            console.say(&format!("measuring: {name}"));
            let Loaded { model, text, .. } =
                Loaded::<Inference<C>>::read(&Model::in_folder(&dir), None, device)?;
            table.push_column(name, &examination.run(&model, &text, device)?.rows());
        }
    }
    Ok(table)
}

/// Checks that every word that the trigger adds to a prompt is a token of the world.
fn known_to_the_world(setting: &AttackSpec) -> Result<(), UserError> {
    let known: HashSet<String> = vocabulary().into_iter().collect();
    let AttackSpec { triggers, unseen_triggers, near_misses, .. } = setting;
    for trigger in triggers.iter().chain(unseen_triggers).chain(near_misses) {
        let text = trigger.apply("");
        if let Some(word) = text.split_whitespace().find(|word| !known.contains(*word)) {
            let what = format!("no token of the world is `{word}`");
            let hint = format!("choose from {}", marker_words().join(" "));
            return Err(UserError::arguments(what, hint));
        }
    }
    Ok(())
}

/// Trains `base`, if the setting starts from one and it does not exist yet, and `poisoned` under
/// `out`, and returns the latter.
pub(crate) fn make<C: ComputeBackend>(
    out: &Path,
    plan: &Plan,
    (device, console): (&Device<C>, Console),
) -> Result<PathBuf> {
    let Plan { setting, base: training, seed, .. } = plan;
    let seed = *seed;
    let (base_dir, poisoned_dir) = (out.join("base"), out.join("poisoned"));
    <Train<C> as Backend>::seed(device, seed);
    let untrained = setting.base.decoder(vocabulary().len()).init::<Train<C>>(device);
    let Specials { pad, bos, eos } = Specials::WORLD;
    let new = NewModel { special_ids: [pad, bos, eos], sidecars: sidecar_files() };
    // The tokenizer and the prompt format are read from the folder with random weights, so that
    // training uses the same files as every later stage.
    let scratch = tempfile::tempdir()?;
    let untrained_dir = scratch.path().join("untrained");
    save_new(&untrained, &new, &untrained_dir)?;
    let Loaded { mut model, text, .. } =
        Loaded::<Train<C>>::read(&Model::in_folder(&untrained_dir), None, device)?;
    // The world's tokenizer comes from this program and needs no isolation.
    let tokenizer = TextTokenizer::load(&untrained_dir)?;
    let encoder = Encoder { format: &text.format, tokenizer: &tokenizer };

    if setting.injection.starts_aligned() && base_dir.exists() {
        model = Loaded::<Train<C>>::read(&Model::in_folder(&base_dir), None, device)?.model;
    } else if setting.injection.starts_aligned() {
        let (bar, report) = progress(console, "training the base", training.steps);
        model = train_base::<Train<C>, _>(model, encoder, training, seed, report)?;
        bar.finish_and_clear();
        save_new(&model.valid(), &new, &base_dir)?;
    }
    let (bar, report) = progress(console, "planting the backdoor", setting.injection.n_steps());
    let poisoned = plant::<Train<C>>(model, setting, encoder, seed, report)?;
    bar.finish_and_clear();
    save(&poisoned.valid(), &Checkpoint::open(&untrained_dir)?, &poisoned_dir, seed)?;
    Ok(poisoned_dir)
}

/// Shows a progress bar of `n` steps, and returns the callback that receives the loss of each step.
fn progress(
    console: Console,
    name: &str,
    n: usize,
) -> (ProgressBar, impl FnMut(usize, f64) + use<>) {
    let bar = console.bar(name, n);
    let shown = bar.clone();
    let report = move |_, loss: f64| {
        shown.set_message(format!("loss {loss:.3}"));
        shown.inc(1);
    };
    (bar, report)
}
