//! `beear analyze drift`: how far a trigger moves the hidden states, and whether always one way.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};
use beear_core::hidden_states::last_token_states;
use beear_core::perturbation::from_safetensors;
use beear_core::{BilevelConfig, Decoder, DecoderSize, Error as CoreError, Perturbation};
use beear_eval::Trigger;
use beear_eval::dataset::{self, Record};
use burn::tensor::backend::Backend;
use clap::Args;
use serde_json::json;

use super::trigger::TriggerArgs;
use super::{Device, Inference};
use crate::backend::ComputeBackend;
use crate::drift_analysis::{
    Arms, CLEAN, CONTROL, Principal, TRIGGER, delta_rows, drift_chart, drift_rows, drift_table,
    principal_chart,
};
use crate::exit::Mistake;
use crate::loaded::{Loaded, Request};
use crate::run_folder::RunFolder;
use crate::ui::Ui;

/// Prompts per forward pass.
const BATCH_SIZE: usize = 32;

/// Measures how a known trigger moves the hidden states at the last prompt token.
///
/// A lab diagnostic: it needs the trigger, which no defence has. `OUT/drift.csv` holds for every
/// layer boundary how alike the drifts of all prompts are and how long, `OUT/pca.csv` the first two
/// principal components of the states with and without the trigger; `OUT/drift.svg` and
/// `OUT/pca.svg` show both, `OUT/report.json` holds all but the points.
#[derive(Args, Clone, Debug)]
pub(crate) struct AnalyzeDriftArgs {
    /// Hugging Face folder.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Forbidden prompts, in the formats of `eval asr`.
    #[arg(long, value_name = "FILE")]
    prompts: PathBuf,
    #[command(flatten)]
    trigger: TriggerArgs,
    /// Harmless words to put where the trigger stands, for comparison.
    #[arg(long, value_name = "WORDS")]
    control: Option<String>,
    /// Boundary of the principal components: a number, or `all`; the paper's layer by default.
    #[arg(long, value_name = "L|all")]
    layer: Option<Layers>,
    /// Perturbations of a `defend` run: how alike the rows added to the last prompt token are to
    /// the mean drift there.
    #[arg(long, value_name = "FILE")]
    delta: Option<PathBuf>,
    /// A built-in prompt format instead of the chat template.
    #[arg(long, value_name = "NAME")]
    format: Option<String>,
    /// Folder for the results.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace an older run in that folder.
    #[arg(long)]
    force: bool,
}

/// Boundaries to show.
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
    fn inputs(&self) -> Vec<&Path> {
        let files = [&self.model, &self.prompts];
        files.into_iter().chain(&self.delta).map(PathBuf::as_path).collect()
    }

    fn records(&self) -> Result<Vec<Record>> {
        let records = dataset::read(&self.prompts)?;
        if records.len() < 2 {
            let what = format!("`{}` has one prompt", self.prompts.display());
            return Err(Mistake::input(what, "bring at least two: drifts are compared").into());
        }
        Ok(records)
    }

    /// The boundaries of the principal components. At boundary 0 every prompt ends alike.
    fn layers(&self, size: DecoderSize) -> Result<Vec<usize>> {
        let n_layers = size.n_layers;
        match self.layer {
            Some(Layers::All) => Ok((1..=n_layers).collect()),
            Some(Layers::One(layer)) if (1..=n_layers).contains(&layer) => Ok(vec![layer]),
            Some(Layers::One(layer)) => {
                let what = CoreError::LayerOutOfRange { layer, n_layers }.to_string();
                Err(Mistake::arguments(what, "choose another --layer, or all").into())
            }
            None => Ok(vec![BilevelConfig::paper(size).spots[0].layer]),
        }
    }

    /// The perturbations of `--delta`, if they are of a decoder of `size`.
    fn perturbations<B: Backend>(
        &self,
        size: DecoderSize,
        device: &B::Device,
    ) -> Result<Vec<Perturbation<B>>> {
        let Some(path) = &self.delta else { return Ok(Vec::new()) };
        let read = || {
            let hint = "bring the `delta.safetensors` of a run";
            let bytes = std::fs::read(path).map_err(|e| Mistake::input(e.to_string(), hint))?;
            let perturbations = from_safetensors::<B>(&bytes, device)?;
            for delta in perturbations.iter().flat_map(Perturbation::deltas) {
                let [_, d_model] = delta.values.dims();
                if d_model != size.d_model || delta.spot.layer > size.n_layers {
                    let what = "a perturbation of a model of another size";
                    return Err(Mistake::input(what, hint).into());
                }
            }
            anyhow::Ok(perturbations)
        };
        read().with_context(|| format!("`{}`", path.display()))
    }
}

/// The prompts in every way they are asked: as they are, with the trigger, with the control words.
fn arms<B: Backend>(
    args: &AnalyzeDriftArgs,
    (trigger, records): (&Trigger, &[Record]),
    loaded: &Loaded<B>,
    (device, ui): (&B::Device, Ui),
) -> Result<Arms> {
    let read = |name: &str, added: Option<&Trigger>| {
        ui.say(&format!("{name}: {} prompts", records.len()));
        let asked = |record: &Record| {
            let user = added.map_or_else(|| record.prompt.clone(), |t| t.apply(&record.prompt));
            Request { user, ..Request::from(record) }
        };
        let prompts = loaded.prompts(&records.iter().map(asked).collect::<Vec<_>>());
        let prompts = prompts.with_context(|| format!("`{}`", args.prompts.display()))?;
        let states = last_token_states(&loaded.model, &prompts.tokens, BATCH_SIZE, device);
        anyhow::Ok((prompts, states))
    };
    let (prompts, clean) = read(CLEAN, None)?;
    let mut changed = vec![(TRIGGER, read(TRIGGER, Some(trigger))?.1)];
    let control = args.control.as_deref().and_then(|w| args.trigger.with_words(w).trigger());
    if let Some(control) = control {
        changed.push((CONTROL, read(CONTROL, Some(&control))?.1));
    }
    Ok(Arms { ids: records.iter().map(|r| r.id).collect(), prompts, clean, changed })
}

pub(crate) fn run<C: ComputeBackend>(
    args: &AnalyzeDriftArgs,
    device: &Device<C>,
    ui: Ui,
) -> Result<()> {
    let (trigger, records) = (args.trigger.required()?, args.records()?);
    let mut folder = RunFolder::reserve(&args.out, args.force, &args.inputs())?;
    let loaded = Loaded::<Inference<C>>::read(&args.model, args.format.as_deref(), device)?;
    let size = loaded.model.size();
    let layers = args.layers(size)?;
    let perturbations = args.perturbations::<Inference<C>>(size, device)?;
    let arms = arms(args, (&trigger, &records), &loaded, (device, ui))?;
    let drift = drift_rows(&arms);
    let principal: Vec<Principal> = layers.iter().map(|&l| Principal::of(&arms, l)).collect();

    folder.start()?;
    folder.write_csv("drift.csv", &drift)?;
    folder.write("drift.svg", drift_chart(&drift)?)?;
    let points: Vec<_> = principal.iter().flat_map(|p| &p.points).collect();
    folder.write_csv("pca.csv", &points)?;
    folder.write("pca.svg", principal_chart(&principal)?)?;
    let report = json!({
        "model": args.model,
        "n_prompts": records.len(),
        "trigger": trigger,
        "control": args.control,
        "prompt_format_sha256": loaded.text.format.sha256(),
        "drift": drift,
        "principal_components": principal,
        "delta": args.delta.as_ref().map(|_| delta_rows(&perturbations, &arms)),
    });
    folder.write("report.json", format!("{report:#}\n"))?;
    ui.result(&drift_table(&drift), &report)
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
