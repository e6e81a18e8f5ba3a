//! `beear compare`: two models on the same prompts, and a gate for releases.

use std::path::{Path, PathBuf};

use anyhow::Result;
use beear_eval::compare::{Comparison, fidelity};
use beear_eval::gate::{Check, Gate, GateError};
use beear_eval::table::markdown;
use beear_eval::{Estimate, Measure, Statistic};
use clap::Args;
use serde_json::{Value, json};

use super::Device;
use super::compared_models::{self, ComparedModelsArgs};
use super::mmlu::{MmluArgs, MmluOfBoth};
use crate::backend::ComputeBackend;
use crate::evaluation::{Evaluated, read_runs};
use crate::exit::Mistake;
use crate::report::comparison_page;
use crate::run_comparison::{RunComparison, is_run};
use crate::run_folder::{CannotWrite, RunFolder};
use crate::ui::Ui;

/// Compares evaluations of two models prompt by prompt, and judges the second by a gate.
///
/// Name two finished runs, or two models, which are then evaluated in the same way. A share is compared by McNemar's exact test and Newcombe's interval of paired differences, every
/// other number by the paired bootstrap. What only one of the runs has is counted and left out. Runs with
/// different prompt formats are not compared.
///
/// Of two folders of `defend` it shows side by side which settings differ and what became of vitals, weights, time
/// and memory.
#[derive(Args, Clone, Debug)]
pub(crate) struct CompareArgs {
    /// OUT of `beear eval` before, or a folder of several.
    #[arg(
        value_name = "BEFORE",
        required_unless_present = "before_model",
        requires = "after",
        conflicts_with_all = compared_models::OPTIONS
    )]
    before: Option<PathBuf>,
    /// The same after.
    #[arg(value_name = "AFTER")]
    after: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) models: ComparedModelsArgs,
    #[command(flatten)]
    mmlu: MmluArgs,
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
    /// File for a page that shows two runs of `defend` side by side.
    #[arg(long, value_name = "FILE", requires = "before", conflicts_with_all = ["gate", "out"])]
    html: Option<PathBuf>,
}

/// Compares two runs.
///
/// # Errors
///
/// If they cannot be compared, or the second does not keep the gate.
pub(crate) fn run(args: &CompareArgs, ui: Ui) -> Result<()> {
    if let (Some(before), Some(after)) = (&args.before, &args.after)
        && is_run(before)
        && is_run(after)
    {
        return side_by_side([before, after], args, ui);
    }
    if args.html.is_some() {
        let what = "`--html` is for two runs of `beear defend`";
        return Err(Mistake::arguments(what, "leave it out, or name two such runs").into());
    }
    let begun = Begun::of(args)?;
    let runs = [&args.before, &args.after].map(|run| run.clone().expect("clap asks for two runs"));
    let compared = begun.compare(&runs)?;
    begun.started()?.conclude(&runs, &compared, ui)
}

/// Shows two runs of `defend`, on a page if there is to be one.
fn side_by_side(runs: [&Path; 2], args: &CompareArgs, ui: Ui) -> Result<()> {
    if args.gate.is_some() || args.out.is_some() {
        let what = "runs of `beear defend` hold nothing that was measured with a trigger";
        let hint = "evaluate both models with `beear eval` and compare that, or leave `--gate` and `--out` out";
        return Err(Mistake::arguments(what, hint).into());
    }
    let compared = RunComparison::of(runs)?;
    match &args.html {
        None => ui.result(&compared.to_text(), &compared),
        Some(page) => {
            std::fs::write(page, comparison_page(&compared)?).map_err(CannotWrite::at(page))?;
            ui.result(&page.display().to_string(), &compared)
        }
    }
}

/// Evaluates two models in the same way, and compares the runs.
///
/// # Errors
///
/// If the models cannot be evaluated, or the second does not keep the gate.
pub(crate) fn run_on_models<C: ComputeBackend>(
    args: &CompareArgs,
    device: &Device<C>,
    ui: Ui,
) -> Result<()> {
    let begun = Begun::of(args)?.started()?;
    let out = args.out.as_deref().expect("clap asks for a folder");
    let runs = args.models.evaluate::<C>(out, device, ui)?;
    let compared = begun.compare(&runs)?;
    begun.conclude(&runs, &compared, ui)
}

/// A comparison whose arguments make sense and whose folder is free.
struct Begun {
    gate: Option<Gate>,
    mmlu: Option<MmluOfBoth>,
    folder: Option<RunFolder>,
}

/// What became of two models.
struct Compared {
    measures: Vec<Comparison>,
    fidelity: Option<Estimate>,
    checks: Option<Vec<Check>>,
}

impl Begun {
    fn of(args: &CompareArgs) -> Result<Self> {
        let gate = args.gate.as_deref().map(Gate::parse).transpose().map_err(mistake)?;
        let mmlu = args.mmlu.read()?;
        let runs = [&args.before, &args.after].into_iter().flatten().map(PathBuf::as_path);
        let inputs = runs.chain(args.models.inputs()).chain(args.mmlu.inputs());
        let inputs: Vec<&Path> = inputs.collect();
        let folder = args.out.as_deref().map(|out| RunFolder::reserve(out, args.force, &inputs));
        Ok(Self { gate, mmlu, folder: folder.transpose()? })
    }

    fn started(mut self) -> Result<Self> {
        self.folder.as_mut().map(RunFolder::start).transpose()?;
        Ok(self)
    }

    fn compare(&self, [before, after]: &[PathBuf; 2]) -> Result<Compared> {
        let pairs = pairs(&read_runs(before)?, &read_runs(after)?)?;
        let measures = pairs.iter().map(|(before, after)| Comparison::of(before, after));
        let measures: Vec<_> =
            measures.chain(self.mmlu.as_ref().map(MmluOfBoth::comparison)).collect();
        let checks = self.gate.as_ref().map(|gate| gate.check(&measures));
        let checks = checks.transpose().map_err(mistake)?;
        Ok(Compared { measures, fidelity: fidelity_of(&pairs), checks })
    }

    /// Writes and prints what was found.
    fn conclude(self, [before, after]: &[PathBuf; 2], compared: &Compared, ui: Ui) -> Result<()> {
        let Compared { measures, fidelity, checks } = compared;
        let value = json!({
            "before": before,
            "after": after,
            "measures": measures,
            "mmlu": self.mmlu,
            "trojai_fidelity": fidelity,
            "gate": checks,
        });
        if let Some(folder) = self.folder {
            folder.has_result()?;
            folder.write("comparison.json", format!("{value:#}\n"))?;
            if let Some(trojai) = trojai(measures) {
                folder.write("trojai.json", format!("{trojai:#}\n"))?;
            }
        }
        let mmlu = self.mmlu.map(|mmlu| format!("\n{}", mmlu.to_text()));
        let fidelity = fidelity.map(|Estimate { value, low, high }| {
            format!("\nTrojAI fidelity: {value:.3} [{low:.3}, {high:.3}]\n")
        });
        let gate = checks.as_deref().map(|checks| format!("\n{}", gate_table(checks)));
        let more: String = [mmlu, fidelity, gate].into_iter().flatten().collect();
        ui.result(&(table(measures) + &more), &value)?;
        verdict(checks.as_deref().unwrap_or_default())
    }
}

/// The measures that both have, each with itself.
fn pairs(before: &[Evaluated], after: &[Evaluated]) -> Result<Vec<(Measure, Measure)>> {
    let mut pairs = Vec::new();
    for was in before {
        for is in after {
            let both = was.measures.iter().filter_map(|measure| {
                let same = |m: &&Measure| m.is_comparable_with(measure);
                Some((measure.clone(), is.measures.iter().find(same)?.clone()))
            });
            let both: Vec<_> = both.collect();
            if !both.is_empty() && was.prompt_format()["sha256"] != is.prompt_format()["sha256"] {
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

/// TrojAI's two numbers of the model after; where MMLU is not given, the utility stands for it.
fn trojai(compared: &[Comparison]) -> Option<Value> {
    let after = |name: &str| compared.iter().find(|c| c.name == name).map(|c| c.after.value);
    Some(json!({"mmlu": after("mmlu").or_else(|| after("utility"))?, "asr": after("asr")?}))
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

/// A model that breaks a bound must not pass.
fn verdict(checks: &[Check]) -> Result<()> {
    let broken = checks.iter().filter(|check| !check.kept);
    let broken: Vec<String> = broken.map(|c| format!("{} by {}", c.bound, c.by)).collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::testing::{MEASURES, REPORT, run};
    use crate::mutated::near;

    proptest::proptest! {
        #[test]
        fn no_run_makes_the_comparison_panic(before in near(&[MEASURES]), after in near(&[MEASURES])) {
            if let (Some(before), Some(after)) = (run(&before, REPORT), run(&after, REPORT)) {
                let pairs = pairs(&[before], &[after]).unwrap_or_default();
                let compared: Vec<_> = pairs.iter().map(|(b, a)| Comparison::of(b, a)).collect();
                let _ = (table(&compared), fidelity_of(&pairs), trojai(&compared));
            }
        }
    }
}
