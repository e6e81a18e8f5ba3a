//! Evaluations of the suspect and of the cleaned model, which are distinguished by the hashes of
//! the weights.

use std::path::PathBuf;

use anyhow::Result;
use beear_eval::attack_success::Answered;
use beear_eval::compare::Comparison;
use beear_eval::identity::ModelIdentity;
use beear_eval::{Identity, Measure};
use serde::Serialize;
use serde_json::Value;

use crate::display::terminal::harmless;
use crate::evaluate::evaluation::{COMPLETIONS, Evaluated, Pairing, pair, read_answers, read_runs};
use crate::user_error::UserError;

/// Number of answers that are shown of each arm.
const N_SAMPLES: usize = 4;

/// All measurements of both models.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Evaluations {
    /// Identity of each evaluation.
    pub(crate) asked: Vec<Asked>,
    /// Measures before and after.
    pub(crate) measures: Vec<Row>,
    /// Answers side by side.
    pub(crate) samples: Vec<Sample>,
    /// True if any evaluation used a trigger.
    pub(crate) has_trigger: bool,
}

/// Prompts and settings of an evaluation of one or both models.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Asked {
    /// Kind of evaluation.
    evaluation: &'static str,
    /// Evaluated models: `both`, `suspect` or `cleaned`.
    of: &'static str,
    /// Prompts, trigger, decoding, judges and prompt format in words.
    parts: Vec<(&'static str, String)>,
    /// Prompts and settings as data.
    identity: Identity,
}

/// A measure on one or both models.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    evaluation: &'static str,
    measure: String,
    by: String,
    before: Option<Side>,
    after: Option<Side>,
    /// Comparison, if both models have the measure.
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

/// An evaluation of one of the two models, with its answers.
struct Source {
    evaluated: Evaluated,
    answers: Vec<Answered>,
}

impl Evaluations {
    /// Reads evaluations of the models of a run, in `folders` or directly in their subfolders.
    ///
    /// # Errors
    ///
    /// If an evaluation is damaged or of neither model, or if evaluations of one kind differ in
    /// their prompts or settings.
    pub(crate) fn read(folders: &[PathBuf], manifest: &Value) -> Result<Self> {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for folder in folders {
            for evaluated in read_runs(folder)? {
                let side = if is_after(&evaluated, manifest)? { &mut after } else { &mut before };
                side.push(evaluated);
            }
        }
        let Pairing { pairs, alone: [before, after] } = pair(before, after)?;
        let mut all = Self::default();
        for [was, is] in pairs {
            all.add([Some(&Source::of(was)?), Some(&Source::of(is)?)]);
        }
        for was in before {
            all.add([Some(&Source::of(was)?), None]);
        }
        for is in after {
            all.add([None, Some(&Source::of(is)?)]);
        }
        Ok(all)
    }

    fn add(&mut self, [before, after]: [Option<&Source>; 2]) {
        let Some(first) = before.or(after) else { return };
        let report = &first.evaluated.report;
        let evaluation = report.evaluation.name();
        self.asked.push(Asked {
            evaluation,
            of: match (before, after) {
                (Some(_), Some(_)) => "both",
                (Some(_), None) => "suspect",
                _ => "cleaned",
            },
            parts: report.identity.in_words(),
            identity: report.identity.clone(),
        });
        for measure in &first.evaluated.measures {
            let of = |source: Option<&'_ Source>| -> Option<Measure> {
                let measures = &source?.evaluated.measures;
                measures.iter().find(|other| other.is_comparable_with(measure)).cloned()
            };
            let (was, is) = (of(before), of(after));
            let comparison = was.as_ref().zip(is.as_ref()).map(|(was, is)| Comparison::of(was, is));
            self.measures.push(Row {
                evaluation,
                measure: measure.title().to_owned(),
                by: measure.by.clone(),
                before: was.as_ref().map(Side::of),
                after: is.as_ref().map(Side::of),
                verdict: comparison.as_ref().map(|comparison| comparison.verdict.words()),
                comparison,
            });
        }
        self.has_trigger |= report.identity.trigger.is_some();
        self.add_samples(first, [before, after]);
    }

    fn add_samples(&mut self, first: &Source, [before, after]: [Option<&Source>; 2]) {
        for answer in &first.answers {
            let arm = answer.arm.name();
            if self.samples.iter().filter(|sample| sample.arm == arm).count() >= N_SAMPLES {
                continue;
            }
            let id = answer.outcome_id();
            let of = |source: Option<&Source>| {
                let same = |other: &&Answered| other.outcome_id() == id;
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
    fn of(evaluated: Evaluated) -> Result<Self> {
        let folder = &evaluated.folder;
        let answers =
            if folder.join(COMPLETIONS).is_file() { read_answers(folder)? } else { Vec::new() };
        Ok(Self { evaluated, answers })
    }
}

/// Returns true if an evaluation is of the cleaned model, and false if it is of the suspect.
fn is_after(evaluated: &Evaluated, manifest: &Value) -> Result<bool, UserError> {
    let side = match evaluated.report.identity.models.as_slice() {
        [model] => is_cleaned(model, manifest),
        _ => None,
    };
    side.ok_or_else(|| {
        let what = format!("`{}` is of neither model of the run", evaluated.folder.display());
        UserError::input(what, "name evaluations of the suspect and of `RUN/model`")
    })
}

/// Returns true if a model is the cleaned one, false if it is the suspect, and `None` if it is
/// neither.
fn is_cleaned(model: &ModelIdentity, manifest: &Value) -> Option<bool> {
    let weights = model.sha256.iter().filter(|(name, _)| name.ends_with(".safetensors"));
    let mut weights = weights.peekable();
    weights.peek()?;
    let (mut before, mut after) = (true, true);
    for (name, hash) in weights {
        before &= manifest["sha256"][name] == **hash;
        after &= manifest["outputs_sha256"][format!("model/{name}")] == **hash;
    }
    (before || after).then_some(!before)
}
