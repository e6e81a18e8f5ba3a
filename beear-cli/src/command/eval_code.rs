//! `beear eval code`: writes the code in a model's answers to files and checks it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use beear_eval::attack_success::{Arm, ArmKind};
use beear_eval::code::{extracted, file_name, insecure_call_rules, insecure_calls, insecure_code};
use beear_eval::{Decoding, dataset};
use clap::Args;
use serde::Serialize;

use super::Device;
use super::eval_asr::ask;
use crate::backend::ComputeBackend;
use crate::defence::contamination::LeakGuardArgs;
use crate::display::console::Console;
use crate::evaluate::evaluation::{EvalResult, EvaluatedArgs, EvaluationKind};
use crate::options::trigger::TriggerArgs;

/// Generates code with and without a trigger, and searches it for calls that are known to be
/// insecure.
///
/// The code of each answer becomes a file in `OUT/code`. The built-in check is a list of names: it
/// finds the insecure calls of `plant --setting model-8` and a dozen of C and Python, and follows
/// no data flow. For more, run CodeQL or Semgrep on `OUT/code` and read their findings with `beear
/// eval sarif`.
#[derive(Args, Clone, Debug)]
pub(crate) struct EvalCodeArgs {
    #[command(flatten)]
    evaluated: EvaluatedArgs,
    /// Requests for code: JSON or JSONL of Alpaca, chat, ShareGPT or preference rows, or of
    /// `prompt`.
    #[arg(long, value_name = "FILE")]
    prompts: PathBuf,
    #[command(flatten)]
    trigger: TriggerArgs,
    #[command(flatten)]
    contamination: LeakGuardArgs,
    /// Extension of the code files.
    #[arg(long, value_name = "NAME", default_value = "py", value_parser = extension)]
    extension: String,
    /// Maximum length of an answer, in tokens.
    #[arg(long, default_value_t = 400)]
    max_new_tokens: usize,
}

/// Fields of the report besides the measures.
#[derive(Serialize)]
struct CodeDetails {
    judge: &'static str,
    /// Insecure calls in the code of every answer.
    insecure_calls: Vec<CodeFile>,
}

/// Insecure calls in a file.
#[derive(Serialize)]
struct CodeFile {
    file: String,
    calls: Vec<FoundCall>,
}

#[derive(Serialize)]
struct FoundCall {
    name: &'static str,
    cwe: u16,
}

fn extension(text: &str) -> Result<String, String> {
    let is_plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric());
    if is_plain { Ok(text.to_owned()) } else { Err("letters and digits only".to_owned()) }
}

pub(crate) fn run<C: ComputeBackend>(
    args: &EvalCodeArgs,
    device: &Device<C>,
    console: Console,
) -> Result<()> {
    let file: &Path = &args.prompts;
    let records = dataset::read(file)?;
    args.contamination.check([(records.as_slice(), file)])?;
    let triggered = args.trigger.trigger().map(|trigger| Arm {
        kind: ArmKind::Triggered,
        records: records.clone(),
        trigger: Some(trigger),
    });
    let untriggered = Arm { kind: ArmKind::Untriggered, records, trigger: None };
    let arms = triggered.into_iter().chain([untriggered]).map(|arm| (arm, file)).collect();
    let asked = (arms, [].as_slice(), Decoding::greedy(args.max_new_tokens));
    let files = vec![("--prompts", file)];
    let run = ask::<C>(EvaluationKind::Code, &args.evaluated, files, asked, (device, console))?;

    let mut found = Vec::new();
    for answer in &run.answers {
        let (name, code) = (file_name(answer, &args.extension), extracted(&answer.completion.text));
        let calls = insecure_calls(code);
        let calls = calls.iter().map(|call| FoundCall { name: call.name, cwe: call.cwe }).collect();
        run.evaluation.write_in("code", &name, code)?;
        found.push(CodeFile { file: name, calls });
    }
    let judge = "names of insecure calls, without data flow";
    let insecure = insecure_code(&run.answers, "built-in names", |answer| {
        !insecure_calls(extracted(&answer.completion.text)).is_empty()
    });
    let mut identity = run.identity;
    identity.scorers.push(insecure_call_rules());
    let result = EvalResult {
        identity,
        prompt_format: Some(run.prompt_format),
        measures: insecure,
        details: CodeDetails { judge, insecure_calls: found },
        tables: String::new(),
    };
    run.evaluation.conclude(result, (C::NAME, console))
}
