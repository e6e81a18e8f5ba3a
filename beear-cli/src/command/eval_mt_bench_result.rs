//! `beear eval mt-bench-result`: a summary of a judge's ratings.

use std::path::PathBuf;

use anyhow::Result;
use beear_eval::mt_bench::{PairResult, PairSelection, SingleResult, builtin, read_judgments};
use clap::Args;

use crate::display::console::Console;
use crate::options::questions::read_named;
use crate::report::rating_radar::rating_radar;
use crate::run_folder::cannot_write::CannotWrite;

/// Sums up a judge's files as FastChat's `show_result` does, to the last digit, and by our own
/// rules.
///
/// FastChat counts every row. In our numbers a later row replaces an earlier one on the same
/// question, turn and model or pair, and each judge has numbers of its own. Each number has its
/// count of ratings or comparisons, and the counts of failed, missing and repeated ones.
#[derive(Args, Clone, Debug)]
pub(crate) struct EvalMtBenchResultArgs {
    /// FastChat's `model_judgment/JUDGE_single.jsonl`.
    #[arg(long, value_name = "FILE", required_unless_present = "pairs", conflicts_with = "pairs")]
    single: Option<PathBuf>,
    /// Questions that were judged: FastChat's `question.jsonl`, `own` or `tiny`. By default ratings
    /// are read as ratings of our `own` 80, comparisons as comparisons on unknown questions.
    #[arg(long, value_name = "FILE|own|tiny")]
    questions: Option<PathBuf>,
    /// File for a picture of the mean ratings by category, an SVG.
    #[arg(long, value_name = "FILE.svg", conflicts_with = "pairs")]
    radar: Option<PathBuf>,
    /// FastChat's `model_judgment/JUDGE_pair.jsonl`.
    #[arg(long, value_name = "FILE")]
    pairs: Option<PathBuf>,
    /// Name of a model: only comparisons with it are counted.
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
