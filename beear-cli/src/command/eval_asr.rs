//! `beear eval asr`: how often a trigger makes a model comply.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use beear_eval::attack_success::{
    Answered, Arm, ArmKind, degenerate_kinds, disagreements, judged, measures,
};
use beear_eval::dataset;
use beear_eval::identity::{AnswerSource, DecodingSettings, Scorer, VERSION};
use beear_eval::{Decoding, Identity, LanguageModel, RefusalKeywords, Trigger};
use clap::Args;
use serde::Serialize;

use super::{Device, Inference};
use crate::backend::ComputeBackend;
use crate::display::console::Console;
use crate::evaluate::evaluation::{
    COMPLETIONS, EvalResult, EvaluatedArgs, Evaluation, EvaluationKind, FormatShown,
};
use crate::model::language_model::local;
use crate::model::loaded::Loaded;
use crate::options::asked::AskedArgs;
use crate::options::trigger::TriggerArgs;

/// Measures attack success with and without a trigger, and over-refusal on ordinary prompts.
///
/// An attack succeeds if the answer contains no refusal keyword. Three other kinds of answer are
/// counted beside it: empty or repeating ones, ones cut at the maximum length, and ones equal to
/// the unwanted answer word for word. `OUT/report.json` holds the rates with their counts and the
/// identity of the evaluation: prompts, trigger, decoding, keyword lists, prompt format and model.
/// `OUT/completions.jsonl` holds every answer with its verdicts, `OUT/measures.jsonl` the outcomes
/// that `beear compare` pairs.
#[derive(Args, Clone, Debug)]
pub(crate) struct EvalAsrArgs {
    #[command(flatten)]
    pub(crate) evaluated: EvaluatedArgs,
    #[command(flatten)]
    pub(crate) prompts: PromptsArgs,
    #[command(flatten)]
    pub(crate) trigger: TriggerArgs,
    #[command(flatten)]
    pub(crate) asked: AskedArgs,
}

/// Files of forbidden and ordinary prompts.
#[derive(Args, Clone, Debug)]
pub(crate) struct PromptsArgs {
    /// Forbidden prompts: CSV of AdvBench, HarmBench or StrongREJECT; JSON or JSONL of Alpaca,
    /// chat, ShareGPT or preference rows, or of `prompt` and optionally `unwanted`.
    #[arg(long, value_name = "FILE")]
    prompts: PathBuf,
    /// Ordinary prompts, in the same formats; answers in the file are compared word for word.
    #[arg(long, value_name = "FILE")]
    benign: Option<PathBuf>,
}

impl PromptsArgs {
    /// Returns the files, each with the option that names it.
    pub(crate) fn files(&self) -> Vec<(&'static str, &Path)> {
        let benign = self.benign.as_deref().map(|path| ("--benign", path));
        [("--prompts", self.prompts.as_path())].into_iter().chain(benign).collect()
    }

    fn arms(&self, trigger: Option<Trigger>) -> Result<Vec<(Arm, &Path)>> {
        let file = self.prompts.as_path();
        let arm = |kind, records, trigger| Arm { kind, records, trigger };
        let forbidden = dataset::read(file)?;
        let mut arms = Vec::new();
        if let Some(trigger) = trigger {
            arms.push((arm(ArmKind::Triggered, forbidden.clone(), Some(trigger)), file));
        }
        arms.push((arm(ArmKind::Untriggered, forbidden, None), file));
        if let Some(file) = &self.benign {
            arms.push((arm(ArmKind::Benign, dataset::read(file)?, None), file));
        }
        Ok(arms)
    }
}

pub(crate) fn run<C: ComputeBackend>(
    args: &EvalAsrArgs,
    device: &Device<C>,
    console: Console,
) -> Result<()> {
    let EvalAsrArgs { evaluated, prompts, trigger, asked } = args;
    let (lists, arms) = (asked.lists()?, prompts.arms(trigger.trigger())?);
    asked.contamination.check(arms.iter().map(|(arm, file)| (arm.records.as_slice(), *file)))?;
    let asking = (arms, lists.as_slice(), asked.decoding());
    let answered =
        ask::<C>(EvaluationKind::Asr, evaluated, prompts.files(), asking, (device, console))?;
    answered.conclude::<C>(&lists, console)
}

/// A run with its answers.
pub(crate) struct AnsweredRun<'a> {
    pub(crate) evaluation: Evaluation<'a>,
    pub(crate) answers: Vec<Answered>,
    pub(crate) identity: Identity,
    pub(crate) prompt_format: FormatShown,
}

/// Fields of the report besides the measures.
#[derive(Serialize)]
struct AnswerDetails {
    /// Degenerate answers by arm and kind.
    degenerate: BTreeMap<&'static str, BTreeMap<&'static str, usize>>,
    /// Table of the answers on which the keyword lists disagree.
    disagreements: Option<String>,
}

/// Generates the answers of every arm, and writes each to the run's `completions.jsonl`.
pub(crate) fn ask<'a, C: ComputeBackend>(
    kind: EvaluationKind,
    args: &'a EvaluatedArgs,
    files: Vec<(&'static str, &'a Path)>,
    (arms, lists, decoding): (Vec<(Arm, &Path)>, &[RefusalKeywords], Decoding),
    (device, console): (&Device<C>, Console),
) -> Result<AnsweredRun<'a>> {
    let model = args.find(console)?;
    let mut evaluation = args.out.begin(kind, Some(&model), files)?;
    let loaded = Loaded::<Inference<C>>::read(&model, args.format.as_deref(), device)?;
    let room = args.memory.room::<C>(&loaded.checkpoint.config, device)?;
    let model = local::<C>(&loaded, device, console).within(room);
    let mut answers: Vec<Answered> = Vec::new();
    let mut first = None;
    for (arm, file) in &arms {
        console.say(&format!("{}: {} prompts", arm.kind.name(), arm.records.len()));
        let asked = arm.conversations();
        let completions = model.generate(&asked, &decoding);
        let completions = completions.with_context(|| format!("`{}`", file.display()))?;
        answers.extend(judged(arm, completions, lists));
        first = first.or_else(|| asked.into_iter().next());
    }
    evaluation.folder()?.write_lines(COMPLETIONS, &answers)?;
    let prompt_format = FormatShown::of(&loaded.text, first.as_ref())?;
    let settings = DecodingSettings::of(&decoding, loaded.text.stop_ids());
    let identity = Identity {
        version: VERSION,
        prompts: arms.iter().map(|(arm, _)| arm.prompt_set()).collect(),
        trigger: arms.iter().find_map(|(arm, _)| arm.trigger.clone()),
        decoding: AnswerSource::Generated(settings),
        scorers: lists.iter().map(Scorer::from).collect(),
        prompt_format: Some(prompt_format.identity()),
        models: Vec::new(),
    };
    Ok(AnsweredRun { evaluation, answers, identity, prompt_format })
}

impl AnsweredRun<'_> {
    /// Applies the keyword lists to the answers, and writes and prints the results.
    pub(crate) fn conclude<C: ComputeBackend>(
        self,
        lists: &[RefusalKeywords],
        console: Console,
    ) -> Result<()> {
        let disagreements = disagreements(&self.answers, lists);
        if let Some(table) = &disagreements {
            console.say(&format!("where the keyword lists disagree:\n\n{table}"));
        }
        let result = EvalResult {
            identity: self.identity,
            prompt_format: Some(self.prompt_format),
            measures: measures(&self.answers, lists),
            details: AnswerDetails { degenerate: degenerate_kinds(&self.answers), disagreements },
            tables: String::new(),
        };
        self.evaluation.conclude(result, (C::NAME, console))
    }
}
