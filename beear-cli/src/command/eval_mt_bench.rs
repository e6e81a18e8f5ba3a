//! `beear eval mt-bench`: answers to questions of two turns, in FastChat's files.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use beear_eval::identity::{AnswerSource, DecodingSettings, PromptSet, VERSION};
use beear_eval::mt_bench::{
    AnswerConfig, Question, append_answer, generate_answers, resume_answers, rule_measure,
};
use beear_eval::{Conversation, Identity};
use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::{Device, Inference};
use crate::backend::ComputeBackend;
use crate::display::console::Console;
use crate::evaluate::evaluation::{EvalResult, EvaluatedArgs, EvaluationKind, FormatShown};
use crate::evaluate::mt_bench_files::{MODEL_ANSWER, file_stem};
use crate::model::Model;
use crate::model::language_model::local;
use crate::model::loaded::{Loaded, TextSide};
use crate::options::questions::QuestionsArgs;

/// Answers two-turn questions as MT-Bench does, in files that FastChat reads.
///
/// `OUT/model_answer/NAME.jsonl` holds the answers: the second turn sees the model's own first
/// answer, and the category sets the temperature. For questions with rules (`checks`), the share of
/// turns that keep them is measured. An interrupted run resumes with the same command. `beear eval
/// mt-bench-result` sums up a judge's ratings.
#[derive(Args, Clone, Debug)]
pub(crate) struct EvalMtBenchArgs {
    #[command(flatten)]
    evaluated: EvaluatedArgs,
    #[command(flatten)]
    questions: QuestionsArgs,
    /// Name of the model in the files; by default that of its folder or repository.
    #[arg(long, value_name = "NAME")]
    model_id: Option<String>,
    /// Number of answers to each question; a judge sees the first.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    choices: u32,
    /// Maximum length of an answer to a turn, in tokens.
    #[arg(long, default_value_t = 1024)]
    max_new_tokens: usize,
}

/// Fields of the report besides the measures.
#[derive(Serialize)]
struct MtBenchDetails {
    /// File of the answers.
    answers: PathBuf,
    n_questions: usize,
    n_answered: usize,
}

/// Questions in a batch.
const BATCH_SIZE: usize = 16;

impl EvalMtBenchArgs {
    fn model_id(&self, model: &Model) -> String {
        self.model_id.clone().unwrap_or_else(|| model.name())
    }

    /// Returns the identity of answers to `questions` in the format of `text`. The rules that check
    /// an answer are a part of its question.
    fn identity(&self, questions: &[Question], text: &TextSide, format: &FormatShown) -> Identity {
        let temperatures = questions.iter().map(Question::temperature).collect();
        let stop = text.stop_ids();
        let settings = DecodingSettings::at(temperatures, self.max_new_tokens, stop);
        let n_answers = self.choices as usize;
        Identity {
            version: VERSION,
            prompts: vec![PromptSet::of("questions", questions)],
            trigger: None,
            decoding: AnswerSource::Generated(DecodingSettings { n_answers, ..settings }),
            scorers: Vec::new(),
            prompt_format: Some(format.identity()),
            models: Vec::new(),
        }
    }
}

pub(crate) fn run<C: ComputeBackend>(
    args: &EvalMtBenchArgs,
    device: &Device<C>,
    console: Console,
) -> Result<()> {
    let questions = args.questions.read()?;
    let EvaluatedArgs { format, out, .. } = &args.evaluated;
    let suspect = args.evaluated.find(console)?;
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
    let (kind, files) = (EvaluationKind::MtBench, args.questions.files());
    let mut evaluation = out.resume(kind, Some(&suspect), files, &asked)?;
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
    let model = local::<C>(&loaded, device, console).within(room);
    let n_asked = generate_answers(&model, &questions, &known, &config, &mut |answer| {
        append_answer(&file, &answer)?;
        answers.insert(answer.question_id.clone(), answer);
        Ok(())
    })?;
    console.say(&format!("answered {n_asked} of {} questions now", questions.len()));

    let first = questions.first().map(|q| Conversation::question(0, None, &q.turns[0]));
    let prompt_format = FormatShown::of(&loaded.text, first.as_ref())?;
    let mut measures = vec![rule_measure(&questions, &answers)];
    measures.retain(|measure| !measure.outcomes.is_empty());
    let (n_questions, n_answered) = (questions.len(), answers.len());
    let result = EvalResult {
        identity: args.identity(&questions, &loaded.text, &prompt_format),
        prompt_format: Some(prompt_format),
        measures,
        details: MtBenchDetails { answers: file, n_questions, n_answered },
        tables: String::new(),
    };
    evaluation.conclude(result, (C::NAME, console))
}
