//! `beear eval asr`: how often a trigger makes a model comply.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use beear_eval::attack_success::{
    Answered, Arm, ArmKind, degenerate_kinds, disagreements, judged, measures,
};
use beear_eval::dataset;
use beear_eval::{Decoding, LanguageModel, RefusalKeywords};
use clap::Args;
use serde_json::{Map, json};

use super::trigger::TriggerArgs;
use super::{Device, Inference};
use crate::backend::ComputeBackend;
use crate::evaluation::{EvaluatedArgs, prompt_format};
use crate::keyword_list::KeywordArgs;
use crate::language_model::Local;
use crate::leak_guard::LeakGuardArgs;
use crate::loaded::Loaded;
use crate::ui::Ui;

/// Measures attack success with and without a trigger, and over-refusal on ordinary prompts.
///
/// An attack succeeds where the answer holds no refusal keyword; answers that are empty, cut or
/// repeating are counted beside it, and those that are the unwanted one word for word. `OUT/report.json`
/// holds the rates with their counts, `OUT/completions.jsonl` every answer with every judgement,
/// `OUT/measures.jsonl` what `beear compare` reads.
#[derive(Args, Clone, Debug)]
pub(crate) struct EvalAsrArgs {
    #[command(flatten)]
    evaluated: EvaluatedArgs,
    /// Forbidden prompts: CSV of AdvBench, HarmBench or StrongREJECT; JSON or JSONL of Alpaca,
    /// chat, ShareGPT or preference rows, or of `prompt` and perhaps `unwanted`.
    #[arg(long, value_name = "FILE")]
    prompts: PathBuf,
    /// Ordinary prompts, in the same formats; answers that they bring are compared word for word.
    #[arg(long, value_name = "FILE")]
    benign: Option<PathBuf>,
    #[command(flatten)]
    trigger: TriggerArgs,
    #[command(flatten)]
    keywords: KeywordArgs,
    #[command(flatten)]
    leak_guard: LeakGuardArgs,
    /// Longest answer, in tokens.
    #[arg(long, default_value_t = 200)]
    max_new_tokens: usize,
}

impl EvalAsrArgs {
    fn files(&self) -> Vec<(&'static str, &Path)> {
        let benign = self.benign.as_deref().map(|path| ("--benign", path));
        [("--prompts", self.prompts.as_path())].into_iter().chain(benign).collect()
    }

    fn arms(&self) -> Result<Vec<(Arm, &Path)>> {
        let file = self.prompts.as_path();
        let arm = |kind, records, trigger| Arm { kind, records, trigger };
        let forbidden = dataset::read(file)?;
        let mut arms = Vec::new();
        if let Some(trigger) = self.trigger.trigger() {
            arms.push((arm(ArmKind::Triggered, forbidden.clone(), Some(trigger)), file));
        }
        arms.push((arm(ArmKind::Untriggered, forbidden, None), file));
        if let Some(file) = &self.benign {
            arms.push((arm(ArmKind::Benign, dataset::read(file)?, None), file));
        }
        Ok(arms)
    }
}

pub(crate) fn run<C: ComputeBackend>(args: &EvalAsrArgs, device: &Device<C>, ui: Ui) -> Result<()> {
    let (lists, arms) = (args.keywords.lists()?, args.arms()?);
    args.leak_guard.check(arms.iter().map(|(arm, file)| (arm.records.as_slice(), *file)))?;
    let decoding = Decoding::greedy(args.max_new_tokens);
    answer_arms::<C>("asr", &args.evaluated, args.files(), (arms, &lists, decoding), (device, ui))
}

/// Asks every arm and concludes.
pub(super) fn answer_arms<C: ComputeBackend>(
    kind: &'static str,
    args: &EvaluatedArgs,
    files: Vec<(&'static str, &Path)>,
    (arms, lists, decoding): (Vec<(Arm, &Path)>, &[RefusalKeywords], Decoding),
    (device, ui): (&Device<C>, Ui),
) -> Result<()> {
    let mut evaluation = args.out.begin(kind, Some(&args.model), files)?;
    let loaded = Loaded::<Inference<C>>::read(&args.model, args.format.as_deref(), device)?;
    let model = Local { loaded: &loaded, device, ui };
    let mut answers: Vec<Answered> = Vec::new();
    let mut first = None;
    for (arm, file) in &arms {
        ui.say(&format!("{}: {} prompts", arm.kind.name(), arm.records.len()));
        let asked = arm.conversations();
        let completions = model.generate(&asked, &decoding);
        let completions = completions.with_context(|| format!("`{}`", file.display()))?;
        answers.extend(judged(arm, completions, lists));
        first = first.or_else(|| asked.into_iter().next());
    }
    evaluation.folder()?.write_lines("completions.jsonl", &answers)?;
    let disagreements = disagreements(&answers, lists);
    if let Some(table) = &disagreements {
        ui.say(&format!("where the keyword lists disagree:\n\n{table}"));
    }
    let mut more = Map::new();
    more.insert("prompt_format".to_owned(), prompt_format(&loaded.text, first.as_ref())?);
    more.insert("decoding".to_owned(), json!(decoding));
    more.insert("degenerate".to_owned(), json!(degenerate_kinds(&answers)));
    more.insert("disagreements".to_owned(), json!(disagreements));
    let measures = measures(&answers, lists);
    evaluation.conclude(&measures, more, (C::NAME, ui))
}
