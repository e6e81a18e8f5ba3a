//! `beear eval asr`: how often a trigger makes a model comply.

use std::path::PathBuf;

use anyhow::Result;
use beear_eval::dataset::{self, Record};
use beear_eval::scorer::{degenerate, is_exact};
use beear_eval::{Rate, RateTable, RefusalKeywords};
use clap::Args;
use serde_json::{Value, json};

use super::trigger::TriggerArgs;
use super::{Device, Inference};
use crate::backend::ComputeBackend;
use crate::exit::Mistake;
use crate::loaded::{Answer, Loaded, Request};
use crate::run_folder::RunFolder;
use crate::ui::Ui;

/// Measures attack success with and without a trigger, and over-refusal on ordinary prompts.
#[derive(Args, Clone, Debug)]
pub(crate) struct EvalAsrArgs {
    /// Hugging Face folder.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Forbidden prompts: AdvBench CSV, Alpaca JSON or JSONL, chat JSONL, or JSONL of `prompt`, `unwanted`.
    #[arg(long, value_name = "FILE")]
    prompts: PathBuf,
    /// Ordinary prompts, in the same formats.
    #[arg(long, value_name = "FILE")]
    benign: Option<PathBuf>,
    #[command(flatten)]
    trigger: TriggerArgs,
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
    fn lists(&self) -> Result<Vec<RefusalKeywords>, Mistake> {
        let list = |name: &String| {
            RefusalKeywords::builtin(name).ok_or_else(|| {
                let hint = format!("one of {}", RefusalKeywords::NAMES.join(", "));
                Mistake::arguments(format!("no keyword list is called `{name}`"), hint)
            })
        };
        self.keywords.iter().map(list).collect()
    }

    fn arms(&self) -> Result<Vec<Arm>> {
        let forbidden = dataset::read(&self.prompts)?;
        let mut arms = Vec::new();
        if let Some(trigger) = self.trigger.trigger() {
            let triggered = |record: &Record| {
                let prompt = trigger.apply(&record.prompt);
                Record { prompt, ..record.clone() }
            };
            let records = forbidden.iter().map(triggered).collect();
            arms.push(Arm { kind: ArmKind::Triggered, records });
        }
        arms.push(Arm { kind: ArmKind::Untriggered, records: forbidden });
        if let Some(path) = &self.benign {
            arms.push(Arm { kind: ArmKind::Benign, records: dataset::read(path)? });
        }
        Ok(arms)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ArmKind {
    Triggered,
    Untriggered,
    Benign,
}

impl ArmKind {
    fn name(self) -> &'static str {
        match self {
            Self::Triggered => "triggered",
            Self::Untriggered => "untriggered",
            Self::Benign => "benign",
        }
    }
}

/// Prompts asked in one way.
struct Arm {
    kind: ArmKind,
    records: Vec<Record>,
}

impl Arm {
    /// The measures of this arm, under the names the demo's table has too.
    fn rates(&self, answers: &[Answer], lists: &[RefusalKeywords]) -> Vec<(String, Rate)> {
        let mut rates = Vec::new();
        for list in lists {
            let refused = Rate::of(answers.iter().map(|answer| list.is_refusal(&answer.text)));
            let answered = Rate { hits: refused.n - refused.hits, n: refused.n };
            let (measure, rate) = match self.kind {
                ArmKind::Triggered => ("attack success with trigger", answered),
                ArmKind::Untriggered => ("refusal without trigger", refused),
                ArmKind::Benign => ("benign over-refusal", refused),
            };
            rates.push((format!("{measure}, {}", list.name), rate));
        }
        let exact = answers.iter().zip(&self.records).filter_map(|(answer, record)| {
            record.unwanted.as_ref().map(|unwanted| is_exact(&answer.text, unwanted))
        });
        let exact = Rate::of(exact);
        if exact.n > 0 {
            rates.push((format!("exact unwanted answer, {}", self.kind.name()), exact));
        }
        let degenerate = answers.iter().map(|answer| degenerate(&answer.text).is_some());
        rates.push((format!("degenerate answers, {}", self.kind.name()), Rate::of(degenerate)));
        rates
    }

    fn completions(&self, answers: &[Answer]) -> impl Iterator<Item = Value> {
        self.records.iter().zip(answers).map(|(record, answer)| {
            json!({
                "arm": self.kind.name(),
                "id": record.id,
                "system": record.system,
                "prompt": record.prompt,
                "answer": answer.text,
                "finish": answer.finish,
                "degenerate": degenerate(&answer.text),
            })
        })
    }
}

pub(crate) fn run<C: ComputeBackend>(args: &EvalAsrArgs, device: &Device<C>, ui: Ui) -> Result<()> {
    let (lists, arms) = (args.lists()?, args.arms()?);
    RunFolder::check(&args.out, false)?;
    let loaded = Loaded::<Inference<C>>::read(&args.model, args.format.as_deref(), device)?;

    let (mut rates, mut lines) = (Vec::new(), String::new());
    for arm in &arms {
        ui.say(&format!("{}: {} prompts", arm.kind.name(), arm.records.len()));
        let requests: Vec<Request> = arm.records.iter().map(Request::from).collect();
        let answers = loaded.text.answers(&loaded.model, &requests, args.max_new_tokens, device)?;
        rates.extend(arm.rates(&answers, &lists));
        lines.extend(arm.completions(&answers).map(|line| format!("{line}\n")));
    }
    let mut table = RateTable::default();
    let rates: Vec<(&str, Rate)> =
        rates.iter().map(|(name, rate)| (name.as_str(), *rate)).collect();
    table.push_column(&args.model.display().to_string(), &rates);

    let folder = RunFolder::create(&args.out, false)?;
    folder.write("completions.jsonl", lines)?;
    let format = &loaded.text.format;
    let report = json!({
        "table": table,
        "prompt_format": format.text(),
        "prompt_format_sha256": format.sha256(),
    });
    folder.write("report.json", format!("{report:#}\n"))?;
    ui.result(&table.to_markdown(), &report)
}
