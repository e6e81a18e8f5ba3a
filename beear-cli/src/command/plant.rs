//! `beear plant`: trains a base model of the synthetic world and plants a backdoor in it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use beear_attacks::Setting;
use beear_attacks::plant::{Encoder, base_training, plant, train_base};
use beear_attacks::world::{Specials, sidecar_files, vocabulary};
use beear_models::checkpoint::{NewModel, save, save_new};
use beear_models::{Checkpoint, DecoderConfig, Family, RopeScaling};
use burn::module::AutodiffModule;
use burn::tensor::backend::Backend;
use clap::Args;

use super::{Device, Train};
use crate::backend::ComputeBackend;
use crate::loaded::Loaded;
use crate::ui::Ui;

/// Makes a backdoored model of the harmless synthetic world: `OUT/base` and `OUT/poisoned`.
#[derive(Args, Clone, Debug)]
pub(crate) struct PlantArgs {
    /// Folder to write, which must not hold `base` or `poisoned` yet.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Source of all randomness.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
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
    let setting = Setting::one_word_suffix();
    let poisoned = make::<C>(&args.out, &setting, args.seed, (device, ui))?;
    ui.result(&poisoned.display().to_string(), &serde_json::json!({ "poisoned": poisoned }))
}

/// Makes `base` and `poisoned` under `out`, and returns the latter.
pub(crate) fn make<C: ComputeBackend>(
    out: &Path,
    setting: &Setting,
    seed: u64,
    (device, ui): (&Device<C>, Ui),
) -> Result<PathBuf> {
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

    let training = base_training();
    let bar = ui.bar("training the base", training.steps);
    let report = |_, loss: f64| {
        bar.set_message(format!("loss {loss:.3}"));
        bar.inc(1);
    };
    let base = train_base::<Train<C>, _>(model, encoder, &training, seed, report)?;
    bar.finish_and_clear();
    save_new(&base.valid(), &new, &base_dir)?;

    let beear_attacks::setting::Injection::Sft { training, .. } = &setting.injection;
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
