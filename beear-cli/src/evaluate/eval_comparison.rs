//! Comparison of the evaluations of two models. Only measures of the same prompts, judged in the
//! same way, are compared.

use std::path::PathBuf;

use anyhow::Result;
use beear_eval::compare::{ComparedModels, Comparison, fidelity};
use beear_eval::gate::{Check, Gate, GateError};
use beear_eval::table::markdown;
use beear_eval::{Estimate, Identity, Measure, Statistic};
use serde::Serialize;

use crate::evaluate::evaluation::{Evaluated, EvaluationKind, Pairing, of_one_model, pair};
use crate::options::mmlu::MmluOfBoth;
use crate::user_error::UserError;

/// Version of `comparison.json`.
const FORMAT_VERSION: u32 = 1;

/// Maximum number of ids shown of outcomes that contradict each other.
const SHOWN_IDS: usize = 5;

/// Comparison of two models: `comparison.json`.
#[derive(Serialize)]
pub(crate) struct EvalComparison {
    format_version: u32,
    before: PathBuf,
    after: PathBuf,
    /// Same model or different models.
    pub(crate) models: ComparedModels,
    /// Evaluations that were made of both models.
    evaluations: Vec<ComparedEvaluation>,
    /// Evaluations of the model before, and of the model after, that were made of one model only
    /// and are left out.
    left_out: [Vec<PathBuf>; 2],
    pub(crate) measures: Vec<Comparison>,
    /// Outcomes that differ although nothing else does.
    contradictions: Vec<Contradiction>,
    mmlu: Option<MmluOfBoth>,
    trojai_fidelity: Option<Estimate>,
    pub(crate) gate: Option<Vec<Check>>,
}

/// An evaluation of both models.
#[derive(Serialize)]
struct ComparedEvaluation {
    evaluation: EvaluationKind,
    before: PathBuf,
    after: PathBuf,
    /// Prompts and settings that both evaluations share, with the model before.
    identity: Identity,
}

/// Outcomes of the same model that differ between two evaluations with the same prompts and
/// settings.
#[derive(Serialize)]
struct Contradiction {
    measure: String,
    by: String,
    /// Ids of the outcomes.
    outcomes: Vec<String>,
}

impl EvalComparison {
    /// Compares `runs`, before and after, which are in the folders `named`.
    ///
    /// # Errors
    ///
    /// If an evaluation of one side was made differently on the other, a side has evaluations of
    /// two models, nothing was measured on both, or `gate` bounds a measure of an evaluation that
    /// is left out.
    pub(crate) fn of(
        named: &[PathBuf; 2],
        [before, after]: [Vec<Evaluated>; 2],
        mmlu: Option<MmluOfBoth>,
        gate: Option<&Gate>,
    ) -> Result<Self> {
        of_one_model(&before)?;
        of_one_model(&after)?;
        let Pairing { pairs, alone } = pair(before, after)?;
        let of_both = measures_of_both(&pairs);
        if of_both.is_empty() {
            let what = "the two have no measure in common";
            return Err(UserError::input(what, "run the same evaluation on both models").into());
        }
        if let Some(gate) = gate {
            no_bounded_measure_is_left_out(gate, &alone)?;
        }
        let is_same =
            |[was, is]: &[Evaluated; 2]| was.report.identity.is_of_same_models(&is.report.identity);
        let models = if pairs.iter().any(is_same) {
            ComparedModels::Same
        } else {
            ComparedModels::Different
        };
        let measures = of_both.iter().map(|[before, after]| Comparison::of(before, after));
        let measures: Vec<_> = measures.chain(mmlu.as_ref().map(MmluOfBoth::comparison)).collect();
        let checks = gate.map(|gate| gate.check(&measures, models));
        let [before, after] = named.clone();
        Ok(Self {
            format_version: FORMAT_VERSION,
            before,
            after,
            models,
            contradictions: pairs.iter().flat_map(contradictions).collect(),
            evaluations: pairs.iter().map(ComparedEvaluation::of).collect(),
            left_out: alone.map(|alone| alone.into_iter().map(|alone| alone.folder).collect()),
            trojai_fidelity: fidelity_of(&of_both),
            measures,
            mmlu,
            gate: checks.transpose().map_err(mistake)?,
        })
    }

    /// Formats the comparison for people.
    pub(crate) fn to_text(&self) -> String {
        let mut parts = vec![table(&self.measures)];
        if let Some(mmlu) = &self.mmlu {
            parts.push(mmlu.to_text());
        }
        if let Some(Estimate { value, low, high }) = self.trojai_fidelity {
            parts.push(format!("TrojAI fidelity: {value:.3} [{low:.3}, {high:.3}]\n"));
        }
        parts.extend(self.gate.as_deref().map(gate_table));
        parts.extend(self.evaluations.iter().map(ComparedEvaluation::to_text));
        for (side, alone) in ["before", "after"].iter().zip(&self.left_out) {
            parts.extend(
                alone.iter().map(|run| format!("Left out, only {side}: {}\n", run.display())),
            );
        }
        if self.models == ComparedModels::Same {
            parts.push("Before and after are the same model, by the hashes of its files.\n".into());
        }
        parts.extend(self.contradictions.iter().map(Contradiction::to_text));
        parts.join("\n")
    }

    /// Returns TrojAI's two numbers for the model after. Utility replaces MMLU if MMLU is not
    /// given.
    pub(crate) fn trojai(&self) -> Option<TrojAi> {
        let after = |name: &str| {
            let measured = self.measures.iter().find(|comparison| comparison.name == name);
            measured.map(|comparison| comparison.after.value)
        };
        Some(TrojAi { mmlu: after("mmlu").or_else(|| after("utility"))?, asr: after("asr")? })
    }
}

/// The file `trojai.json`.
#[derive(Serialize)]
pub(crate) struct TrojAi {
    mmlu: f64,
    asr: f64,
}

impl ComparedEvaluation {
    fn of([was, is]: &[Evaluated; 2]) -> Self {
        Self {
            evaluation: was.report.evaluation,
            before: was.folder.clone(),
            after: is.folder.clone(),
            identity: was.report.identity.clone(),
        }
    }

    /// Formats the shared prompts and settings as a table, one line per part.
    fn to_text(&self) -> String {
        let head = vec![self.evaluation.to_string(), "asked of both models".to_owned()];
        let lines = self.identity.in_words();
        let lines = lines.into_iter().map(|(part, text)| vec![part.to_owned(), text]);
        markdown(std::iter::once(head).chain(lines).collect())
    }
}

impl Contradiction {
    fn to_text(&self) -> String {
        let Self { measure, by, outcomes } = self;
        let shown: Vec<&str> = outcomes.iter().take(SHOWN_IDS).map(String::as_str).collect();
        let more = if outcomes.len() > SHOWN_IDS { " and others" } else { "" };
        format!(
            "Model, prompts and decoding are the same, and {} outcomes of {measure} by {by} differ: {}{more}\n",
            outcomes.len(),
            shown.join(", ")
        )
    }
}

/// Returns the measures that both evaluations of each pair have.
fn measures_of_both(pairs: &[[Evaluated; 2]]) -> Vec<[Measure; 2]> {
    let of_pair = |[was, is]: &[Evaluated; 2]| -> Vec<[Measure; 2]> {
        let with_same = |measure: &Measure| {
            let same = |other: &&Measure| other.is_comparable_with(measure);
            Some([measure.clone(), is.measures.iter().find(same)?.clone()])
        };
        was.measures.iter().filter_map(with_same).collect()
    };
    pairs.iter().flat_map(of_pair).collect()
}

/// Returns the outcomes that differ although the model is the same and its decoding is
/// deterministic. Perplexities are left out because their last digits depend on the batch.
fn contradictions(pair: &[Evaluated; 2]) -> Vec<Contradiction> {
    let [was, is] = [&pair[0], &pair[1]].map(|evaluated| &evaluated.report.identity);
    if !was.is_deterministic() || !was.is_of_same_models(is) {
        return Vec::new();
    }
    let contradiction = |[before, after]: [Measure; 2]| {
        let outcomes = before.differing_outcomes(&after);
        let (measure, by) = (before.name, before.by);
        (!outcomes.is_empty()).then_some(Contradiction { measure, by, outcomes })
    };
    let measures = measures_of_both(std::slice::from_ref(pair)).into_iter();
    let measures = measures.filter(|[before, _]| before.statistic != Statistic::Perplexity);
    measures.filter_map(contradiction).collect()
}

/// Refuses a gate on a measure of an evaluation that is left out: leaving out the evaluation that
/// breaks a bound must not keep it.
fn no_bounded_measure_is_left_out(
    gate: &Gate,
    alone: &[Vec<Evaluated>; 2],
) -> Result<(), UserError> {
    for (alone, other) in alone.iter().zip(["after", "before"]) {
        for evaluated in alone {
            let bounded = evaluated.measures.iter().find(|measure| gate.bounds(&measure.name));
            if let Some(measure) = bounded {
                let what = format!(
                    "`{}` measures `{}`, which the gate bounds, and no evaluation {other} asks the same",
                    evaluated.folder.display(),
                    measure.name
                );
                let hint =
                    "make every evaluation on both models, or name the folders of those to compare";
                return Err(UserError::input(what, hint));
            }
        }
    }
    Ok(())
}

fn fidelity_of(measures: &[[Measure; 2]]) -> Option<Estimate> {
    let named = |name: &str| {
        let found = measures.iter().find(|[before, _]| before.name == name);
        found.map(|[before, after]| [before, after])
    };
    Some(fidelity(named("asr")?, named("utility")?))
}

/// Converts the error of a gate.
pub(crate) fn mistake(error: GateError) -> UserError {
    UserError::arguments(error.to_string(), error.hint())
}

fn table(compared: &[Comparison]) -> String {
    let head = ["measure", "by", "before", "after", "difference", "p", "effect", "n", "verdict"];
    let line = |c: &Comparison| {
        let unpaired = match c.n_unpaired {
            [0, 0] => String::new(),
            [before, after] => format!(" (+{before} before, +{after} after)"),
        };
        vec![
            c.name.clone(),
            c.by.clone(),
            number(c.statistic, c.before),
            number(c.statistic, c.after),
            number(c.statistic, c.difference),
            if c.p_value < 1e-4 { "< 0.0001".to_owned() } else { format!("{:.4}", c.p_value) },
            format!("{:.2}", c.effect_size),
            c.n_pairs.map_or_else(|| "not paired".to_owned(), |n| format!("{n}{unpaired}")),
            c.verdict.words().to_owned(),
        ]
    };
    let head = head.map(str::to_owned).to_vec();
    markdown(std::iter::once(head).chain(compared.iter().map(line)).collect())
}

fn number(statistic: Statistic, Estimate { value, low, high }: Estimate) -> String {
    match statistic {
        Statistic::Share => {
            let [value, low, high] = [value, low, high].map(|share| 100.0 * share);
            format!("{value:.1} % [{low:.1}, {high:.1}]")
        }
        _ => format!("{value:.3} [{low:.3}, {high:.3}]"),
    }
}

fn gate_table(checks: &[Check]) -> String {
    let head = ["bound", "by", "value, 95 % interval", "kept"].map(str::to_owned).to_vec();
    let line = |check: &Check| {
        let Estimate { value, low, high } = check.estimate;
        let kept = if check.kept { "yes" } else { "NO" };
        let value = format!("{value:.4} [{low:.4}, {high:.4}]");
        vec![check.bound.clone(), check.by.clone(), value, kept.to_owned()]
    };
    markdown(std::iter::once(head).chain(checks.iter().map(line)).collect())
}
