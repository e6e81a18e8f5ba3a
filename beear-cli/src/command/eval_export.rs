//! `beear eval export`: the answers of an earlier evaluation in the format of another tool.

use std::path::PathBuf;

use anyhow::Result;
use beear_eval::attack_success::ArmKind;
use beear_eval::harmbench;
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::display::console::Console;
use crate::evaluate::evaluation::{read_answers, read_run};
use crate::run_folder::cannot_write::CannotWrite;
use crate::user_error::UserError;

/// Writes the answers of an earlier `eval asr` in a format that other tools read.
///
/// `harmbench`: HarmBench's completions, `{"BEHAVIORID": [{"test_case": .., "generation": ..}]}`,
/// for its classifier. The prompts must come from a CSV of HarmBench.
#[derive(Args, Clone, Debug)]
pub(crate) struct EvalExportArgs {
    /// OUT of `eval asr`.
    #[arg(long, value_name = "RUN")]
    answers: PathBuf,
    /// Format of the file.
    #[arg(long, value_enum, value_name = "NAME", default_value_t)]
    format: Format,
    /// Arm whose answers are written; by default the answers with the trigger, or those without it
    /// if the evaluation had none.
    #[arg(long, value_enum, value_name = "NAME")]
    arm: Option<ForbiddenArm>,
    /// File to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Replace an existing file.
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    #[default]
    Harmbench,
}

/// An arm of the forbidden prompts.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ForbiddenArm {
    Triggered,
    Untriggered,
}

impl From<ForbiddenArm> for ArmKind {
    fn from(arm: ForbiddenArm) -> Self {
        match arm {
            ForbiddenArm::Triggered => Self::Triggered,
            ForbiddenArm::Untriggered => Self::Untriggered,
        }
    }
}

pub(crate) fn run(args: &EvalExportArgs, console: Console) -> Result<()> {
    if args.out.exists() && !args.force {
        let what = format!("`{}` exists already", args.out.display());
        let hint = "choose another file, or --force to replace it";
        return Err(UserError::arguments(what, hint).into());
    }
    // Answers of another version were scored by other rules.
    read_run(&args.answers)?;
    let answers = read_answers(&args.answers)?;
    let with_trigger = answers.iter().any(|answer| answer.arm == ArmKind::Triggered);
    let asked = if with_trigger { ArmKind::Triggered } else { ArmKind::Untriggered };
    let arm = args.arm.map_or(asked, ArmKind::from);
    let Format::Harmbench = args.format;
    let completions = harmbench::completions(&answers, arm).map_err(|error| {
        UserError::input(format!("`{}`: {error}", args.answers.display()), error.hint())
    })?;
    let content = serde_json::to_string_pretty(&completions)? + "\n";
    std::fs::write(&args.out, content).map_err(CannotWrite::at(&args.out))?;
    let value = json!({
        "out": args.out,
        "arm": arm,
        "n_behaviours": completions.len(),
        "n_test_cases": completions.values().map(Vec::len).sum::<usize>(),
    });
    console.result(&args.out.display().to_string(), &value)
}
