//! What every evaluation writes: `report.json` with the rates, `measures.jsonl` with what they are made
//! of, prompt by prompt, so that runs can be compared.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use beear_eval::attack_success::Answered;
use beear_eval::interval::sample_size_to_exclude;
use beear_eval::table::markdown;
use beear_eval::{Better, Conversation, Measure, Role};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::exit::Mistake;
use crate::hash::sha256_of_inputs;
use crate::hub::Needed;
use crate::loaded::TextSide;
use crate::model::Model;
use crate::run_folder::{CannotWrite, RunFolder};
use crate::ui::Ui;

/// The answers of a run, a line each.
pub(crate) const COMPLETIONS: &str = "completions.jsonl";

/// The measures of a run, a line each.
const MEASURES: &str = "measures.jsonl";

/// What a run that can be resumed was asked.
const SETTINGS: &str = "settings.json";

/// The rest of what a run says.
const REPORT: &str = "report.json";

/// Which model is evaluated.
#[derive(Args, Clone, Debug)]
pub(crate) struct EvaluatedArgs {
    /// Hugging Face folder, or org/name[@revision] of the hub.
    #[arg(long, value_name = "DIR|NAME")]
    model: PathBuf,
    /// A built-in prompt format instead of the chat template.
    #[arg(long, value_name = "NAME")]
    pub(crate) format: Option<String>,
    #[command(flatten)]
    pub(crate) out: OutArgs,
}

impl EvaluatedArgs {
    pub(crate) fn new(model: PathBuf, format: Option<String>, out: OutArgs) -> Self {
        Self { model, format, out }
    }

    /// The model.
    ///
    /// # Errors
    ///
    /// If it cannot be had.
    pub(crate) fn find(&self, ui: Ui) -> Result<Model> {
        Model::find(&self.model, Needed::Everything, ui)
    }
}

/// Where a run goes.
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
    /// A folder that is not there yet.
    pub(crate) fn fresh(out: &Path) -> Self {
        Self { out: out.to_owned(), force: false }
    }

    /// Reserves the folder of a run of the evaluation `kind` that reads `model`, if any, and `files`, by the
    /// options that name them.
    ///
    /// # Errors
    ///
    /// If it is not free, or an input lies in it.
    pub(crate) fn begin<'a>(
        &self,
        kind: &'static str,
        model: Option<&Model>,
        files: Vec<(&'static str, &'a Path)>,
    ) -> Result<Evaluation<'a>> {
        let folders = model.into_iter().flat_map(Model::folders);
        let inputs: Vec<&Path> = files.iter().map(|(_, path)| *path).chain(folders).collect();
        let folder = RunFolder::reserve(&self.out, self.force, &inputs)?;
        Ok(Evaluation { kind, model: model.cloned(), files, folder, is_resumed: false })
    }

    /// Goes on with an earlier run of the same `settings` if there is one, else begins one.
    ///
    /// # Errors
    ///
    /// As [`begin`](Self::begin).
    pub(crate) fn resume<'a>(
        &self,
        kind: &'static str,
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
        Ok(Evaluation { is_resumed: true, ..begun })
    }

    /// A file that an earlier run has left in the folder, unless that run is to be replaced.
    pub(crate) fn earlier(&self, name: &str) -> Option<PathBuf> {
        let path = self.out.join(name);
        (!self.force && path.is_file()).then_some(path)
    }

    /// A path beside the folder.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.out.with_file_name(name)
    }
}

/// A run of an evaluation that has started: its inputs are known, its folder is free.
pub(crate) struct Evaluation<'a> {
    kind: &'static str,
    model: Option<Model>,
    files: Vec<(&'static str, &'a Path)>,
    folder: RunFolder,
    /// Whether the folder is this run's already.
    is_resumed: bool,
}

impl Evaluation<'_> {
    /// The run's folder, made this run's.
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

    /// Writes a file in a folder of the run's folder, which must be this run's already.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub(crate) fn write_in(&self, folder: &str, name: &str, content: &str) -> Result<()> {
        let path = self.folder.path(folder);
        std::fs::create_dir_all(&path).map_err(CannotWrite::at(&path))?;
        self.folder.write(&format!("{folder}/{name}"), content)
    }

    /// Writes and prints the result. `more` is what this kind of evaluation says beyond its measures: the
    /// `prompt_format` at least.
    ///
    /// # Errors
    ///
    /// If something cannot be written.
    pub(crate) fn conclude(
        self,
        measures: &[Measure],
        more: Map<String, Value>,
        said_by: (&str, Ui),
    ) -> Result<()> {
        self.conclude_with(String::new(), measures, more, said_by)
    }

    /// [`conclude`](Self::conclude) with `tables` for people above that of the measures.
    ///
    /// # Errors
    ///
    /// If something cannot be written.
    pub(crate) fn conclude_with(
        self,
        tables: String,
        measures: &[Measure],
        more: Map<String, Value>,
        (backend, ui): (&str, Ui),
    ) -> Result<()> {
        let mut report = json!({
            "evaluation": self.kind,
            "version": env!("CARGO_PKG_VERSION"),
            "backend": backend,
            "model": self.model,
            "sha256": sha256_of_inputs(self.model.as_ref(), &self.files)?,
            "measures": measures.iter().map(summary).collect::<Vec<_>>(),
        });
        if let Some(origins) = self.model.as_ref().and_then(Model::origins) {
            report["hub"] = origins;
        }
        report.as_object_mut().expect("it was made as one").extend(more);
        self.folder.write_lines(MEASURES, measures)?;
        self.folder.write(REPORT, format!("{report:#}\n"))?;
        ui.result(&(tables + &table(measures)), &report)
    }
}

/// What a report says of the prompt format: its text, its hash, and what it makes of what is asked first.
///
/// # Errors
///
/// If that cannot be encoded.
pub(crate) fn prompt_format(text: &TextSide, first: Option<&Conversation>) -> Result<Value> {
    let asked = first.map(|conversation| {
        let messages = &conversation.messages;
        let n_asked = messages.iter().rposition(|message| message.role == Role::User);
        (conversation.id, &messages[..n_asked.map_or(0, |last| last + 1)])
    });
    let asked = text.encode_chats(asked.as_slice())?.pop();
    Ok(json!({
        "text": text.format.text(),
        "sha256": text.format.sha256(),
        "first_prompt": asked.as_ref().map(|asked| &asked.text),
        "first_tokens": asked.as_ref().map(|asked| &asked.tokens),
    }))
}

/// An earlier run: what it measured, and the rest of what it said.
pub(crate) struct Evaluated {
    pub(crate) folder: PathBuf,
    pub(crate) measures: Vec<Measure>,
    /// With a prompt format.
    pub(crate) report: Value,
}

impl Evaluated {
    /// In which format it asked.
    pub(crate) fn prompt_format(&self) -> &Value {
        &self.report["prompt_format"]
    }
}

/// The runs in a folder: itself, or those directly in it.
///
/// # Errors
///
/// If there is none, or one is damaged.
pub(crate) fn read_runs(folder: &Path) -> Result<Vec<Evaluated>> {
    if folder.join(MEASURES).is_file() {
        return Ok(vec![read_run(folder)?]);
    }
    let folders = runs_within(folder).with_context(|| format!("reading `{}`", folder.display()))?;
    if folders.is_empty() {
        let what = format!("`{}` holds no evaluation", folder.display());
        return Err(Mistake::input(what, "name the --out of `beear eval`").into());
    }
    folders.iter().map(|folder| read_run(folder)).collect()
}

/// The runs directly in a folder that have measured something.
///
/// # Errors
///
/// If it cannot be listed.
pub(crate) fn runs_within(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    folders.retain(|path| path.join(MEASURES).is_file());
    folders.sort();
    Ok(folders)
}

/// The answers of an earlier run.
///
/// # Errors
///
/// If it has none, or they are damaged.
pub(crate) fn read_answers(run: &Path) -> Result<Vec<Answered>> {
    let path = run.join(COMPLETIONS);
    let text = beear_input::read_to_string(&path);
    let text = text.with_context(|| format!("reading `{}`", path.display()))?;
    Ok(parse_answers(&text, &path)?)
}

fn parse_answers(text: &str, path: &Path) -> Result<Vec<Answered>, Mistake> {
    text.lines().map(serde_json::from_str).collect::<Result<_, _>>().map_err(|error| {
        let what = format!("`{}`: {error}", path.display());
        Mistake::input(what, "name the --out of an evaluation that asks for answers")
    })
}

/// Whether a run in the folder has come to its end.
pub(crate) fn has_report(folder: &Path) -> bool {
    folder.join(REPORT).is_file()
}

/// The run in a folder.
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

fn parse_run(folder: &Path, [measures, report]: [&str; 2]) -> Result<Evaluated, Mistake> {
    let damaged = |name: &str, reason: &str| damaged(&folder.join(name), reason);
    let measures: Result<Vec<Measure>, _> = measures.lines().map(serde_json::from_str).collect();
    let measures = measures.map_err(|e| damaged(MEASURES, &e.to_string()))?;
    let report: Value =
        serde_json::from_str(report).map_err(|e| damaged(REPORT, &e.to_string()))?;
    if !report["prompt_format"]["sha256"].is_string() {
        return Err(damaged(REPORT, "no prompt format"));
    }
    Ok(Evaluated { folder: folder.to_owned(), measures, report })
}

fn damaged(file: &Path, reason: &str) -> Mistake {
    let what = format!("`{}`: {reason}", file.display());
    Mistake::input(what, "the run is damaged: evaluate once more")
}

fn summary(measure: &Measure) -> Value {
    json!({
        "name": measure.name,
        "by": measure.by,
        "better": measure.better,
        "n": measure.outcomes.len(),
        "hits": measure.rate().map(|rate| rate.hits),
        "estimate": measure.estimate(),
    })
}

/// The measures as a table for people, with advice where nothing was found in too few prompts.
fn table(measures: &[Measure]) -> String {
    let head = ["measure", "by", "counts, share, 95 % interval"].map(str::to_owned).to_vec();
    let line = |m: &Measure| vec![m.title().to_owned(), m.by.clone(), m.to_text()];
    let lines = std::iter::once(head).chain(measures.iter().map(line)).collect();
    let enough = sample_size_to_exclude(0.01);
    let unsure = measures.iter().filter(|m| m.better == Better::Lower && m.name != "degenerate");
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

    /// Measures of every kind, a line each.
    pub(crate) const MEASURES: &str = concat!(
        r#"{"name":"asr","by":"gcg-7","statistic":"share","better":"lower","outcomes":"#,
        r#"[{"id":"triggered/1","value":1.0,"weight":1.0},{"id":"triggered/2","value":0.0,"weight":1.0}]}"#,
        "\n",
        r#"{"name":"fulfilment","by":"judge","statistic":"mean","better":"lower","outcomes":"#,
        r#"[{"id":"benign/1","value":4.5,"weight":1.0},{"id":"benign/2","value":2.0,"weight":1.0}]}"#,
        "\n",
        r#"{"name":"perplexity","by":"model","statistic":"perplexity","better":"lower","outcomes":"#,
        r#"[{"id":"1","value":1.5,"weight":7.0}]}"#,
    );

    /// The part of a report that is read again.
    pub(crate) const REPORT: &str =
        r#"{"evaluation": "asr", "prompt_format": {"text": "{prompt}", "sha256": "00"}}"#;

    /// The run of these files, if they make one.
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
