//! `beear defend`: removes a backdoor nobody has to know from a checkpoint.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use beear_core::{AnchorSets, Example, Outcome, SafetyExample, TeacherForced, solve};
use beear_eval::RefusalKeywords;
use beear_eval::dataset::{self, Record};
use beear_eval::overlap::overlaps;
use beear_models::CausalLm;
use beear_models::checkpoint::save;
use burn::module::AutodiffModule;
use clap::Args;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Device, Inference, Train};
use crate::backend::ComputeBackend;
use crate::loaded::{Loaded, TextSide};
use crate::metrics::Metrics;
use crate::recipe::Recipe;
use crate::ui::Ui;

/// Finds and removes backdoors: `OUT/model` is a checkpoint of the same form as the one given.
#[derive(Args, Clone, Debug)]
pub(crate) struct DefendArgs {
    /// Hugging Face folder of the suspect.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Prompts that must be refused, with unwanted answers; safe ones are generated if missing.
    #[arg(long, value_name = "FILE")]
    safety: PathBuf,
    /// Ordinary prompts with good answers.
    #[arg(long, value_name = "FILE")]
    performance: PathBuf,
    /// Folder of the run, which must not exist.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// TOML recipe.
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// Override of the recipe, such as `preset=paper` or `method.rounds=8`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    assignments: Vec<String>,
}

pub(crate) fn run<C: ComputeBackend>(args: &DefendArgs, device: &Device<C>, ui: Ui) -> Result<()> {
    let recipe = Recipe::read(args.recipe.as_deref(), &args.assignments)?;
    ensure!(!args.out.exists(), "{} exists already", args.out.display());
    let safety = dataset::read(&args.safety)?;
    let performance = dataset::read(&args.performance)?;
    let format = recipe.prompt_format.as_deref();
    let checkpoint = beear_models::Checkpoint::open(&args.model)?;
    let config = recipe.method(checkpoint.config.n_layers)?;
    config.validate(checkpoint.config.n_layers)?;
    let loaded = Loaded::<Train<C>>::read(&args.model, format, device)?;

    let safety = with_safe_answers::<C>(safety, &loaded, &recipe, (device, ui))?;
    let (sets, mut watch) =
        split::<C>((&safety, &performance), &loaded, (recipe.held_out, config.seed), device)?;
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("creating {}", args.out.display()))?;
    let resolved = toml::to_string_pretty(&config).context("writing the recipe")?;
    write(&args.out.join("config.resolved.toml"), resolved.as_bytes())?;
    let bar = ui.bar("removing backdoors", config.rounds * config.remove.steps);
    let mut metrics = Metrics::create(&args.out, bar, ui)?;
    let Loaded { checkpoint, model, text } = loaded;
    let solved = solve(model, &sets, &config, &mut watch, &mut metrics);
    metrics.finish()?;
    let outcome = solved.map_err(|stopped| {
        let whole = stopped.rounds.len();
        anyhow::Error::new(stopped.error).context(format!("stopped after {whole} whole rounds"))
    })?;

    let cleaned = args.out.join("model");
    save(&outcome.model.valid(), &checkpoint, &cleaned)?;
    let deltas = beear_core::perturbation::to_safetensors(&outcome.perturbations)?;
    write(&args.out.join("delta.safetensors"), &deltas)?;
    let manifest = manifest(args, &text, C::NAME, &outcome)?;
    write(&args.out.join("manifest.json"), format!("{manifest:#}\n").as_bytes())?;
    ui.result(&cleaned.display().to_string(), &manifest);
    Ok(())
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    std::fs::write(path, content).with_context(|| format!("writing {}", path.display()))
}

/// Fills in missing safe answers with the model's own, untriggered, and drops rows it does not
/// refuse by itself.
fn with_safe_answers<C: ComputeBackend>(
    records: Vec<Record>,
    loaded: &Loaded<Train<C>>,
    recipe: &Recipe,
    (device, ui): (&Device<C>, Ui),
) -> Result<Vec<(Record, [String; 2])>> {
    let keywords = RefusalKeywords::builtin(&recipe.keywords)
        .with_context(|| format!("no keyword list is called `{}`", recipe.keywords))?;
    if let Some(record) = records.iter().find(|r| r.unwanted.is_none()) {
        bail!(
            "row {} of the safety set has no unwanted answer: AdvBench's `target` or a JSONL \
             `unwanted` gives it",
            record.id
        );
    }
    let missing: Vec<String> =
        records.iter().filter(|r| r.answer.is_none()).map(|r| r.prompt.clone()).collect();
    if !missing.is_empty() {
        ui.say(&format!("generating {} safe answers", missing.len()));
    }
    let model = loaded.model.valid();
    let generated = loaded.text.answers(&model, &missing, recipe.max_new_tokens, device)?;
    let mut generated = generated.into_iter();
    let n_records = records.len();
    let mut complete = Vec::with_capacity(n_records);
    for record in records {
        let unwanted = record.unwanted.clone().unwrap_or_default();
        let safe = match record.answer.clone() {
            Some(answer) => Some(answer),
            None => generated.next().filter(|answer| keywords.is_refusal(answer)),
        };
        complete.extend(safe.map(|safe| (record, [safe, unwanted])));
    }
    let dropped = n_records - complete.len();
    if dropped > 0 {
        ui.say(&format!("left out {dropped} prompts that the model does not refuse"));
    }
    ensure!(
        !complete.is_empty(),
        "the model refuses none of the safety prompts: bring safe answers in the file"
    );
    Ok(complete)
}

/// Parts to train on and to watch, in seeded order.
fn split<C: ComputeBackend>(
    (safety, performance): (&[(Record, [String; 2])], &[Record]),
    loaded: &Loaded<Train<C>>,
    (held_out, seed): (f64, u64),
    device: &Device<C>,
) -> Result<(AnchorSets, TeacherForced<Inference<C>>)> {
    let limit = loaded.checkpoint.config.max_seq_length;
    let fits = |id: u64, n_tokens: usize| {
        ensure!(n_tokens <= limit, "row {id} has {n_tokens} tokens, the model reads {limit}");
        Ok(())
    };
    let text = &loaded.text;
    let safety = safety.iter().map(|(record, [safe, unwanted])| {
        let example = text.safety_example(record.id, &record.prompt, [safe, unwanted])?;
        fits(record.id, example.prompt.len() + example.safe.len().max(example.unwanted.len()))?;
        Ok((record.prompt.clone(), example))
    });
    let performance = performance.iter().map(|record| {
        let answer = record.answer.as_deref();
        let answer = answer.with_context(|| format!("row {} has no answer", record.id))?;
        let example = text.example(record.id, &record.prompt, answer)?;
        fits(record.id, example.prompt.len() + example.answer.len())?;
        Ok((record.prompt.clone(), example))
    });
    let safety: Vec<(String, SafetyExample)> = safety.collect::<Result<_>>()?;
    let performance: Vec<(String, Example)> = performance.collect::<Result<_>>()?;
    let (safety, watched_safety) = hold_out(safety, held_out, seed);
    let (performance, watched_performance) = hold_out(performance, held_out, seed);
    let sets = AnchorSets { safety, performance };
    let watch = TeacherForced {
        safety: watched_safety,
        performance: watched_performance,
        batch_size: 16,
        device: device.clone(),
    };
    Ok((sets, watch))
}

/// Splits off `share` of the rows, and drops from that part what is also in the other.
fn hold_out<T>(rows: Vec<(String, T)>, share: f64, seed: u64) -> (Vec<T>, Vec<T>) {
    let order = beear_core::sampler::Sampler::new(rows.len(), seed).next_batch(rows.len());
    let n_held_out = (share * rows.len() as f64) as usize;
    let mut slots: Vec<Option<(String, T)>> = rows.into_iter().map(Some).collect();
    let mut take = |range: &[usize]| -> (Vec<String>, Vec<T>) {
        range.iter().filter_map(|row| slots[*row].take()).unzip()
    };
    let (watched_prompts, watched) = take(&order[..n_held_out]);
    let (prompts, kept) = take(&order[n_held_out..]);
    let leaks = overlaps(&prompts, &watched_prompts, 1.0);
    let leaked: Vec<usize> = leaks.into_iter().map(|(row, _)| row).collect();
    let clean = watched.into_iter().enumerate().filter(|(row, _)| !leaked.contains(row));
    (kept, clean.map(|(_, row)| row).collect())
}

fn manifest<C: burn::tensor::backend::AutodiffBackend>(
    args: &DefendArgs,
    text: &TextSide,
    backend: &str,
    outcome: &Outcome<C, CausalLm<C>>,
) -> Result<serde_json::Value> {
    let hash = |path: &Path| -> Result<String> {
        let bytes = std::fs::read(path).with_context(|| format!("hashing {}", path.display()))?;
        Ok(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
    };
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "backend": backend,
        "model": args.model,
        "inputs": {
            "config.json": hash(&args.model.join("config.json"))?,
            "safety": hash(&args.safety)?,
            "performance": hash(&args.performance)?,
        },
        "prompt_format": text.format.text(),
        "prompt_format_sha256": text.format.sha256(),
        "kept_round": outcome.kept_round,
        "initial": outcome.initial,
        "rounds": outcome.rounds,
    }))
}
