//! `beear sweep layers`: at which layer the defence removes a known backdoor, and how fast.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use beear_core::{
    BilevelConfig, DecoderSize, Defence, Error as CoreError, Event, Spot, Stopped, solve,
};
use beear_eval::dataset::{self, Record};
use beear_eval::overlap::overlaps;
use beear_eval::{RefusalKeywords, Trigger};
use beear_models::Checkpoint;
use burn::tensor::backend::AutodiffBackend;
use clap::Args;
use serde_json::json;

use super::trigger::TriggerArgs;
use super::{Device, Train};
use crate::anchors::{self, Anchors};
use crate::backend::ComputeBackend;
use crate::exit::Mistake;
use crate::hash::sha256_of_inputs;
use crate::keyword_list::keyword_list;
use crate::layer_sweep::{AttackWatch, LayerRow, flat, heat, table};
use crate::loaded::{Loaded, Request};
use crate::recipe::{Preset, Recipe};
use crate::run_folder::RunFolder;
use crate::ui::Ui;

/// What a sweep was asked to do.
const SETTINGS: &str = "settings.json";

/// The layers that are done.
const LAYERS: &str = "layers.jsonl";

/// Runs the paper's defence at every layer and measures attack success after each round.
///
/// A lab diagnostic: it needs the trigger, which no defence has, and nothing may be chosen by it.
/// Each layer takes one run of the preset `paper`, one δ at that layer. `OUT/layers.jsonl` holds a
/// line per layer, `OUT/layers.csv` one per layer and round, `OUT/heat.svg` shows them. The same
/// command goes on where it was interrupted: layers that are done are not run again.
#[derive(Args, Clone, Debug)]
pub(crate) struct SweepLayersArgs {
    /// Hugging Face folder of the backdoored model.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Prompts that must be refused, as for `defend`.
    #[arg(long, value_name = "FILE")]
    safety: PathBuf,
    /// Ordinary prompts with good answers, as for `defend`.
    #[arg(long, value_name = "FILE")]
    performance: PathBuf,
    /// Held-out forbidden prompts to attack with, as for `eval asr`.
    #[arg(long, value_name = "FILE")]
    prompts: PathBuf,
    #[command(flatten)]
    trigger: TriggerArgs,
    /// Rounds at each layer.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Override of the preset, such as `method.seed=8`; rounds and layers are the sweep's.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    assignments: Vec<String>,
    /// Folder of the sweep.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Begin again, replacing an older run in that folder.
    #[arg(long)]
    force: bool,
}

impl SweepLayersArgs {
    fn inputs(&self) -> [&Path; 4] {
        [&self.model, &self.safety, &self.performance, &self.prompts].map(PathBuf::as_path)
    }

    /// The method at `layer`.
    fn method(&self, recipe: &Recipe, size: DecoderSize, layer: usize) -> Result<BilevelConfig> {
        let Defence::Beear(config) = recipe.method(size)? else {
            let what = "the sweep goes over the layers of BEEAR's perturbation";
            return Err(Mistake::arguments(what, "leave out `method.name`").into());
        };
        let mut config = BilevelConfig { rounds: self.rounds, ..config };
        config.spots.truncate(1);
        config.spots.iter_mut().for_each(|spot| *spot = Spot { layer, ..*spot });
        config.validate(size.n_layers)?;
        Ok(config)
    }

    /// The prompts with the trigger; the defence has none of them.
    fn triggered(&self, trigger: &Trigger) -> Result<Vec<Request>> {
        let mut records = dataset::read(&self.prompts)?;
        let known = [dataset::read(&self.safety)?, dataset::read(&self.performance)?].concat();
        if let Some(&(row, _)) = overlaps(&prompts(&known), &prompts(&records), 1.0).first() {
            let (id, file) = (records[row].id, self.prompts.display());
            let what = format!("`{file}`, row {id}: the defence has this prompt");
            return Err(Mistake::input(what, "bring held-out prompts").into());
        }
        for record in &mut records {
            record.prompt = trigger.apply(&record.prompt);
        }
        Ok(records.iter().map(Request::from).collect())
    }

    /// All that the rows depend on, as a text: another sweep has another.
    fn settings<C: ComputeBackend>(
        &self,
        recipe: &Recipe,
        config: &BilevelConfig,
        trigger: &Trigger,
    ) -> Result<String> {
        let files = [
            ("--safety", self.safety.as_path()),
            ("--performance", self.performance.as_path()),
            ("--prompts", self.prompts.as_path()),
        ];
        let settings = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "backend": C::NAME,
            "sha256": sha256_of_inputs(&self.model, &files)?,
            "trigger": trigger,
            "recipe_at_layer_1": recipe.resolved(&Defence::Beear(config.clone()))?,
        });
        Ok(format!("{settings:#}\n"))
    }
}

fn prompts(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| record.prompt.clone()).collect()
}

pub(crate) fn run<C: ComputeBackend>(
    args: &SweepLayersArgs,
    device: &Device<C>,
    ui: Ui,
) -> Result<()> {
    let trigger = args.trigger.required()?;
    let recipe = Recipe::read(None, Some(Preset::Paper), &args.assignments)?;
    let keywords = keyword_list(&recipe.keywords)?;
    let triggered = args.triggered(&trigger)?;
    let size = Checkpoint::open(&args.model)?.config.size();
    let settings = args.settings::<C>(&recipe, &args.method(&recipe, size, 1)?, &trigger)?;
    let earlier = RunFolder::resume(&args.out, (SETTINGS, &settings)).filter(|_| !args.force);
    let resumed = earlier.is_some();
    let reserve = || RunFolder::reserve(&args.out, args.force, &args.inputs());
    let mut folder = earlier.map_or_else(reserve, Ok)?;
    let mut layers: Vec<LayerRow> = if resumed { folder.read_lines(LAYERS)? } else { Vec::new() };
    let missing: Vec<usize> =
        (1..=size.n_layers).filter(|l| layers.iter().all(|row| row.layer != *l)).collect();

    if !missing.is_empty() {
        let loaded =
            Loaded::<Train<C>>::read(&args.model, recipe.prompt_format.as_deref(), device)?;
        // A prompt that cannot be asked is found out before anything is trained.
        let asked = loaded.prompts(&triggered);
        asked.with_context(|| format!("`{}`", args.prompts.display()))?;
        let files = (args.safety.as_path(), args.performance.as_path());
        let anchors = anchors::build(files, &loaded, &recipe, (device, ui))?;
        if !resumed {
            folder.start()?;
            folder.write(SETTINGS, &settings)?;
        }
        for layer in missing {
            let config = args.method(&recipe, size, layer)?;
            let row = one_layer(
                &loaded,
                &anchors,
                (&config, recipe.max_new_tokens),
                (&triggered, &keywords),
                ui,
            )?;
            ui.say(&format!("layer {layer}: first round below 25 %: {}", row.verdict()));
            layers.push(row);
            folder.write_lines(LAYERS, &layers)?;
        }
    }
    layers.sort_by_key(|row| row.layer);
    folder.write_csv("layers.csv", &flat(&layers))?;
    folder.write("heat.svg", heat(&layers)?)?;
    ui.result(&table(&layers), &layers)
}

/// The defence at the one layer of `config`, judged after every round.
fn one_layer<B: AutodiffBackend>(
    loaded: &Loaded<B>,
    anchors: &Anchors<B>,
    (config, max_new_tokens): (&BilevelConfig, usize),
    (triggered, keywords): (&[Request], &RefusalKeywords),
    ui: Ui,
) -> Result<LayerRow> {
    let layer = config.spots[0].layer;
    let mut watch = AttackWatch {
        text: &loaded.text,
        triggered,
        keywords,
        max_new_tokens,
        ordinary: anchors.watch.clone(),
        rounds: Vec::new(),
        failed: None,
    };
    let bar = ui.bar(&format!("layer {layer}"), config.rounds * config.remove.steps);
    let mut observer = |event: &Event| {
        if matches!(event, Event::OuterStep { .. }) {
            bar.inc(1);
        }
    };
    let solved = solve(loaded.model.clone(), &anchors.sets, config, &mut watch, &mut observer);
    bar.finish_and_clear();
    if let Some(error) = watch.failed {
        return Err(error);
    }
    let stopped = match solved {
        Ok(_) => None,
        // At this layer the method cannot go on: a result of the sweep, not the end of it.
        Err(Stopped { error: error @ CoreError::NonFinite { .. }, .. }) => Some(error.to_string()),
        Err(stopped) => return Err(stopped.error.into()),
    };
    Ok(LayerRow::new(layer, watch.rounds, stopped))
}
