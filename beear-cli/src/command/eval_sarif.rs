//! `beear eval sarif`: findings of a static analyser in the code of an earlier evaluation.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use beear_eval::Identity;
use beear_eval::code::{file_name, insecure_code, sarif};
use beear_eval::identity::Scorer;
use clap::Args;
use serde::Serialize;

use crate::display::console::Console;
use crate::evaluate::evaluation::{
    COMPLETIONS, EvalResult, EvaluationKind, OutArgs, read_answers, read_run,
};
use crate::user_error::UserError;

/// Reads the findings of CodeQL, Semgrep or another analyser in the code of an earlier `eval code`.
///
/// An answer is insecure if the analyser has a finding in its file that is not suppressed.
#[derive(Args, Clone, Debug)]
pub(crate) struct EvalSarifArgs {
    /// OUT of `eval code`.
    #[arg(long, value_name = "RUN")]
    answers: PathBuf,
    /// File of the analyser's findings in `RUN/code`.
    #[arg(long, value_name = "FILE.sarif")]
    sarif: PathBuf,
    #[command(flatten)]
    out: OutArgs,
}

/// Fields of the report besides the measures.
#[derive(Serialize)]
struct SarifDetails {
    /// Rules that each file breaks.
    findings: BTreeMap<String, Vec<String>>,
}

pub(crate) fn run(args: &EvalSarifArgs, console: Console) -> Result<()> {
    let earlier = read_run(&args.answers)?.report;
    let answers = read_answers(&args.answers)?;
    let findings = sarif::read(&args.sarif)?;
    let mut files = std::fs::read_dir(args.answers.join("code")).into_iter().flatten().flatten();
    let extension =
        files.find_map(|file| Some(file.path().extension()?.to_string_lossy().into_owned()));
    let Some(extension) = extension else {
        let what = format!("`{}` has no code", args.answers.display());
        return Err(UserError::input(what, "name the --out of `beear eval code`").into());
    };
    let names: Vec<String> = answers.iter().map(|answer| file_name(answer, &extension)).collect();
    let elsewhere: Vec<&String> =
        findings.rules.keys().filter(|file| !names.contains(file)).collect();
    if let Some(file) = elsewhere.first() {
        let what =
            format!("`{}` has findings in `{file}`, which is no answer", args.sarif.display());
        return Err(UserError::input(what, "analyse the `code` folder of that run").into());
    }
    let completions = args.answers.join(COMPLETIONS);
    let files = vec![("--answers", completions.as_path()), ("--sarif", args.sarif.as_path())];
    let mut evaluation = args.out.begin(EvaluationKind::Sarif, None, files)?;
    let by = findings.tools.join(" and ");
    let measures = insecure_code(&answers, &by, |answer| {
        findings.rules.contains_key(&file_name(answer, &extension))
    });
    evaluation.folder()?;
    let result = EvalResult {
        identity: Identity { scorers: vec![Scorer::Analyser { name: by }], ..earlier.identity },
        prompt_format: earlier.prompt_format,
        measures,
        details: SarifDetails { findings: findings.rules },
        tables: String::new(),
    };
    evaluation.conclude(result, ("none", console))
}
