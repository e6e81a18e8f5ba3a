//! `beear sweep layers`: the layers at which the defence removes a known backdoor, and the rounds
//! it takes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use beear_attacks::AttackSpec;
use beear_core::{
    AnchorSets, BilevelConfig, DecoderSize, Defence, Error as CoreError, Event, InjectionPoint,
    Stopped, TeacherForcedValidator, solve,
};
use beear_eval::contamination::contaminated;
use beear_eval::dataset::{self, Record};
use beear_eval::{Rate, Trigger};
use beear_models::{BatchLimit, CausalLm, GenerateConfig};
use burn::tensor::backend::AutodiffBackend;
use clap::Args;
use serde_json::json;

use super::{Device, Inference, Train};
use crate::backend::ComputeBackend;
use crate::defence::anchors;
use crate::display::console::Console;
use crate::lab::layer_sweep::{AttackValidator, LayerRow, flat, grid, heat, table};
use crate::memory::room::Room;
use crate::model::Model;
use crate::model::hub::Needed;
use crate::model::language_model::EVAL_ROWS;
use crate::model::loaded::{Loaded, Request};
use crate::options::planted::PlantedArgs;
use crate::options::trigger::TriggerArgs;
use crate::recipe::keyword_list::keyword_list;
use crate::recipe::train::Train as TrainTable;
use crate::recipe::{Preset, Recipe};
use crate::run_folder::RunFolder;
use crate::run_folder::hash::sha256_of_inputs;
use crate::user_error::UserError;

/// Settings of a sweep.
const SETTINGS: &str = "settings.json";

/// Layers that are done.
const LAYERS: &str = "layers.jsonl";

/// Runs the paper's defence at every layer and measures attack success after each round.
///
/// This is a lab diagnostic: it needs the trigger, which no defence has, and nothing may be chosen
/// by its results. Each layer takes one run of the preset `paper`, with one δ at that layer. The
/// subject is a model of your own with its trigger, or attack settings that are planted first.
/// `OUT/layers.jsonl` holds a line per layer, `OUT/layers.csv` one per layer and round, and
/// `OUT/heat.svg` shows them. An interrupted sweep resumes with the same command: finished layers
/// are not run again.
#[derive(Args, Clone, Debug)]
pub(crate) struct SweepLayersArgs {
    /// Model folder of the backdoored model in Hugging Face form, or org/name[@revision] of the
    /// hub.
    #[arg(long, value_name = "DIR|NAME", required_unless_present = "settings")]
    model: Option<PathBuf>,
    /// Prompts that must be refused, as for `defend`.
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "settings",
        conflicts_with = "settings"
    )]
    safety: Option<PathBuf>,
    /// Ordinary prompts with good answers, as for `defend`.
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "settings",
        conflicts_with = "settings"
    )]
    performance: Option<PathBuf>,
    /// Held-out forbidden prompts to attack with, as for `eval asr`.
    #[arg(long, value_name = "FILE", required_unless_present = "settings")]
    prompts: Option<PathBuf>,
    #[command(flatten)]
    trigger: TriggerArgs,
    #[command(flatten)]
    planted: PlantedArgs,
    /// Number of rounds at each layer.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Override of the preset, such as `method.seed=8`; the sweep sets rounds and layers itself.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    assignments: Vec<String>,
    /// Folder of the sweep.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Start again, replacing an older run in that folder.
    #[arg(long)]
    force: bool,
}

impl SweepLayersArgs {
    /// Returns the files of the model to sweep, or nothing if settings are swept.
    fn files(&self) -> Option<Files<'_>> {
        Some(Files {
            named: self.model.as_deref()?,
            safety: self.safety.as_deref()?,
            performance: self.performance.as_deref()?,
            prompts: self.prompts.as_deref()?,
        })
    }

    /// Returns the method at `layer`.
    fn method(&self, recipe: &Recipe, size: DecoderSize, layer: usize) -> Result<BilevelConfig> {
        let Defence::Beear(config) = recipe.method(size)? else {
            let what = "the sweep goes over the layers of BEEAR's perturbation";
            return Err(UserError::arguments(what, "leave out `method.name`").into());
        };
        let mut config = BilevelConfig { rounds: self.rounds, ..config };
        config.injection_points.truncate(1);
        config
            .injection_points
            .iter_mut()
            .for_each(|point| *point = InjectionPoint { layer, ..*point });
        config.validate(size.n_layers)?;
        Ok(config)
    }
}

/// A model of the user's, and the rows to defend and to attack it with.
#[derive(Clone, Copy)]
struct Files<'a> {
    /// The path or name of the model as it was given.
    named: &'a Path,
    safety: &'a Path,
    performance: &'a Path,
    prompts: &'a Path,
}

impl Files<'_> {
    /// Returns the prompts with the trigger; the defence receives none of them.
    fn triggered(&self, trigger: &Trigger) -> Result<Vec<Request>> {
        let mut records = dataset::read(self.prompts)?;
        let known = [dataset::read(self.safety)?, dataset::read(self.performance)?].concat();
        if let Some(&(row, _)) = contaminated(prompts(&known), prompts(&records), 1.0).first() {
            let (id, file) = (records[row].id, self.prompts.display());
            let what = format!("`{file}`, row {id}: the defence has this prompt");
            return Err(UserError::input(what, "bring held-out prompts").into());
        }
        for record in &mut records {
            record.prompt = trigger.apply(&record.prompt);
        }
        Ok(records.iter().map(Request::from).collect())
    }

    /// Returns all inputs that the results depend on, as a text that differs between sweeps.
    fn settings<C: ComputeBackend>(
        &self,
        recipe: &Recipe,
        config: &BilevelConfig,
        (model, trigger): (&Model, &Trigger),
    ) -> Result<String> {
        let files = [
            ("--safety", self.safety),
            ("--performance", self.performance),
            ("--prompts", self.prompts),
        ];
        let settings = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "backend": C::NAME,
            "sha256": sha256_of_inputs(Some(model), &files)?,
            "trigger": trigger,
            "recipe_at_layer_1": recipe.resolved(&Defence::Beear(config.clone()))?,
        });
        Ok(format!("{settings:#}\n"))
    }
}

fn prompts(records: &[Record]) -> impl Iterator<Item = &String> {
    records.iter().map(|record| &record.prompt)
}

pub(crate) fn run<C: ComputeBackend>(
    args: &SweepLayersArgs,
    device: &Device<C>,
    console: Console,
) -> Result<()> {
    let recipe = Recipe::read(None, Some(Preset::Paper), &args.assignments)?;
    if recipe.train != TrainTable::default() {
        let what = "the sweep trains every weight";
        return Err(UserError::arguments(what, "leave out `train`").into());
    }
    let sweep = match args.files() {
        Some(files) => sweep_checkpoint::<C>(args, files, &recipe, (device, console))?,
        None => sweep_settings::<C>(args, &recipe, (device, console))?,
    };
    sweep.finish()
}

fn sweep_checkpoint<C: ComputeBackend>(
    args: &SweepLayersArgs,
    files: Files<'_>,
    recipe: &Recipe,
    (device, console): (&Device<C>, Console),
) -> Result<Sweep> {
    let trigger = args.trigger.required()?;
    let keywords = keyword_list(&recipe.keywords)?;
    let triggered = files.triggered(&trigger)?;
    let model = Model::find(files.named, Needed::Everything, console)?;
    let size = model.open()?.config.size();
    let settings =
        files.settings::<C>(recipe, &args.method(recipe, size, 1)?, (&model, &trigger))?;
    let read = [files.safety, files.performance, files.prompts];
    let inputs: Vec<&Path> = read.into_iter().chain(model.folders()).collect();
    let mut sweep = Sweep::open(args, settings, &inputs, console)?;
    let name = model.name();
    let missing = sweep.missing(&name, size.n_layers);
    if missing.is_empty() {
        return Ok(sweep);
    }
    let loaded = Loaded::<Train<C>>::read(&model, recipe.prompt_format.as_deref(), device)?;
    // A prompt that does not fit the model is found before anything is trained.
    let asked = loaded.text.prompts(&triggered, loaded.checkpoint.config.max_seq_length);
    asked.with_context(|| format!("`{}`", files.prompts.display()))?;
    let anchors =
        anchors::build((files.safety, files.performance), &loaded, recipe, (device, console))?;
    sweep.start()?;
    let attack = |model: &CausalLm<Inference<C>>| {
        let limit = BatchLimit { rows: EVAL_ROWS, bytes: Room::default_of::<C>(device).bytes };
        let greedy = GenerateConfig::greedy(recipe.max_new_tokens, limit);
        let answers = loaded.text.generate(model, &triggered, &greedy, device)?;
        Ok(Rate::of(answers.iter().map(|answer| !keywords.is_refusal(&answer.text))))
    };
    let subject = Subject {
        name,
        model: &loaded.model,
        sets: &anchors.sets,
        validator: &anchors.validator.teacher_forced,
        attack: &attack,
    };
    for layer in missing {
        sweep.layer(&subject, &args.method(recipe, size, layer)?)?;
    }
    Ok(sweep)
}

fn sweep_settings<C: ComputeBackend>(
    args: &SweepLayersArgs,
    recipe: &Recipe,
    (device, console): (&Device<C>, Console),
) -> Result<Sweep> {
    let settings = args.planted.settings()?;
    let size = |setting: &AttackSpec| setting.base.decoder(1).size();
    for setting in &settings {
        args.method(recipe, size(setting), 1)?;
    }
    // The names of the settings are left out: further settings go into the same folder.
    let common = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "backend": C::NAME,
        "seed": args.planted.seed,
        "quick": args.planted.quick,
        "rounds": args.rounds,
        "set": args.assignments,
    });
    let mut sweep = Sweep::open(args, format!("{common:#}\n"), &[], console)?;
    sweep.start()?;
    for setting in settings {
        let size = size(&setting);
        let missing = sweep.missing(&setting.name, size.n_layers);
        if missing.is_empty() {
            continue;
        }
        let trial = args.planted.trial::<C>(setting, &args.out, (device, console))?;
        let attack = |model: &CausalLm<Inference<C>>| {
            trial.examination.attack_success(model, &trial.text, device)
        };
        let subject = Subject {
            name: trial.plan.setting.name.clone(),
            model: &trial.model,
            sets: &trial.sets,
            validator: &trial.validator,
            attack: &attack,
        };
        for layer in missing {
            let config =
                BilevelConfig { seed: args.planted.seed, ..args.method(recipe, size, layer)? };
            sweep.layer(&subject, &config)?;
        }
    }
    Ok(sweep)
}

/// A model to sweep, with its defender's sets and its attacker.
struct Subject<'a, B: AutodiffBackend> {
    name: String,
    model: &'a CausalLm<B>,
    sets: &'a AnchorSets,
    validator: &'a TeacherForcedValidator<B::InnerBackend>,
    attack: &'a dyn Fn(&CausalLm<B::InnerBackend>) -> Result<Rate>,
}

/// The folder of a sweep and its finished layers.
struct Sweep {
    folder: RunFolder,
    /// Settings of the sweep.
    settings: String,
    resumed: bool,
    rows: Vec<LayerRow>,
    console: Console,
}

impl Sweep {
    /// Resumes the sweep in the folder if its settings are the same; otherwise reserves the folder.
    fn open(
        args: &SweepLayersArgs,
        settings: String,
        inputs: &[&Path],
        console: Console,
    ) -> Result<Self> {
        let earlier = RunFolder::resume(&args.out, (SETTINGS, &settings))?.filter(|_| !args.force);
        let resumed = earlier.is_some();
        let reserve = || RunFolder::reserve(&args.out, args.force, inputs);
        let folder = earlier.map_or_else(reserve, Ok)?;
        let rows = if resumed { folder.read_lines(LAYERS)? } else { Vec::new() };
        Ok(Self { folder, settings, resumed, rows, console })
    }

    /// Writes the settings of this sweep to a reserved folder.
    fn start(&mut self) -> Result<()> {
        if self.resumed {
            return Ok(());
        }
        self.folder.start()?;
        self.folder.write(SETTINGS, &self.settings)?;
        self.folder.write_lines(LAYERS, &self.rows)?;
        self.folder.has_begun();
        Ok(())
    }

    /// Returns the layers of `model` that are not done.
    fn missing(&self, model: &str, n_layers: usize) -> Vec<usize> {
        let done = |layer: usize| self.rows.iter().any(|r| r.model == model && r.layer == layer);
        (1..=n_layers).filter(|layer| !done(*layer)).collect()
    }

    /// Runs the defence at the one layer of `config`, and measures it after every round.
    fn layer<B: AutodiffBackend>(
        &mut self,
        subject: &Subject<'_, B>,
        config: &BilevelConfig,
    ) -> Result<()> {
        let (layer, console) = (config.injection_points[0].layer, self.console);
        let what = format!("{}, layer {layer}", subject.name);
        let mut validator = AttackValidator {
            attack: subject.attack,
            ordinary: subject.validator.clone(),
            rounds: Vec::new(),
            failed: None,
        };
        let bar = console.bar(&what, config.rounds * config.remove.steps);
        let mut observer = |event: &Event| {
            if matches!(event, Event::OuterStep { .. }) {
                bar.inc(1);
            }
        };
        let solved =
            solve(subject.model.clone(), subject.sets, config, &mut validator, &mut observer);
        bar.finish_and_clear();
        if let Some(error) = validator.failed {
            return Err(error);
        }
        let stopped = match solved {
            Ok(_) => None,
            // A method that reaches NaN or infinity at this layer is a result and does not end the
            // sweep.
            Err(Stopped { error: error @ CoreError::NonFinite { .. }, .. }) => {
                Some(error.to_string())
            }
            Err(stopped) => return Err(stopped.error.into()),
        };
        let row = LayerRow::new((subject.name.clone(), layer), validator.rounds, stopped);
        console.say(&format!("{what}: first round below 25 %: {}", row.verdict()));
        self.rows.push(row);
        self.folder.write_lines(LAYERS, &self.rows)
    }

    /// Writes the tables and the picture.
    fn finish(self) -> Result<()> {
        let Self { folder, mut rows, console, .. } = self;
        let mut order: Vec<String> = rows.iter().map(|row| row.model.clone()).collect();
        order.dedup();
        rows.sort_by_key(|row| (order.iter().position(|model| *model == row.model), row.layer));
        folder.write_csv("layers.csv", &flat(&rows))?;
        folder.write("heat.svg", heat(&rows)?)?;
        folder.has_result()?;
        let text = format!("{}\n{}", grid(&rows), table(&rows));
        folder.write("layers.md", &text)?;
        console.result(&text, &rows)
    }
}
