//! `beear eval perplexity`: the perplexity of given answers under a model.

use std::path::PathBuf;

use anyhow::{Context, Result};
use beear_eval::identity::{AnswerSource, VERSION};
use beear_eval::perplexity::{answers, perplexity, prompt_set};
use beear_eval::{Identity, LanguageModel, dataset};
use clap::Args;
use serde::Serialize;

use super::{Device, Inference};
use crate::backend::ComputeBackend;
use crate::defence::contamination::LeakGuardArgs;
use crate::display::console::Console;
use crate::evaluate::evaluation::{EvalResult, EvaluatedArgs, EvaluationKind, FormatShown};
use crate::model::language_model::local;
use crate::model::loaded::Loaded;
use crate::user_error::UserError;

/// Measures the perplexity of given answers, with equal weight for every token.
///
/// Every answer of a conversation follows all turns before it, in the model's prompt format, and
/// includes its end of sequence. The interval is over answers.
#[derive(Args, Clone, Debug)]
pub(crate) struct EvalPerplexityArgs {
    #[command(flatten)]
    evaluated: EvaluatedArgs,
    /// Prompts with answers: JSON or JSONL of Alpaca, chat, ShareGPT or preference rows, or of
    /// `prompt` and `answer`.
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    contamination: LeakGuardArgs,
}

/// Fields of the report besides the measure.
#[derive(Serialize)]
struct PerplexityDetails {
    n_tokens: usize,
    /// Rows without an answer.
    n_unanswered: usize,
}

pub(crate) fn run<C: ComputeBackend>(
    args: &EvalPerplexityArgs,
    device: &Device<C>,
    console: Console,
) -> Result<()> {
    let file = args.file.as_path();
    let records = dataset::read(file)?;
    args.contamination.check([(records.as_slice(), file)])?;
    let answers = answers(&records);
    if answers.is_empty() {
        let what = format!("`{}` has no answers", file.display());
        let hint = "an assistant's turn, `output`, `answer` or `chosen` gives one";
        return Err(UserError::input(what, hint).into());
    }
    let EvaluatedArgs { format, memory, out, .. } = &args.evaluated;
    let model = args.evaluated.find(console)?;
    let mut evaluation =
        out.begin(EvaluationKind::Perplexity, Some(&model), vec![("--file", file)])?;
    let loaded = Loaded::<Inference<C>>::read(&model, format.as_deref(), device)?;
    let room = memory.room::<C>(&loaded.checkpoint.config, device)?;
    let likelihoods = local::<C>(&loaded, device, console).within(room).log_likelihood(&answers);
    let likelihoods = likelihoods.with_context(|| format!("`{}`", file.display()))?;
    let measure = perplexity(&answers, &likelihoods);
    let n_tokens: usize = likelihoods.iter().map(|answer| answer.n_tokens).sum();
    let prompt_format = FormatShown::of(&loaded.text, answers.first())?;
    let identity = Identity {
        version: VERSION,
        prompts: vec![prompt_set(&answers)],
        trigger: None,
        decoding: AnswerSource::Given,
        scorers: Vec::new(),
        prompt_format: Some(prompt_format.identity()),
        models: Vec::new(),
    };
    let result = EvalResult {
        identity,
        prompt_format: Some(prompt_format),
        measures: vec![measure],
        details: PerplexityDetails { n_tokens, n_unanswered: n_unanswered(&records) },
        tables: String::new(),
    };
    evaluation.folder()?;
    evaluation.conclude(result, (C::NAME, console))
}

/// Counts the rows without any answer, which have no perplexity.
fn n_unanswered(records: &[dataset::Record]) -> usize {
    let is_unanswered = |record: &&dataset::Record| {
        record.conversation().iter().all(|message| message.role != beear_eval::Role::Assistant)
    };
    records.iter().filter(is_unanswered).count()
}
