//! Report of a run for the person who signs it off: `report.html` and `report.json` in the run's
//! folder.

mod curves;
mod evaluations;
mod page;
pub(crate) mod rating_radar;
pub(crate) mod run_comparison;
mod verdict;
mod weight_change;

pub(crate) use page::{Figure, comparison_page, scan_page};
pub(crate) use weight_change::{LayerChange, WeightChange};

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use self::curves::Curves;
use self::evaluations::Evaluations;
use self::page::run_page;
use self::verdict::Verdict;
use crate::chart::harmless_svg;
use crate::defence::tracking;
use crate::display::console::Console;
use crate::display::terminal::harmless;
use crate::evaluate::evaluation::runs_within;
use crate::model::loaded::TextSide;
use crate::recipe::Recipe;
use crate::run_folder::RunFolder;
use crate::run_folder::manifest::Manifest;
use crate::user_error::UserError;

/// Name of the page.
pub(crate) const PAGE: &str = "report.html";

/// Name of the file with the same facts as data.
pub(crate) const FACTS: &str = "report.json";

/// Prompt that is shown in the prompt format of a run.
const SAMPLE_PROMPT: &str = "What is the capital of France?";

/// Inputs of a report in addition to the run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Beside {
    /// Folders of evaluations of the suspect and of the cleaned model.
    pub(crate) evaluations: Vec<PathBuf>,
    /// Folders whose pictures are shown.
    pub(crate) pictures: Vec<PathBuf>,
}

/// Folder within a run's folder with evaluations that every report of the run shows.
const EVALUATIONS: &str = "eval";

/// All facts about a run.
#[derive(Clone, Debug, Serialize)]
struct Report {
    version: &'static str,
    run: String,
    verdict: Verdict,
    evaluations: Option<Evaluations>,
    curves: Curves,
    weights: Option<WeightChange>,
    /// Reason why the change of the weights is missing.
    weights_missing: Option<String>,
    prompt_format: Format,
    figures: Vec<String>,
    manifest: Value,
}

/// Prompt format of the model, with an example.
#[derive(Clone, Debug, Serialize)]
struct Format {
    template: String,
    prompt: &'static str,
    rendered: Option<String>,
}

/// Writes the report of the run in `folder`.
///
/// # Errors
///
/// If a file of the run or a further input cannot be read, or the report cannot be written.
pub(crate) fn write(folder: &RunFolder, beside: &Beside) -> Result<()> {
    let manifest = Manifest::read(folder)?;
    let manifest = manifest.value();
    if manifest.get("method").is_none() {
        let what = format!("`{}` is no run of `beear defend`", folder.path("").display());
        return Err(UserError::input(what, "name the --out of `beear defend`").into());
    }
    let mut evaluations = runs_within(&folder.path(EVALUATIONS)).unwrap_or_default();
    evaluations.extend(beside.evaluations.iter().cloned());
    let evaluations =
        (!evaluations.is_empty()).then(|| Evaluations::read(&evaluations, manifest)).transpose()?;
    let curves = Curves::of(folder.read_lines("metrics.jsonl")?, tracking::rounds(folder)?);
    let weights = match manifest["status"].as_str() {
        Some("done") => WeightChange::of_run(&folder.path(""), manifest),
        _ => Err(anyhow::anyhow!("the run has left no model")),
    };
    let (weights, weights_missing) = match weights {
        Ok(weights) => (Some(weights), None),
        Err(error) => (None, Some(harmless(&format!("{error:#}")))),
    };
    let figures = pictures(&beside.pictures)?;
    let charts = curves.charts()?;
    let charts: Vec<Figure> =
        charts.into_iter().map(|(caption, svg)| Figure { caption, svg }).collect();
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        run: name_of(&folder.path("")),
        verdict: Verdict::of(manifest),
        evaluations,
        curves,
        weights,
        weights_missing,
        prompt_format: Format::of(folder, manifest),
        figures: figures.iter().map(|figure| figure.caption.clone()).collect(),
        manifest: manifest.clone(),
    };
    let manifest_text = harmless(&format!("{manifest:#}"));
    folder.write(FACTS, format!("{}\n", serde_json::to_string_pretty(&report)?))?;
    folder.write(PAGE, run_page(&report, &manifest_text, [&charts, &figures])?)
}

/// Writes the report of a run that has ended. An error is only printed, because the model is
/// written already.
pub(crate) fn write_or_say(folder: &RunFolder, console: Console) {
    if let Err(error) = write(folder, &Beside::default()) {
        console.say(&format!("no report was written, `beear report` does it later: {error:#}"));
    }
}

/// Returns the last part of a folder's path.
pub(crate) fn name_of(folder: &Path) -> String {
    let name = folder.components().next_back();
    harmless(&name.map(|name| name.as_os_str().to_string_lossy()).unwrap_or_default())
}

impl Format {
    fn of(folder: &RunFolder, manifest: &Value) -> Self {
        let rendered = || -> Result<String> {
            let recipe = Recipe::read(Some(&folder.path("config.resolved.toml")), None, &[])?;
            let text = TextSide::load(&folder.path("model"), recipe.prompt_format.as_deref())?;
            Ok(text.encode_prompt(SAMPLE_PROMPT)?.text)
        };
        Self {
            template: harmless(manifest["prompt_format"].as_str().unwrap_or_default()),
            prompt: SAMPLE_PROMPT,
            rendered: rendered().ok().map(|text| harmless(&text)),
        }
    }
}

/// Reads the SVG files of folders.
fn pictures(folders: &[PathBuf]) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for folder in folders {
        let reading = || format!("reading `{}`", folder.display());
        let entries = std::fs::read_dir(folder).with_context(reading)?.flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|ending| ending == "svg"));
        paths.sort();
        if paths.is_empty() {
            let what = format!("`{}` holds no picture", folder.display());
            let hint = "name the --out of `beear analyze drift` or `beear sweep layers`";
            return Err(UserError::input(what, hint).into());
        }
        for path in paths {
            let text = beear_input::read_to_string(&path);
            let text = text.with_context(|| format!("reading `{}`", path.display()))?;
            let svg = harmless_svg(&text).ok_or_else(|| {
                let what = format!("`{}` is no picture that beear draws", path.display());
                UserError::input(what, "run the analysis once more")
            })?;
            figures.push(Figure { caption: name_of(&path), svg });
        }
    }
    Ok(figures)
}
