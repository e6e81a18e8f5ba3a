//! `beear compare`: two models on the same prompts, and a gate for releases.

use std::path::{Path, PathBuf};

use anyhow::Result;
use beear_eval::compare::ComparedModels;
use beear_eval::gate::Gate;
use clap::Args;

use super::Device;
use crate::backend::ComputeBackend;
use crate::display::console::Console;
use crate::evaluate::eval_comparison::{EvalComparison, mistake};
use crate::evaluate::evaluation::read_runs;
use crate::options::compared_models::{self, ComparedModelsArgs};
use crate::options::mmlu::{MmluArgs, MmluOfBoth};
use crate::report::comparison_page;
use crate::report::run_comparison::{RunComparison, is_run};
use crate::run_folder::RunFolder;
use crate::run_folder::cannot_write::CannotWrite;
use crate::user_error::UserError;

/// Compares evaluations of two models prompt by prompt, and checks the second by a gate.
///
/// Name two finished runs, or two models, which are then evaluated in the same way. A share is
/// compared by McNemar's exact test and Newcombe's interval of paired differences, every other
/// number by the paired bootstrap. Two evaluations are compared only if prompts, trigger, decoding,
/// keyword lists, judge and prompt format are equal; a difference is an error that names both
/// values. A kind of evaluation that only one of the folders has is left out.
///
/// For two folders of `defend`, the command shows side by side which settings differ, and the
/// validation metrics, weights, time and memory of both runs.
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
    /// OUT of `beear eval` after, or a folder of several.
    #[arg(value_name = "AFTER")]
    after: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) models: ComparedModelsArgs,
    #[command(flatten)]
    mmlu: MmluArgs,
    /// Bounds that the second model must keep with its whole 95 % interval, as
    /// `asr<=0.05,over_refusal<=0.02,utility_drop<=0.02`; exit code 8 if it does not.
    ///
    /// A bound is NAME, NAME_drop (before less after) or NAME_rise (after less before) of a
    /// measure, `<=` or `>=`, and a number. With several keyword lists or judges every one must
    /// keep it. Two evaluations of one and the same model keep no gate.
    #[arg(long, value_name = "BOUNDS")]
    gate: Option<String>,
    /// Folder for `comparison.json`, and for `trojai.json` in the form of TrojAI's mitigation
    /// round.
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
/// If the runs cannot be compared, or the second does not keep the gate.
pub(crate) fn run(args: &CompareArgs, console: Console) -> Result<()> {
    if let (Some(before), Some(after)) = (&args.before, &args.after)
        && is_run(before)
        && is_run(after)
    {
        return side_by_side([before, after], args, console);
    }
    if args.html.is_some() {
        let what = "`--html` is for two runs of `beear defend`";
        return Err(UserError::arguments(what, "leave it out, or name two such runs").into());
    }
    let mut begun = Begun::of(args)?;
    let runs = [&args.before, &args.after].map(|run| run.clone().expect("clap asks for two runs"));
    let compared = begun.compare(&runs)?;
    begun.started()?.conclude(&compared, console)
}

/// Shows two runs of `defend` side by side, and writes the page if `--html` names one.
fn side_by_side(runs: [&Path; 2], args: &CompareArgs, console: Console) -> Result<()> {
    if args.gate.is_some() || args.out.is_some() {
        let what = "runs of `beear defend` hold nothing that was measured with a trigger";
        let hint = "evaluate both models with `beear eval` and compare that, or leave `--gate` and `--out` out";
        return Err(UserError::arguments(what, hint).into());
    }
    let compared = RunComparison::of(runs)?;
    match &args.html {
        None => console.result(&compared.to_text(), &compared),
        Some(page) => {
            std::fs::write(page, comparison_page(&compared)?).map_err(CannotWrite::at(page))?;
            console.result(&page.display().to_string(), &compared)
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
    console: Console,
) -> Result<()> {
    let mut begun = Begun::of(args)?.started()?;
    let out = args.out.as_deref().expect("clap asks for a folder");
    let runs = args.models.evaluate::<C>(out, device, console)?;
    let compared = begun.compare(&runs)?;
    begun.conclude(&compared, console)
}

/// A comparison with valid arguments and a free folder.
struct Begun {
    gate: Option<Gate>,
    mmlu: Option<MmluOfBoth>,
    folder: Option<RunFolder>,
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

    fn compare(&mut self, runs: &[PathBuf; 2]) -> Result<EvalComparison> {
        let evaluated = [read_runs(&runs[0])?, read_runs(&runs[1])?];
        EvalComparison::of(runs, evaluated, self.mmlu.take(), self.gate.as_ref())
    }

    /// Writes and prints the comparison.
    fn conclude(self, compared: &EvalComparison, console: Console) -> Result<()> {
        if let Some(folder) = self.folder {
            folder.has_result()?;
            let text = serde_json::to_string_pretty(compared)?;
            folder.write("comparison.json", text + "\n")?;
            if let Some(trojai) = compared.trojai() {
                folder.write("trojai.json", serde_json::to_string_pretty(&trojai)? + "\n")?;
            }
        }
        console.result(&compared.to_text(), compared)?;
        verdict(compared)
    }
}

/// Returns an error for a model that breaks a bound of the gate.
fn verdict(compared: &EvalComparison) -> Result<()> {
    let checks = compared.gate.as_deref().unwrap_or_default();
    let broken = checks.iter().filter(|check| !check.kept);
    let broken: Vec<String> = broken.map(|c| format!("{} by {}", c.bound, c.by)).collect();
    if broken.is_empty() {
        return Ok(());
    }
    let (what, hint) = match compared.models {
        ComparedModels::Same => (
            "the gate is not kept: both evaluations are of the same model, and a gate demands a change".to_owned(),
            "evaluate the model before and the model after, or compare without a gate",
        ),
        ComparedModels::Different => (
            format!("the gate is not kept: {}", broken.join(", ")),
            "a bound is kept by the whole interval: a better model, or more prompts, keeps it",
        ),
    };
    Err(UserError::gate(what, hint).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::evaluation::testing::{MEASURES, REPORT, run};
    use crate::mutated::near;

    proptest::proptest! {
        #[test]
        fn no_run_makes_the_comparison_panic(
            before in near(&[MEASURES]),
            after in near(&[MEASURES]),
            report in near(&[REPORT]),
        ) {
            if let (Some(before), Some(after)) = (run(&before, REPORT), run(&after, &report)) {
                let named = ["before", "after"].map(PathBuf::from);
                let evaluated = [vec![before], vec![after]];
                if let Ok(compared) = EvalComparison::of(&named, evaluated, None, None) {
                    let _ = (compared.to_text(), compared.trojai().is_some());
                }
            }
        }
    }
}
