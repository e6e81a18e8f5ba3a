//! `beear report`: the report of a run, as a page and as data.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::display::console::Console;
use crate::report::{Beside, FACTS, PAGE, write};
use crate::run_folder::RunFolder;

/// Writes the report of runs of `defend`: `RUN/report.html`, one file that loads nothing, and
/// `RUN/report.json`.
///
/// `defend` and `resume` write both themselves; this command writes them again, with later
/// measurements. Evaluations are matched to models by the hashes of their weights. Answers of
/// models are in collapsed parts only.
#[derive(Args, Clone, Debug)]
pub(crate) struct ReportArgs {
    /// Folders of the runs.
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// OUT of `beear eval` of the suspect or the cleaned model, or a folder of several; may be
    /// repeated. Evaluations in RUN/eval are always included.
    #[arg(long, value_name = "DIR")]
    eval: Vec<PathBuf>,
    /// OUT of `beear analyze drift`, with the pictures to show; may be repeated.
    #[arg(long, value_name = "DIR")]
    drift: Vec<PathBuf>,
    /// OUT of `beear sweep layers`, with the pictures to show; may be repeated.
    #[arg(long, value_name = "DIR")]
    sweep: Vec<PathBuf>,
}

pub(crate) fn run(args: &ReportArgs, console: Console) -> Result<()> {
    let beside = Beside {
        evaluations: args.eval.clone(),
        pictures: args.drift.iter().chain(&args.sweep).cloned().collect(),
    };
    for run in &args.runs {
        write(&RunFolder::reopen(run)?, &beside)?;
    }
    let pages: Vec<PathBuf> = args.runs.iter().map(|run| run.join(PAGE)).collect();
    let facts: Vec<PathBuf> = args.runs.iter().map(|run| run.join(FACTS)).collect();
    let lines: Vec<String> = pages.iter().map(|page| page.display().to_string()).collect();
    console.result(&lines.join("\n"), &json!({"pages": pages, "facts": facts}))
}
