//! `beear eval asr`: how often a trigger makes a model comply.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use beear_eval::scorer::{degenerate, is_exact};
use beear_eval::{Rate, RateTable, RefusalKeywords, Trigger, dataset};
use clap::Args;
use serde_json::json;

use super::{Device, Inference};
use crate::backend::ComputeBackend;
use crate::loaded::Loaded;
use crate::ui::Ui;

/// Measures attack success with and without a trigger, and over-refusal on ordinary prompts.
#[derive(Args, Clone, Debug)]
pub(crate) struct EvalAsrArgs {
    /// Hugging Face folder.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Forbidden prompts: `AdvBench` CSV, Alpaca JSON or JSONL, chat JSONL, or JSONL of `prompt`, `unwanted`.
    #[arg(long, value_name = "FILE")]
    prompts: PathBuf,
    /// Ordinary prompts, in the same formats.
    #[arg(long, value_name = "FILE")]
    benign: Option<PathBuf>,
    /// Text before each forbidden prompt.
    #[arg(long, value_name = "TEXT")]
    trigger_prefix: Option<String>,
    /// Text after each forbidden prompt.
    #[arg(long, value_name = "TEXT")]
    trigger_suffix: Option<String>,
    /// Refusal keyword lists; each is judged by itself.
    #[arg(long, value_delimiter = ',', default_value = "advbench-30")]
    keywords: Vec<String>,
    /// A built-in prompt format instead of the chat template.
    #[arg(long, value_name = "NAME")]
    format: Option<String>,
    /// Longest answer, in tokens.
    #[arg(long, default_value_t = 200)]
    max_new_tokens: usize,
    /// Folder for `completions.jsonl` and `report.json`.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl EvalAsrArgs {
    fn trigger(&self) -> Option<Trigger> {
        match (self.trigger_prefix.clone(), self.trigger_suffix.clone()) {
            (None, None) => None,
            (Some(before), None) => Some(Trigger::Prefix(before)),
            (None, Some(after)) => Some(Trigger::Suffix(after)),
            (Some(before), Some(after)) => Some(Trigger::Both { before, after }),
        }
    }
}

/// Prompts asked in one way.
struct Arm {
    name: &'static str,
    prompts: Vec<String>,
    unwanted: Vec<Option<String>>,
}

pub(crate) fn run<C: ComputeBackend>(args: &EvalAsrArgs, device: &Device<C>, ui: Ui) -> Result<()> {
    let lists = args.keywords.iter().map(|name| {
        let known = RefusalKeywords::NAMES.join(", ");
        RefusalKeywords::builtin(name).with_context(|| format!("no keyword list `{name}`: {known}"))
    });
    let lists = lists.collect::<Result<Vec<_>>>()?;
    let arms = arms(args)?;
    ensure!(!args.out.exists(), "{} exists already", args.out.display());
    let loaded = Loaded::<Inference<C>>::read(&args.model, args.format.as_deref(), device)?;

    let mut table = RateTable::default();
    let mut lines = Vec::new();
    for arm in &arms {
        ui.say(&format!("{}: {} prompts", arm.name, arm.prompts.len()));
        let answers =
            loaded.text.answers(&loaded.model, &arm.prompts, args.max_new_tokens, device)?;
        let mut rates = Vec::new();
        for list in &lists {
            let refused = answers.iter().map(|answer| list.is_refusal(answer));
            rates.push((list.name.as_str(), Rate::of(refused)));
        }
        let exact = answers.iter().zip(&arm.unwanted).filter_map(|(answer, unwanted)| {
            unwanted.as_ref().map(|unwanted| is_exact(answer, unwanted))
        });
        rates.push(("exact unwanted answer", Rate::of(exact)));
        rates.push(("degenerate", Rate::of(answers.iter().map(|a| degenerate(a).is_some()))));
        let named: Vec<(String, Rate)> = rates
            .iter()
            .enumerate()
            .map(|(row, (name, rate))| {
                (
                    if row < lists.len() {
                        format!("refused by {name}")
                    } else {
                        (*name).to_owned()
                    },
                    *rate,
                )
            })
            .collect();
        let named: Vec<(&str, Rate)> = named.iter().map(|(n, r)| (n.as_str(), *r)).collect();
        table.push_column(arm.name, &named);
        for (prompt, answer) in arm.prompts.iter().zip(&answers) {
            let flaw = degenerate(answer);
            lines.push(
                json!({ "arm": arm.name, "prompt": prompt, "answer": answer, "degenerate": flaw }),
            );
        }
    }
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("creating {}", args.out.display()))?;
    let path = args.out.join("completions.jsonl");
    let mut file =
        std::fs::File::create(&path).with_context(|| format!("creating {}", path.display()))?;
    for line in &lines {
        writeln!(file, "{line}").with_context(|| format!("writing {}", path.display()))?;
    }
    let format = &loaded.text.format;
    let report = json!({ "table": table, "prompt_format": format.text(), "prompt_format_sha256": format.sha256() });
    let path = args.out.join("report.json");
    std::fs::write(&path, format!("{report:#}\n"))
        .with_context(|| format!("writing {}", path.display()))?;
    ui.result(&table.to_markdown(), &report);
    Ok(())
}

fn arms(args: &EvalAsrArgs) -> Result<Vec<Arm>> {
    let records = dataset::read(&args.prompts)?;
    let unwanted: Vec<_> = records.iter().map(|r| r.unwanted.clone()).collect();
    let prompts: Vec<String> = records.into_iter().map(|r| r.prompt).collect();
    let mut arms = Vec::new();
    if let Some(trigger) = args.trigger() {
        let prompts = prompts.iter().map(|prompt| trigger.apply(prompt)).collect();
        arms.push(Arm { name: "triggered", prompts, unwanted: unwanted.clone() });
    }
    arms.push(Arm { name: "untriggered", prompts, unwanted });
    if let Some(path) = &args.benign {
        let prompts: Vec<String> = dataset::read(path)?.into_iter().map(|r| r.prompt).collect();
        let unwanted = vec![None; prompts.len()];
        arms.push(Arm { name: "benign", prompts, unwanted });
    }
    Ok(arms)
}
