//! `beear analyze drift`: how far a trigger moves the hidden states, and whether the direction is
//! always the same.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};
use beear_attacks::AttackSpec;
use beear_core::analysis::hidden_states::{States, last_token_states};
use beear_core::perturbation::from_safetensors;
use beear_core::{
    BilevelConfig, Decoder, DecoderSize, Error as CoreError, Event, Perturbation, Positions, entrap,
};
use beear_eval::Trigger;
use beear_eval::dataset::{self, Record};
use beear_models::CausalLm;
use burn::module::AutodiffModule;
use burn::tensor::backend::Backend;
use clap::Args;

use super::{Device, Inference};
use crate::backend::ComputeBackend;
use crate::display::console::Console;
use crate::lab::drift_analysis::{
    Arms, CLEAN, CONTROL, DriftReport, Principal, TRIGGER, delta_rows, drift_rows, drift_table,
    summary,
};
use crate::lab::planted_model::PlantedModel;
use crate::model::Model;
use crate::model::hub::Needed;
use crate::model::loaded::{Loaded, Request, TextSide};
use crate::options::planted::PlantedArgs;
use crate::options::trigger::TriggerArgs;
use crate::run_folder::RunFolder;
use crate::user_error::UserError;

/// Prompts per forward pass.
const BATCH_SIZE: usize = 32;

/// Measures how a known trigger moves the hidden states at the last prompt token.
///
/// This is a lab diagnostic: it needs the trigger, which no defence has. The subject is a model of
/// your own with its trigger, or attack settings that are planted first. `OUT/drift.csv` holds, for
/// every layer boundary, the cosine similarity of the prompts' drifts and their length.
/// `OUT/pca.csv` holds the first two principal components of the states with and without the
/// trigger. `OUT/drift.svg` and `OUT/pca.svg` show both, and `OUT/report.json` holds all but the
/// points. Each attack setting has these files in a folder of its own and a line in `OUT/drift.md`.
/// The control of a setting is its last near miss. Its perturbations are fitted to the planted
/// model, at the last prompt tokens of each layer of the preset `robust`.
#[derive(Args, Clone, Debug)]
pub(crate) struct AnalyzeDriftArgs {
    /// Model folder in Hugging Face form, or org/name[@revision] of the hub.
    #[arg(long, value_name = "DIR|NAME", required_unless_present = "settings")]
    model: Option<PathBuf>,
    /// Forbidden prompts, in the formats of `eval asr`.
    #[arg(long, value_name = "FILE", required_unless_present = "settings")]
    prompts: Option<PathBuf>,
    #[command(flatten)]
    trigger: TriggerArgs,
    /// Harmless words to put in the place of the trigger, for comparison.
    #[arg(long, value_name = "WORDS", conflicts_with = "settings")]
    control: Option<String>,
    /// Layer boundary of the principal components: a number, or `all`; the paper's layer by
    /// default.
    #[arg(long, value_name = "L|all")]
    layer: Option<Layers>,
    /// Perturbations of a `defend` run: their rows at the last prompt token are compared with the
    /// mean drift there, by cosine similarity.
    #[arg(long, value_name = "FILE", conflicts_with = "settings")]
    delta: Option<PathBuf>,
    /// Built-in prompt format, instead of the chat template.
    #[arg(long, value_name = "NAME", conflicts_with = "settings")]
    format: Option<String>,
    #[command(flatten)]
    planted: PlantedArgs,
    /// Folder for the results.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace an older run in that folder.
    #[arg(long)]
    force: bool,
}

/// Layer boundaries to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layers {
    One(usize),
    All,
}

impl FromStr for Layers {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "all" { Ok(Self::All) } else { text.parse().map(Self::One) }
    }
}

impl AnalyzeDriftArgs {
    /// Returns the boundaries of the principal components. Boundary 0 is never one of them: every
    /// prompt ends with the same token there.
    fn layers(&self, size: DecoderSize) -> Result<Vec<usize>> {
        let n_layers = size.n_layers;
        match self.layer {
            Some(Layers::All) => Ok((1..=n_layers).collect()),
            Some(Layers::One(layer)) if (1..=n_layers).contains(&layer) => Ok(vec![layer]),
            Some(Layers::One(layer)) => {
                let what = CoreError::LayerOutOfRange { layer, n_layers }.to_string();
                Err(UserError::arguments(what, "choose another --layer, or all").into())
            }
            None => Ok(vec![BilevelConfig::paper(size).injection_points[0].layer]),
        }
    }
}

pub(crate) fn run<C: ComputeBackend>(
    args: &AnalyzeDriftArgs,
    device: &Device<C>,
    console: Console,
) -> Result<()> {
    match (&args.model, &args.prompts) {
        (Some(model), Some(prompts)) => {
            analyze_checkpoint::<C>(args, (model, prompts), (device, console))
        }
        _ => analyze_settings::<C>(args, (device, console)),
    }
}

fn analyze_checkpoint<C: ComputeBackend>(
    args: &AnalyzeDriftArgs,
    (named, prompts): (&Path, &Path),
    (device, console): (&Device<C>, Console),
) -> Result<()> {
    let (trigger, records) = (args.trigger.required()?, records(prompts)?);
    let dir = Model::find(named, Needed::Everything, console)?;
    let files = [prompts].into_iter().chain(args.delta.as_deref());
    let inputs: Vec<&Path> = files.chain(dir.folders()).collect();
    let mut folder = RunFolder::reserve(&args.out, args.force, &inputs)?;
    let loaded = Loaded::<Inference<C>>::read(&dir, args.format.as_deref(), device)?;
    let size = loaded.model.size();
    let layers = args.layers(size)?;
    let read = |path: &PathBuf| perturbations::<Inference<C>>(path, size, device);
    let subject = Subject {
        name: dir.to_string(),
        model: &loaded.model,
        text: &loaded.text,
        context: loaded.checkpoint.config.max_seq_length,
        requests: records.iter().map(Request::from).collect(),
        trigger,
        control: args.control.as_deref().and_then(|w| args.trigger.with_words(w).trigger()),
        perturbations: args.delta.as_ref().map(read).transpose()?,
    };
    let report = subject.report(&layers, (device, console));
    let report = report.with_context(|| format!("`{}`", prompts.display()))?;
    folder.start()?;
    report.write(&folder, "")?;
    folder.has_result()?;
    let json = serde_json::to_string_pretty(&report)?;
    folder.write("report.json", json + "\n")?;
    console.result(&drift_table(&report.drift), &report)
}

fn analyze_settings<C: ComputeBackend>(
    args: &AnalyzeDriftArgs,
    (device, console): (&Device<C>, Console),
) -> Result<()> {
    let settings = args.planted.settings()?;
    let size = |setting: &AttackSpec| setting.base.decoder(1).size();
    for setting in &settings {
        args.layers(size(setting))?;
    }
    let folder = RunFolder::create(&args.out, args.force)?;
    let mut reports = Vec::new();
    for setting in settings {
        let trial = args.planted.trial::<C>(setting, &args.out, (device, console))?;
        let setting = &trial.plan.setting;
        let size = size(setting);
        let prompts = trial.examination.contrasts().iter().map(|c| c.prompt.clone());
        let subject = Subject {
            name: setting.name.clone(),
            model: &trial.model.valid(),
            text: &trial.text,
            context: setting.base.decoder(1).max_seq_length,
            requests: Request::numbered(prompts),
            trigger: setting.measured_triggers()[0].clone(),
            control: setting.near_misses.last().cloned(),
            perturbations: Some(found(&trial, &BilevelConfig::robust(size), args.planted.seed)?),
        };
        let report = subject.report(&args.layers(size)?, (device, console))?;
        let under = folder.path(&setting.name);
        std::fs::create_dir_all(&under).with_context(|| format!("creating {}", under.display()))?;
        report.write(&folder, &format!("{}/", setting.name))?;
        reports.push(report);
    }
    let text = summary(&reports);
    folder.write("drift.md", &text)?;
    folder.has_result()?;
    folder.write("report.json", serde_json::to_string_pretty(&reports)? + "\n")?;
    console.result(&text, &reports)
}

/// Fits a perturbation to the planted model at the last prompt tokens of each layer of `config`.
fn found<C: ComputeBackend>(
    trial: &PlantedModel<'_, C>,
    config: &BilevelConfig,
    seed: u64,
) -> Result<Vec<Perturbation<Inference<C>>>> {
    let mut injection_points = config.injection_points.clone();
    injection_points.retain(|point| matches!(point.positions, Positions::Last(_)));
    injection_points.sort_by_key(|point| point.layer);
    let search = |point| {
        let how = (&config.entrap, seed);
        let found = entrap(&trial.model, &trial.sets.safety, &[point], how, &mut |_: &Event| ())?;
        Ok(found.perturbation)
    };
    injection_points.into_iter().map(search).collect()
}

/// Reads at least two prompts, since drifts are compared with each other.
fn records(path: &Path) -> Result<Vec<Record>> {
    let records = dataset::read(path)?;
    if records.len() < 2 {
        let what = format!("`{}` has one prompt", path.display());
        return Err(UserError::input(what, "bring at least two: drifts are compared").into());
    }
    Ok(records)
}

/// Reads the perturbations in a file and checks that they belong to a decoder of `size`.
fn perturbations<B: Backend>(
    path: &Path,
    size: DecoderSize,
    device: &B::Device,
) -> Result<Vec<Perturbation<B>>> {
    let read = || {
        let hint = "bring the `delta.safetensors` of a run";
        let bytes = beear_input::read(path).map_err(|e| UserError::input(e.to_string(), hint))?;
        let perturbations = from_safetensors::<B>(&bytes, device)?;
        for delta in perturbations.iter().flat_map(Perturbation::deltas) {
            let [_, d_model] = delta.values.dims();
            if d_model != size.d_model || delta.point.layer > size.n_layers {
                let what = "a perturbation of a model of another size";
                return Err(UserError::input(what, hint).into());
            }
        }
        anyhow::Ok(perturbations)
    };
    read().with_context(|| format!("`{}`", path.display()))
}

/// A model, its prompts and the perturbations to compare with the drift.
struct Subject<'a, B: Backend> {
    name: String,
    model: &'a CausalLm<B>,
    text: &'a TextSide,
    /// Maximum sequence length, in tokens.
    context: usize,
    requests: Vec<Request>,
    trigger: Trigger,
    control: Option<Trigger>,
    /// Perturbations to compare with the trigger's drift.
    perturbations: Option<Vec<Perturbation<B>>>,
}

impl<B: Backend> Subject<'_, B> {
    fn report(
        self,
        layers: &[usize],
        (device, console): (&B::Device, Console),
    ) -> Result<DriftReport> {
        let arms = self.arms((device, console))?;
        Ok(DriftReport {
            n_prompts: self.requests.len(),
            prompt_format_sha256: self.text.format.sha256(),
            drift: drift_rows(&arms),
            principal_components: layers.iter().map(|&l| Principal::of(&arms, l)).collect(),
            delta: self.perturbations.map(|perturbations| delta_rows(&perturbations, &arms)),
            model: self.name,
            trigger: self.trigger,
            control: self.control,
        })
    }

    /// Encodes the prompts of every arm: plain, with the trigger and with the control words.
    fn arms(&self, (device, console): (&B::Device, Console)) -> Result<Arms> {
        let read = |arm: &str, added: Option<&Trigger>| {
            console.say(&format!("{}, {arm}: {} prompts", self.name, self.requests.len()));
            let asked = |request: &Request| Request {
                user: added.map_or_else(|| request.user.clone(), |t| t.apply(&request.user)),
                ..request.clone()
            };
            let requests: Vec<Request> = self.requests.iter().map(asked).collect();
            let prompts = self.text.prompts(&requests, self.context)?;
            let states = last_token_states(self.model, &prompts.tokens, BATCH_SIZE, device);
            check_finite(&states, &requests)?;
            anyhow::Ok((prompts, states))
        };
        let (prompts, clean) = read(CLEAN, None)?;
        let mut changed = vec![(TRIGGER, read(TRIGGER, Some(&self.trigger))?.1)];
        if let Some(control) = &self.control {
            changed.push((CONTROL, read(CONTROL, Some(control))?.1));
        }
        let ids = self.requests.iter().map(|request| request.id).collect();
        Ok(Arms { ids, prompts, clean, changed })
    }
}

/// Refuses states that are NaN or infinite, since no drift can be measured from them.
fn check_finite(boundaries: &[States], requests: &[Request]) -> Result<(), UserError> {
    for (layer, states) in boundaries.iter().enumerate() {
        let is_broken = |state: &Vec<f64>| !state.iter().all(|value| value.is_finite());
        if let Some(row) = states.iter().position(is_broken) {
            let id = requests[row].id;
            let what = format!("row {id}: hidden states at boundary {layer} are NaN or infinite");
            let hint = "the model is broken, or its values do not fit the backend's float type";
            return Err(UserError::non_finite(what, hint));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_a_number_or_all() {
        assert_eq!("3".parse(), Ok(Layers::One(3)));
        assert_eq!("all".parse(), Ok(Layers::All));
        assert!("third".parse::<Layers>().is_err());
    }
}
