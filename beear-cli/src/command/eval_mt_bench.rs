//! `beear eval mt-bench`: answers to questions of two turns, in FastChat's files.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use beear_eval::Conversation;
use beear_eval::mt_bench::{
    AnswerConfig, append_answer, generate_answers, resume_answers, rule_measure,
};
use clap::Args;
use serde_json::{Map, json};

use super::questions::QuestionsArgs;
use super::{Device, Inference};
use crate::backend::ComputeBackend;
use crate::evaluation::{EvaluatedArgs, prompt_format};
use crate::language_model::local;
use crate::loaded::Loaded;
use crate::model::Model;
use crate::mt_bench_files::{MODEL_ANSWER, file_stem};
use crate::ui::Ui;

/// Answers two-turn questions as MT-Bench does, in files that FastChat reads.
///
/// `OUT/model_answer/NAME.jsonl` has the answers: the second turn sees the model's own first, the category
/// sets the temperature. Where a question brings rules (`checks`), the share of turns that keep them is
/// measured. The same command goes on where it was cut off. A judge's ratings are summed up by `beear eval
/// mt-bench-result`.
#[derive(Args, Clone, Debug)]
pub(crate) struct EvalMtBenchArgs {
    #[command(flatten)]
    evaluated: EvaluatedArgs,
    #[command(flatten)]
    questions: QuestionsArgs,
    /// The model's name in the files; that of its folder or repository without it.
    #[arg(long, value_name = "NAME")]
    model_id: Option<String>,
    /// Answers to each question; a judge sees the first.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    choices: u32,
    /// Longest answer to a turn, in tokens.
    #[arg(long, default_value_t = 1024)]
    max_new_tokens: usize,
}

/// Questions asked at once.
const BATCH_SIZE: usize = 16;

impl EvalMtBenchArgs {
    fn model_id(&self, model: &Model) -> String {
        self.model_id.clone().unwrap_or_else(|| model.name())
    }
}

pub(crate) fn run<C: ComputeBackend>(
    args: &EvalMtBenchArgs,
    device: &Device<C>,
    ui: Ui,
) -> Result<()> {
    let questions = args.questions.read()?;
    let EvaluatedArgs { format, out, .. } = &args.evaluated;
    let suspect = args.evaluated.find(ui)?;
    let model_id = args.model_id(&suspect);
    let loaded = Loaded::<Inference<C>>::read(&suspect, format.as_deref(), device)?;
    let asked = json!({
        "model": suspect,
        "model_id": model_id,
        "prompt_format_sha256": loaded.text.format.sha256(),
        "questions": questions,
        "choices": args.choices,
        "max_new_tokens": args.max_new_tokens,
    });
    let mut evaluation = out.resume("mt-bench", Some(&suspect), args.questions.files(), &asked)?;
    let answer_folder = evaluation.folder()?.path(MODEL_ANSWER);
    std::fs::create_dir_all(&answer_folder)
        .with_context(|| format!("creating `{}`", answer_folder.display()))?;
    let file = answer_folder.join(format!("{}.jsonl", file_stem(&model_id)));
    let mut answers = resume_answers(&file)?;

    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let config = AnswerConfig {
        model_id,
        n_choices: args.choices as usize,
        max_new_tokens: args.max_new_tokens,
        batch_size: BATCH_SIZE,
        tstamp: now.as_secs_f64(),
    };
    let known = answers.clone();
    let room = args.evaluated.memory.room::<C>(&loaded.checkpoint.config, device)?;
    let model = local::<C>(&loaded, device, ui).within(room);
    let n_asked = generate_answers(&model, &questions, &known, &config, &mut |answer| {
        append_answer(&file, &answer)?;
        answers.insert(answer.question_id.clone(), answer);
        Ok(())
    })?;
    ui.say(&format!("answered {n_asked} of {} questions now", questions.len()));

    let first = questions.first().map(|q| Conversation::question(0, None, &q.turns[0]));
    let mut more = Map::new();
    more.insert("prompt_format".to_owned(), prompt_format(&loaded.text, first.as_ref())?);
    more.insert("answers".to_owned(), json!(file));
    more.insert("n_questions".to_owned(), json!(questions.len()));
    more.insert("n_answered".to_owned(), json!(answers.len()));
    let mut measures = vec![rule_measure(&questions, &answers)];
    measures.retain(|measure| !measure.outcomes.is_empty());
    evaluation.conclude(&measures, more, (C::NAME, ui))
}
