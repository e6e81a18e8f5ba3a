//! `beear eval mt-bench-result`: what a judge's ratings amount to.

use std::path::PathBuf;

use anyhow::Result;
use beear_eval::mt_bench::{
    PairResult, SingleResult, builtin, read_pairs, read_questions, read_single,
};
use clap::Args;

use crate::ui::Ui;

/// Sums up a judge's files as FastChat's `show_result` does, to the last digit.
///
/// Beside each average stands on how many ratings it rests, and how many failed, are missing or occur
/// twice, which `show_result` does not say.
#[derive(Args, Clone, Debug)]
pub(crate) struct EvalMtBenchResultArgs {
    /// FastChat's `model_judgment/JUDGE_single.jsonl`.
    #[arg(long, value_name = "FILE", required_unless_present = "pairs", conflicts_with = "pairs")]
    single: Option<PathBuf>,
    /// FastChat's `question.jsonl` to the ratings; our own 80 without it.
    #[arg(long, value_name = "FILE", conflicts_with = "pairs")]
    questions: Option<PathBuf>,
    /// FastChat's `model_judgment/JUDGE_pair.jsonl`.
    #[arg(long, value_name = "FILE")]
    pairs: Option<PathBuf>,
    /// Only comparisons with this model.
    #[arg(long, value_name = "NAME", requires = "pairs")]
    baseline: Option<String>,
}

pub(crate) fn run(args: &EvalMtBenchResultArgs, ui: Ui) -> Result<()> {
    if let Some(file) = &args.pairs {
        let result = PairResult::of(&read_pairs(file)?, args.baseline.as_deref(), None);
        return ui.result(&result.to_markdown(), &result);
    }
    let Some(file) = &args.single else { unreachable!("clap asks for one of the two") };
    let questions = args.questions.as_deref().map_or_else(|| Ok(builtin()), read_questions)?;
    let result = SingleResult::of(&read_single(file)?, &questions);
    ui.result(&result.to_markdown(), &result)
}
