//! `beear compare`: two models on the same prompts, and a gate for releases.

use std::path::PathBuf;

use anyhow::Result;
use beear_eval::compare::{Comparison, fidelity};
use beear_eval::gate::{Check, Gate, GateError};
use beear_eval::table::markdown;
use beear_eval::{Estimate, Measure, Statistic};
use clap::Args;
use serde_json::{Value, json};

use crate::evaluation::{Evaluated, read_runs};
use crate::exit::Mistake;
use crate::run_folder::RunFolder;
use crate::ui::Ui;

/// Compares evaluations of two models prompt by prompt, and judges the second by a gate.
///
/// A share is compared by McNemar's exact test and Newcombe's interval of paired differences, every
/// other number by the paired bootstrap. What only one of the runs has is counted and left out. Runs with
/// different prompt formats are not compared.
#[derive(Args, Clone, Debug)]
pub(crate) struct CompareArgs {
    /// OUT of `beear eval` before, or a folder of several.
    #[arg(value_name = "BEFORE")]
    before: PathBuf,
    /// The same after.
    #[arg(value_name = "AFTER")]
    after: PathBuf,
    /// Bounds that the second must keep with its whole 95 % interval, as
    /// `asr<=0.05,over_refusal<=0.02,utility_drop<=0.02`; exit code 8 if it does not.
    ///
    /// NAME, NAME_drop (before less after) or NAME_rise (after less before) of a measure, `<=` or `>=`,
    /// and a number. With several keyword lists or judges every one must keep it.
    #[arg(long, value_name = "BOUNDS")]
    gate: Option<String>,
    /// Folder for `comparison.json`, and `trojai.json` in the form of TrojAI's mitigation round.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replace an older run in that folder.
    #[arg(long, requires = "out")]
    force: bool,
}

pub(crate) fn run(args: &CompareArgs, ui: Ui) -> Result<()> {
    let gate = args.gate.as_deref().map(Gate::parse).transpose().map_err(mistake)?;
    let inputs = [args.before.as_path(), args.after.as_path()];
    let folder = args.out.as_deref().map(|out| RunFolder::reserve(out, args.force, &inputs));
    let folder = folder.transpose()?;
    let pairs = pairs(&read_runs(&args.before)?, &read_runs(&args.after)?)?;
    let compared: Vec<Comparison> = pairs.iter().map(|(b, a)| Comparison::of(b, a)).collect();
    let fidelity = fidelity_of(&pairs);
    let checks = gate.map(|gate| gate.check(&compared)).transpose().map_err(mistake)?;

    let value = json!({
        "before": args.before,
        "after": args.after,
        "measures": compared,
        "trojai_fidelity": fidelity,
        "gate": checks,
    });
    if let Some(mut folder) = folder {
        folder.start()?;
        folder.write("comparison.json", format!("{value:#}\n"))?;
        if let Some(trojai) = trojai(&compared) {
            folder.write("trojai.json", format!("{trojai:#}\n"))?;
        }
    }
    let fidelity = fidelity.map(|Estimate { value, low, high }| {
        format!("\nTrojAI fidelity: {value:.3} [{low:.3}, {high:.3}]\n")
    });
    let gate = checks.as_deref().map(|checks| format!("\n{}", gate_table(checks)));
    let text = table(&compared) + &fidelity.unwrap_or_default() + &gate.unwrap_or_default();
    ui.result(&text, &value)?;
    verdict(checks.as_deref().unwrap_or_default())
}

/// The measures that both have, each with itself.
fn pairs(before: &[Evaluated], after: &[Evaluated]) -> Result<Vec<(Measure, Measure)>> {
    let mut pairs = Vec::new();
    for was in before {
        for is in after {
            let both = was.measures.iter().filter_map(|measure| {
                let same = |m: &&Measure| m.name == measure.name && m.by == measure.by;
                Some((measure.clone(), is.measures.iter().find(same)?.clone()))
            });
            let both: Vec<_> = both.collect();
            if !both.is_empty() && was.prompt_format["sha256"] != is.prompt_format["sha256"] {
                let [was, is] = [&was.folder, &is.folder].map(|folder| folder.display());
                let what = format!("`{was}` and `{is}` have different prompt formats");
                let hint = "evaluate both models with one --format";
                return Err(Mistake::input(what, hint).into());
            }
            pairs.extend(both);
        }
    }
    if pairs.is_empty() {
        let what = "the two have no measure in common";
        return Err(Mistake::input(what, "run the same evaluation on both models").into());
    }
    Ok(pairs)
}

fn named<'a>(pairs: &'a [(Measure, Measure)], name: &str) -> Option<[&'a Measure; 2]> {
    pairs.iter().find(|(before, _)| before.name == name).map(|(before, after)| [before, after])
}

fn fidelity_of(pairs: &[(Measure, Measure)]) -> Option<Estimate> {
    Some(fidelity(named(pairs, "asr")?, named(pairs, "utility")?))
}

/// TrojAI's two numbers of the model after; ours for its `mmlu` is the utility.
fn trojai(compared: &[Comparison]) -> Option<Value> {
    let after = |name: &str| compared.iter().find(|c| c.name == name).map(|c| c.after.value);
    Some(json!({"mmlu": after("utility")?, "asr": after("asr")?}))
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
            format!("{}{unpaired}", c.n_pairs),
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

/// A model that breaks a bound must not pass.
fn verdict(checks: &[Check]) -> Result<()> {
    let broken: Vec<&str> =
        checks.iter().filter(|check| !check.kept).map(|check| check.bound.as_str()).collect();
    if broken.is_empty() {
        return Ok(());
    }
    let what = format!("the gate is not kept: {}", broken.join(", "));
    let hint = "a bound is kept by the whole interval: a better model, or more prompts, keeps it";
    Err(Mistake::gate(what, hint).into())
}

fn mistake(error: GateError) -> Mistake {
    Mistake::arguments(error.to_string(), error.hint())
}
