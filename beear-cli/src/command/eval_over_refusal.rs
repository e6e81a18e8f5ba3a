//! `beear eval over-refusal`: how often a model refuses harmless prompts.

use std::path::PathBuf;

use anyhow::Result;
use beear_eval::attack_success::{Arm, ArmKind};
use beear_eval::dataset;
use clap::Args;

use super::Device;
use super::eval_asr::ask;
use crate::backend::ComputeBackend;
use crate::display::console::Console;
use crate::evaluate::evaluation::{EvaluatedArgs, EvaluationKind};
use crate::options::asked::AskedArgs;

/// Measures how often a model refuses ordinary prompts, and how often it answers them word for
/// word.
///
/// Use prompts that sound forbidden and are not (like XSTest's) to find a model that has become too
/// careful. `OUT` has the same files as after `eval asr`.
#[derive(Args, Clone, Debug)]
pub(crate) struct EvalOverRefusalArgs {
    #[command(flatten)]
    evaluated: EvaluatedArgs,
    /// Ordinary prompts: JSON or JSONL of Alpaca, chat, ShareGPT or preference rows, or of `prompt`
    /// and optionally `answer`.
    #[arg(long, value_name = "FILE")]
    prompts: PathBuf,
    #[command(flatten)]
    asked: AskedArgs,
}

pub(crate) fn run<C: ComputeBackend>(
    args: &EvalOverRefusalArgs,
    device: &Device<C>,
    console: Console,
) -> Result<()> {
    let file = args.prompts.as_path();
    let lists = args.asked.lists()?;
    let arm = Arm { kind: ArmKind::Benign, records: dataset::read(file)?, trigger: None };
    args.asked.contamination.check([(arm.records.as_slice(), file)])?;
    let asked = (vec![(arm, file)], lists.as_slice(), args.asked.decoding());
    let files = vec![("--prompts", file)];
    let kind = EvaluationKind::OverRefusal;
    ask::<C>(kind, &args.evaluated, files, asked, (device, console))?.conclude::<C>(&lists, console)
}
