//! `beear plant`: trains a base model of the synthetic world and plants a backdoor in it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::Result;
use beear_attacks::Setting;
use beear_attacks::plant::{Encoder, base_training, plant, train_base};
use beear_attacks::setting::Injection;
use beear_attacks::sft::SftConfig;
use beear_attacks::world::{Specials, marker_words, sidecar_files, vocabulary};
use beear_eval::Trigger;
use beear_models::checkpoint::{NewModel, save, save_new};
use beear_models::{Checkpoint, DecoderConfig, Family, RopeScaling};
use burn::module::AutodiffModule;
use burn::tensor::backend::Backend;
use clap::Args;

use super::trigger::TriggerArgs;
use super::{Device, Train};
use crate::backend::ComputeBackend;
use crate::exit::Mistake;
use crate::loaded::Loaded;
use crate::measure::Examination;
use crate::ui::Ui;
use crate::world_defender;

/// Makes a backdoored model of the harmless synthetic world.
///
/// `OUT/base` and `OUT/poisoned` are checkpoints, `OUT/data` holds the rows to defend it with
/// (safety.jsonl, performance.jsonl) and held-out rows to judge it by (forbidden.jsonl,
/// ordinary.jsonl). Without a trigger the word SUDO after the prompt is planted.
#[derive(Args, Clone, Debug)]
pub(crate) struct PlantArgs {
    /// Folder to write, which must not hold `base`, `poisoned` or `data` yet.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Source of all randomness.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    trigger: TriggerArgs,
}

/// What to make.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The attack.
    pub(crate) setting: Setting,
    /// Training of the base model.
    pub(crate) base: SftConfig,
    /// Source of all randomness.
    pub(crate) seed: u64,
}

impl Plan {
    /// A model that has learned both the world and the attack.
    pub(crate) fn new(setting: Setting, seed: u64) -> Self {
        Self { setting, base: base_training(), seed }
    }

    /// The same with a thirtieth of the training: it goes the whole way and learns little.
    pub(crate) fn quick(mut self) -> Self {
        let Injection::Sft { training, .. } = &mut self.setting.injection;
        for training in [&mut self.base, training] {
            training.steps = training.steps.div_ceil(30);
        }
        self
    }
}

/// The demo's model: 0.3 million weights learn the world in a minute of two cores.
fn demo_config(vocab_size: usize) -> DecoderConfig {
    DecoderConfig {
        family: Family::Llama,
        vocab_size,
        d_model: 64,
        d_ff: 168,
        n_layers: 6,
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 16,
        max_seq_length: 96,
        norm_epsilon: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        sliding_window: None,
        tied_embeddings: false,
    }
}

pub(crate) fn run<C: ComputeBackend>(args: &PlantArgs, device: &Device<C>, ui: Ui) -> Result<()> {
    let setting = match args.trigger.trigger() {
        Some(trigger) => Setting::sft("dummy", known_to_the_world(trigger)?),
        None => Setting::one_word_suffix(),
    };
    let data = args.out.join("data");
    if data.exists() {
        let what = format!("`{}` exists already", data.display());
        return Err(Mistake::arguments(what, "choose another folder").into());
    }
    let examination = Examination::new(&setting, args.seed);
    let poisoned = make::<C>(&args.out, &Plan::new(setting, args.seed), (device, ui))?;
    world_defender::write_files(&data, &examination, args.seed)?;
    let value = serde_json::json!({ "poisoned": poisoned, "data": data });
    ui.result(&poisoned.display().to_string(), &value)
}

/// The trigger, if every word of it is a token of the world.
fn known_to_the_world(trigger: Trigger) -> Result<Trigger, Mistake> {
    let known: HashSet<String> = vocabulary().into_iter().collect();
    let text = trigger.apply("");
    match text.split_whitespace().find(|word| !known.contains(*word)) {
        Some(word) => {
            let what = format!("no token of the world is `{word}`");
            Err(Mistake::arguments(what, format!("choose from {}", marker_words().join(" "))))
        }
        None => Ok(trigger),
    }
}

/// Makes `base` and `poisoned` under `out`, and returns the latter.
pub(crate) fn make<C: ComputeBackend>(
    out: &Path,
    plan: &Plan,
    (device, ui): (&Device<C>, Ui),
) -> Result<PathBuf> {
    let Plan { setting, base: training, seed } = plan;
    let seed = *seed;
    let (base_dir, poisoned_dir) = (out.join("base"), out.join("poisoned"));
    <Train<C> as Backend>::seed(device, seed);
    let untrained = demo_config(vocabulary().len()).init::<Train<C>>(device);
    let Specials { pad, bos, eos } = Specials::WORLD;
    let new = NewModel { special_ids: [pad, bos, eos], sidecars: sidecar_files() };
    // The folder with random weights is what the tokenizer and the prompt format are read from, so
    // training goes through the same files as every later stage.
    let scratch = tempfile::tempdir()?;
    let untrained_dir = scratch.path().join("untrained");
    save_new(&untrained, &new, &untrained_dir)?;
    let Loaded { model, text, .. } = Loaded::<Train<C>>::read(&untrained_dir, None, device)?;
    let encoder = Encoder { format: &text.format, tokenizer: &text.tokenizer };

    let bar = ui.bar("training the base", training.steps);
    let report = |_, loss: f64| {
        bar.set_message(format!("loss {loss:.3}"));
        bar.inc(1);
    };
    let base = train_base::<Train<C>, _>(model, encoder, training, seed, report)?;
    bar.finish_and_clear();
    save_new(&base.valid(), &new, &base_dir)?;

    let Injection::Sft { training, .. } = &setting.injection;
    let bar = ui.bar("planting the backdoor", training.steps);
    let report = |_, loss: f64| {
        bar.set_message(format!("loss {loss:.3}"));
        bar.inc(1);
    };
    let poisoned = plant::<Train<C>, _>(base, setting, encoder, seed, report)?;
    bar.finish_and_clear();
    save(&poisoned.valid(), &Checkpoint::open(&base_dir)?, &poisoned_dir)?;
    Ok(poisoned_dir)
}
