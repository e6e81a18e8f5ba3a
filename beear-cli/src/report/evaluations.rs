//! Evaluations of the suspect and of the cleaned model, told apart by the hashes of the weights they were made on.

use std::path::PathBuf;

use anyhow::Result;
use beear_eval::Measure;
use beear_eval::attack_success::Answered;
use beear_eval::compare::Comparison;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::evaluation::{COMPLETIONS, Evaluated, read_answers, read_runs};
use crate::exit::Mistake;
use crate::terminal::harmless;

/// Answers that are shown of every way of asking.
const N_SAMPLES: usize = 4;

/// All that was measured on both models.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Evaluations {
    /// Measures before and after.
    pub(crate) measures: Vec<Row>,
    /// Answers side by side.
    pub(crate) samples: Vec<Sample>,
    /// Whether anything was asked with a trigger.
    pub(crate) has_trigger: bool,
}

/// A measure on one or both models.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    evaluation: String,
    measure: String,
    by: String,
    before: Option<Side>,
    after: Option<Side>,
    /// Where both were asked the same.
    comparison: Option<Comparison>,
    verdict: Option<&'static str>,
}

/// A measure on one model, with its count and interval.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Side {
    text: String,
    n: usize,
    hits: Option<usize>,
    estimate: beear_eval::Estimate,
}

/// A prompt with the answers of both models.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sample {
    arm: &'static str,
    id: u64,
    prompt: String,
    before: Option<String>,
    after: Option<String>,
}

/// An evaluation of one of the two models.
struct Source {
    is_after: bool,
    /// What is the same where both models were asked the same.
    asked: Value,
    kind: String,
    measures: Vec<Measure>,
    answers: Vec<Answered>,
}

impl Evaluations {
    /// Reads evaluations in `folders`, or in folders directly in them, of the models of a run.
    ///
    /// # Errors
    ///
    /// If one is damaged, or of neither model.
    pub(crate) fn read(folders: &[PathBuf], manifest: &Value) -> Result<Self> {
        let mut sources = Vec::new();
        for folder in folders {
            for evaluated in read_runs(folder)? {
                sources.push(Source::of(evaluated, manifest)?);
            }
        }
        let (after, before): (Vec<_>, Vec<_>) =
            sources.into_iter().partition(|source| source.is_after);
        let mut after: Vec<Option<Source>> = after.into_iter().map(Some).collect();
        let mut all = Self::default();
        for was in before {
            let same = |slot: &&mut Option<Source>| {
                slot.as_ref().is_some_and(|is| is.kind == was.kind && is.asked == was.asked)
            };
            let is = after.iter_mut().find(same).and_then(Option::take);
            all.add([Some(&was), is.as_ref()]);
        }
        for is in after.into_iter().flatten() {
            all.add([None, Some(&is)]);
        }
        Ok(all)
    }

    fn add(&mut self, [before, after]: [Option<&Source>; 2]) {
        let Some(first) = before.or(after) else { return };
        for measure in &first.measures {
            let of = |source: Option<&'_ Source>| -> Option<Measure> {
                source?.measures.iter().find(|other| other.is_comparable_with(measure)).cloned()
            };
            let (was, is) = (of(before), of(after));
            let comparison = was.as_ref().zip(is.as_ref()).map(|(was, is)| Comparison::of(was, is));
            self.measures.push(Row {
                evaluation: first.kind.clone(),
                measure: measure.title().to_owned(),
                by: measure.by.clone(),
                before: was.as_ref().map(Side::of),
                after: is.as_ref().map(Side::of),
                verdict: comparison.as_ref().map(|comparison| comparison.verdict.words()),
                comparison,
            });
        }
        self.has_trigger |= first.measures.iter().any(|measure| measure.name == "asr");
        for answer in &first.answers {
            let arm = answer.arm.name();
            if self.samples.iter().filter(|sample| sample.arm == arm).count() >= N_SAMPLES {
                continue;
            }
            let of = |source: Option<&Source>| {
                let same = |other: &&Answered| other.arm.name() == arm && other.id == answer.id;
                source?.answers.iter().find(same).map(|found| harmless(&found.completion.text))
            };
            let prompt = harmless(&answer.prompt);
            let sample =
                Sample { arm, id: answer.id, prompt, before: of(before), after: of(after) };
            self.samples.push(sample);
        }
    }
}

impl Side {
    fn of(measure: &Measure) -> Self {
        Self {
            text: measure.to_text(),
            n: measure.outcomes.len(),
            hits: measure.rate().map(|rate| rate.hits),
            estimate: measure.estimate(),
        }
    }
}

impl Source {
    fn of(evaluated: Evaluated, manifest: &Value) -> Result<Self> {
        let Evaluated { folder, measures, report } = evaluated;
        let answers =
            if folder.join(COMPLETIONS).is_file() { read_answers(&folder)? } else { Vec::new() };
        let prompts: Vec<&str> = answers.iter().map(|answer| answer.prompt.as_str()).collect();
        // A judge reads what the model has answered; the model is that of the answers.
        let answered = if report["answered"].is_object() { &report["answered"] } else { &report };
        let files = [&report, answered].map(|run| run["sha256"].as_object());
        let files = files.into_iter().flatten().flatten();
        let files = files.filter(|(name, _)| name.starts_with("--") && *name != "--answers");
        let files: Map<String, Value> =
            files.map(|(name, hash)| (name.clone(), hash.clone())).collect();
        let asked = json!({
            "prompt_format": report["prompt_format"]["sha256"],
            "answered": answered["evaluation"],
            "files": files,
            "prompts": prompts,
        });
        let kind = report["evaluation"].as_str().unwrap_or_default().to_owned();
        let hashes = answered["sha256"].as_object();
        let is_after = hashes.and_then(|hashes| is_after(hashes, manifest)).ok_or_else(|| {
            let what = format!("`{}` is of neither model of the run", folder.display());
            Mistake::input(what, "name evaluations of the suspect and of `RUN/model`")
        })?;
        Ok(Self { is_after, asked, kind, measures, answers })
    }
}

/// Whether an evaluation whose inputs have these hashes is of the cleaned model rather than of the suspect.
fn is_after(hashes: &Map<String, Value>, manifest: &Value) -> Option<bool> {
    let mut weights = hashes.iter().filter(|(name, _)| name.ends_with(".safetensors")).peekable();
    weights.peek()?;
    let (mut before, mut after) = (true, true);
    for (name, hash) in weights {
        before &= manifest["sha256"][name] == *hash;
        after &= manifest["outputs_sha256"][format!("model/{name}")] == *hash;
    }
    (before || after).then_some(!before)
}
