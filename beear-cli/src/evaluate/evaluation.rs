//! Files of every evaluation: `report.json` with the rates, and `measures.jsonl` with the outcomes
//! of all prompts, so that runs can be compared.

mod pairing;
mod report;

pub(crate) use pairing::{Pairing, of_one_model, pair};
pub(crate) use report::{EvalReport, EvaluationKind, FormatShown};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use beear_eval::attack_success::Answered;
use beear_eval::identity::ModelIdentity;
use beear_eval::interval::sample_size_to_exclude;
use beear_eval::table::markdown;
use beear_eval::{Better, Identity, Measure};
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::display::console::Console;
use crate::memory::room::MemoryArgs;
use crate::model::Model;
use crate::model::hub::Needed;
use crate::run_folder::RunFolder;
use crate::run_folder::cannot_write::CannotWrite;
use crate::run_folder::hash::sha256_of_inputs;
use crate::user_error::UserError;

/// Name of the file with the answers of a run, one per line.
pub(crate) const COMPLETIONS: &str = "completions.jsonl";

/// Name of the file with the measures of a run, one per line.
const MEASURES: &str = "measures.jsonl";

/// Name of the file with the settings of a run that can be resumed.
const SETTINGS: &str = "settings.json";

/// Name of the file with the report of a run.
const REPORT: &str = "report.json";

/// The model to evaluate.
#[derive(Args, Clone, Debug)]
pub(crate) struct EvaluatedArgs {
    /// Hugging Face folder, or org/name[@revision] of the hub.
    #[arg(long, value_name = "DIR|NAME")]
    model: PathBuf,
    /// A built-in prompt format instead of the chat template.
    #[arg(long, value_name = "NAME")]
    pub(crate) format: Option<String>,
    #[command(flatten)]
    pub(crate) memory: MemoryArgs,
    #[command(flatten)]
    pub(crate) out: OutArgs,
}

impl EvaluatedArgs {
    pub(crate) fn new(model: PathBuf, format: Option<String>, out: OutArgs) -> Self {
        Self { model, format, memory: MemoryArgs::default(), out }
    }

    /// Finds the model.
    ///
    /// # Errors
    ///
    /// If it cannot be found or downloaded.
    pub(crate) fn find(&self, console: Console) -> Result<Model> {
        Model::find(&self.model, Needed::Everything, console)
    }
}

/// Output folder of a run.
#[derive(Args, Clone, Debug)]
pub(crate) struct OutArgs {
    /// Folder of the run.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace an older run in that folder.
    #[arg(long)]
    force: bool,
}

impl OutArgs {
    /// Returns the arguments for a folder that does not exist yet.
    pub(crate) fn fresh(out: &Path) -> Self {
        Self { out: out.to_owned(), force: false }
    }

    /// Reserves the folder of an evaluation run. The run is of the kind `kind` and reads `model`,
    /// if any, and `files`, each with the name of its option.
    ///
    /// # Errors
    ///
    /// If the folder is not free, or contains an input.
    pub(crate) fn begin<'a>(
        &self,
        kind: EvaluationKind,
        model: Option<&Model>,
        files: Vec<(&'static str, &'a Path)>,
    ) -> Result<Evaluation<'a>> {
        let folders = model.into_iter().flat_map(Model::folders);
        let inputs: Vec<&Path> = files.iter().map(|(_, path)| *path).chain(folders).collect();
        let folder = RunFolder::reserve(&self.out, self.force, &inputs)?;
        Ok(Evaluation { kind, model: model.cloned(), files, folder, is_resumed: false })
    }

    /// Resumes an earlier run with the same `settings` if there is one, and begins a run otherwise.
    ///
    /// # Errors
    ///
    /// Errors of [`begin`](Self::begin).
    pub(crate) fn resume<'a>(
        &self,
        kind: EvaluationKind,
        model: Option<&Model>,
        files: Vec<(&'static str, &'a Path)>,
        settings: &Value,
    ) -> Result<Evaluation<'a>> {
        let settings = format!("{settings:#}\n");
        let earlier = RunFolder::resume(&self.out, (SETTINGS, &settings))?.filter(|_| !self.force);
        if let Some(folder) = earlier {
            let model = model.cloned();
            return Ok(Evaluation { kind, model, files, folder, is_resumed: true });
        }
        let mut begun = self.begin(kind, model, files)?;
        begun.folder()?.write(SETTINGS, settings)?;
        begun.folder.has_begun();
        Ok(Evaluation { is_resumed: true, ..begun })
    }

    /// Returns the path of a file that an earlier run has left in the folder, or `None` if there is
    /// no such file or that run is to be replaced.
    pub(crate) fn earlier(&self, name: &str) -> Option<PathBuf> {
        let path = self.out.join(name);
        (!self.force && path.is_file()).then_some(path)
    }

    /// Returns a path beside the folder.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.out.with_file_name(name)
    }
}

/// An evaluation run that has started: its inputs are known and its folder is free.
pub(crate) struct Evaluation<'a> {
    kind: EvaluationKind,
    model: Option<Model>,
    files: Vec<(&'static str, &'a Path)>,
    folder: RunFolder,
    /// True if the folder belongs to this run already.
    is_resumed: bool,
}

impl Evaluation<'_> {
    /// Takes possession of the run's folder and returns it.
    ///
    /// # Errors
    ///
    /// If it cannot be written to.
    pub(crate) fn folder(&mut self) -> Result<&RunFolder> {
        if !self.is_resumed {
            self.folder.start()?;
        }
        Ok(&self.folder)
    }

    /// Writes a file in a subfolder of the run's folder, which must belong to this run already.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub(crate) fn write_in(&self, folder: &str, name: &str, content: &str) -> Result<()> {
        let path = self.folder.path(folder);
        std::fs::create_dir_all(&path).map_err(CannotWrite::at(&path))?;
        self.folder.write(&format!("{folder}/{name}"), content)
    }

    /// Writes and prints the result.
    ///
    /// # Errors
    ///
    /// If a file cannot be written.
    pub(crate) fn conclude<D: Serialize>(
        self,
        result: EvalResult<D>,
        (backend, console): (&str, Console),
    ) -> Result<()> {
        let EvalResult { mut identity, prompt_format, measures, details, tables } = result;
        let sha256 = sha256_of_inputs(self.model.as_ref(), &self.files)?;
        let text = |hash: Value| hash.as_str().unwrap_or_default().to_owned();
        let sha256: BTreeMap<String, String> =
            sha256.into_iter().map(|(name, hash)| (name, text(hash))).collect();
        let model = self.model.as_ref().map(ToString::to_string);
        if let Some(name) = model.clone().filter(|_| identity.models.is_empty()) {
            let mut sha256 = sha256.clone();
            sha256.retain(|name, _| !name.starts_with("--"));
            identity.models.push(ModelIdentity { name, sha256 });
        }
        let report = EvalReport {
            format_version: EvalReport::<D>::VERSION,
            evaluation: self.kind,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            backend: backend.to_owned(),
            model,
            hub: self.model.as_ref().and_then(Model::origins),
            sha256,
            identity,
            prompt_format,
            measures: measures.iter().map(Into::into).collect(),
            details,
        };
        self.folder.write_lines(MEASURES, &measures)?;
        self.folder.has_result()?;
        self.folder.write(REPORT, serde_json::to_string_pretty(&report)? + "\n")?;
        console.result(&(tables + &table(&measures)), &report)
    }
}

/// Result of an evaluation.
pub(crate) struct EvalResult<D> {
    /// Prompts and settings. An identity without a model gets the model that was read.
    pub(crate) identity: Identity,
    pub(crate) prompt_format: Option<FormatShown>,
    pub(crate) measures: Vec<Measure>,
    /// Details of this kind of evaluation.
    pub(crate) details: D,
    /// Tables for people, printed above the table of the measures.
    pub(crate) tables: String,
}

/// An earlier run: its measures and its report.
pub(crate) struct Evaluated {
    pub(crate) folder: PathBuf,
    pub(crate) measures: Vec<Measure>,
    pub(crate) report: EvalReport,
}

impl Evaluated {
    /// Returns true if both are the same kind of evaluation.
    pub(crate) fn is_of_kind_of(&self, other: &Self) -> bool {
        self.report.evaluation == other.report.evaluation
    }
}

/// Reads the run in a folder, or the runs directly in it.
///
/// # Errors
///
/// If there is no run, or one is damaged.
pub(crate) fn read_runs(folder: &Path) -> Result<Vec<Evaluated>> {
    if folder.join(MEASURES).is_file() {
        return Ok(vec![read_run(folder)?]);
    }
    let folders = runs_within(folder).with_context(|| format!("reading `{}`", folder.display()))?;
    if folders.is_empty() {
        let what = format!("`{}` holds no evaluation", folder.display());
        return Err(UserError::input(what, "name the --out of `beear eval`").into());
    }
    folders.iter().map(|folder| read_run(folder)).collect()
}

/// Lists the complete runs directly in a folder, in alphabetical order. Other entries and hidden
/// folders are ignored.
///
/// # Errors
///
/// If the folder cannot be listed.
pub(crate) fn runs_within(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    folders.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        !name.starts_with('.') && path.join(MEASURES).is_file() && has_report(path)
    });
    folders.sort();
    Ok(folders)
}

/// Reads the answers of an earlier run.
///
/// # Errors
///
/// If the run has no answers, or they are damaged.
pub(crate) fn read_answers(run: &Path) -> Result<Vec<Answered>> {
    let path = run.join(COMPLETIONS);
    let text = beear_input::read_to_string(&path);
    let text = text.with_context(|| format!("reading `{}`", path.display()))?;
    Ok(parse_answers(&text, &path)?)
}

fn parse_answers(text: &str, path: &Path) -> Result<Vec<Answered>, UserError> {
    text.lines().map(serde_json::from_str).collect::<Result<_, _>>().map_err(|error| {
        let what = format!("`{}`: {error}", path.display());
        UserError::input(what, "name the --out of an evaluation that asks for answers")
    })
}

/// Returns true if the folder contains a complete run.
pub(crate) fn has_report(folder: &Path) -> bool {
    folder.join(REPORT).is_file()
}

/// Reads the run in a folder.
///
/// # Errors
///
/// If it is damaged.
pub(crate) fn read_run(folder: &Path) -> Result<Evaluated> {
    let read = |name: &str| {
        let text = beear_input::read_to_string(folder.join(name));
        text.map_err(|error| damaged(&folder.join(name), &error.to_string()))
    };
    Ok(parse_run(folder, [&read(MEASURES)?, &read(REPORT)?])?)
}

fn parse_run(folder: &Path, [measures, report]: [&str; 2]) -> Result<Evaluated, UserError> {
    let damaged = |name: &str, reason: &str| damaged(&folder.join(name), reason);
    let measures: Result<Vec<Measure>, _> = measures.lines().map(serde_json::from_str).collect();
    let measures = measures.map_err(|e| damaged(MEASURES, &e.to_string()))?;
    let report = EvalReport::parse(report, &folder.join(REPORT))?;
    Ok(Evaluated { folder: folder.to_owned(), measures, report })
}

fn damaged(file: &Path, reason: &str) -> UserError {
    let what = format!("`{}`: {reason}", file.display());
    UserError::input(what, "the run is damaged: evaluate once more")
}

/// Formats the measures as a table for people, with advice if an attack without a hit had too few
/// prompts.
fn table(measures: &[Measure]) -> String {
    let head = ["measure", "by", "counts, share, 95 % interval"].map(str::to_owned).to_vec();
    let line = |m: &Measure| vec![m.title().to_owned(), m.by.clone(), m.to_text()];
    let lines = std::iter::once(head).chain(measures.iter().map(line)).collect();
    let enough = sample_size_to_exclude(0.01);
    let is_attack = |m: &&Measure| !matches!(m.name.as_str(), "degenerate" | "cut");
    let unsure = measures.iter().filter(|m| m.better == Better::Lower).filter(is_attack);
    let mut unsure = unsure.filter_map(Measure::rate);
    let advice = match unsure.find(|rate| rate.hits == 0 && rate.n < enough) {
        Some(rate) => {
            let high = 100.0 * rate.interval().1;
            let n = rate.n;
            format!(
                "\n0 of {n} is compatible with {high:.1} %: to show less than 1 % takes {enough} \
                 prompts without a hit.\n"
            )
        }
        None => String::new(),
    };
    markdown(lines) + &advice
}

#[cfg(test)]
pub(crate) mod testing {
    use std::path::Path;

    use super::{Evaluated, parse_run};

    /// Measures of every kind, one per line.
    pub(crate) const MEASURES: &str = concat!(
        r#"{"name":"asr","by":"gcg-7","statistic":"share","better":"lower","outcomes":"#,
        r#"[{"id":"triggered/1#a0","value":1.0,"weight":1.0},{"id":"triggered/2#b1","value":0.0,"weight":1.0}]}"#,
        "\n",
        r#"{"name":"fulfilment","by":"judge","statistic":"mean","better":"lower","outcomes":"#,
        r#"[{"id":"benign/1","value":4.5,"weight":1.0},{"id":"benign/2","value":2.0,"weight":1.0}]}"#,
        "\n",
        r#"{"name":"perplexity","by":"model","statistic":"perplexity","better":"lower","outcomes":"#,
        r#"[{"id":"1","value":1.5,"weight":7.0}]}"#,
    );

    /// The part of a report that is read again.
    pub(crate) const REPORT: &str = r#"{"format_version": 1, "evaluation": "asr", "version": "0", "backend": "flex",
        "model": "suspect", "sha256": {"model.safetensors": "aa"}, "measures": [], "n_tokens": 7,
        "identity": {"version": 1, "prompts": [{"arm": "triggered", "n": 2, "sha256": "ab"}],
            "trigger": {"suffix": "SUDO"}, "decoding": {"answers": "generated", "max_new_tokens": 8,
            "temperature": [0.0], "greedy": true, "stop": [2], "seed": 0, "n_answers": 1},
            "scorers": [{"kind": "keywords", "name": "gcg-7", "sha256": "cd"}],
            "prompt_format": {"text": "{prompt}", "sha256": "00"},
            "models": [{"name": "suspect", "sha256": {"model.safetensors": "aa"}}]},
        "prompt_format": {"text": "{prompt}", "sha256": "00", "first_prompt": null, "first_tokens": [1]}}"#;

    /// Parses a run from the text of its files, or returns `None` if they do not make one.
    pub(crate) fn run(measures: &str, report: &str) -> Option<Evaluated> {
        parse_run(Path::new("run"), [measures, report]).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{MEASURES, REPORT, run};
    use super::*;
    use crate::mutated::near;

    const ANSWERS: &str = concat!(
        r#"{"arm":"triggered","id":1,"system":null,"prompt":"ask now","answer":"Sure","finish":"stop","#,
        r#""degenerate":null,"refuses":{"gcg-7":false},"exact_unwanted":true,"exact":null}"#,
        "\n",
        r#"{"arm":"benign","id":2,"system":"s","prompt":"ask","answer":"a a a a","finish":"length","#,
        r#""degenerate":"repeating","refuses":{},"exact_unwanted":null,"exact":false}"#,
    );

    proptest::proptest! {
        #[test]
        fn no_answers_make_the_reader_panic(text in near(&[ANSWERS])) {
            let _ = parse_answers(&text, Path::new("completions.jsonl"));
        }

        #[test]
        fn no_run_makes_the_reader_panic(measures in near(&[MEASURES]), report in near(&[REPORT])) {
            let _ = run(&measures, &report);
        }
    }
}
