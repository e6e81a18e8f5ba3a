//! `beear eval mt-bench-result`: what a judge's ratings amount to.

use std::path::PathBuf;

use anyhow::Result;
use beear_eval::mt_bench::{PairResult, PairSelection, SingleResult, builtin, read_judgments};
use clap::Args;

use crate::display::console::Console;
use crate::options::questions::read_named;
use crate::report::rating_radar::rating_radar;
use crate::run_folder::cannot_write::CannotWrite;

/// Sums up a judge's files as FastChat's `show_result` does, to the last digit, and as we do.
///
/// FastChat counts every row. In our numbers a later row replaces an earlier one that judges the same, and
/// each judge has its own. Beside each stands on how many ratings or comparisons it rests, and how many
/// failed, are missing or occur twice.
#[derive(Args, Clone, Debug)]
pub(crate) struct EvalMtBenchResultArgs {
    /// FastChat's `model_judgment/JUDGE_single.jsonl`.
    #[arg(long, value_name = "FILE", required_unless_present = "pairs", conflicts_with = "pairs")]
    single: Option<PathBuf>,
    /// FastChat's `question.jsonl`, `own` or `tiny`: what was judged. Ratings are taken to be of our `own` 80
    /// without it, comparisons of unknown ones.
    #[arg(long, value_name = "FILE|own|tiny")]
    questions: Option<PathBuf>,
    /// Draw the mean ratings of every category, an SVG.
    #[arg(long, value_name = "FILE.svg", conflicts_with = "pairs")]
    radar: Option<PathBuf>,
    /// FastChat's `model_judgment/JUDGE_pair.jsonl`.
    #[arg(long, value_name = "FILE")]
    pairs: Option<PathBuf>,
    /// Only comparisons with this model.
    #[arg(long, value_name = "NAME", requires = "pairs")]
    baseline: Option<String>,
}

pub(crate) fn run(args: &EvalMtBenchResultArgs, console: Console) -> Result<()> {
    let questions = args.questions.as_deref().map(read_named).transpose()?;
    if let Some(file) = &args.pairs {
        let baseline = args.baseline.as_deref();
        let selection = PairSelection { baseline, models: None, questions: questions.as_deref() };
        let result = PairResult::of(&read_judgments(file)?, selection);
        return console.result(&result.to_markdown(), &result);
    }
    let Some(file) = &args.single else { unreachable!("clap asks for one of the two") };
    let questions = questions.unwrap_or_else(builtin);
    let result = SingleResult::of(&read_judgments(file)?, &questions);
    if let Some(path) = &args.radar {
        std::fs::write(path, rating_radar(&result)?).map_err(CannotWrite::at(path))?;
    }
    console.result(&result.to_markdown(), &result)
}
