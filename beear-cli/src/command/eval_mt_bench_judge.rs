//! `beear eval mt-bench-judge`: a judge rates answers to questions of two turns, in FastChat's
//! files.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use beear_eval::identity::{JudgeIdentity, PromptSet, Scorer, VERSION, content_hash};
use beear_eval::judge::{ChatRequest, JudgeId, Reply};
use beear_eval::mt_bench::{
    Answers, Bench, Call, JudgePrompts, JudgedBy, Judgment, PairJudgment, PairResult,
    PairSelection, PendingJudgments, Question, SingleJudgment, SingleResult, all_pairs,
    mt_bench_measures, pair_measures, pairs_with_baseline, read_judgments, write_judgments,
};
use beear_eval::{Identity, Measure};
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::{Value, json};

use super::Device;
use crate::backend::ComputeBackend;
use crate::display::console::Console;
use crate::evaluate::evaluation::{EvalResult, Evaluation, EvaluationKind, FormatShown, OutArgs};
use crate::evaluate::judging_counts::JudgingCounts;
use crate::evaluate::mt_bench_files::{AnswerFiles, MODEL_JUDGMENT, file_stem};
use crate::options::judge_args::{ChosenJudge, Inquiry, JudgeArgs};
use crate::options::questions::QuestionsArgs;
use crate::report::rating_radar::rating_radar;
use crate::run_folder::cannot_write::CannotWrite;
use crate::user_error::UserError;

/// Lets a language model judge the answers of `eval mt-bench`, or of FastChat.
///
/// The judge rates each answer, or compares the answers of two models in both orders.
/// `OUT/model_judgment/JUDGE_single.jsonl` or `JUDGE_pair.jsonl` is FastChat's file of its
/// verdicts, a row per question, turn and model or pair. An interrupted run resumes with the same
/// command: rows with a readable reply are kept, all others are requested again. `OUT/radar.svg`
/// shows the ratings by category. The key of a server is read from the environment variable
/// BEEAR_JUDGE_KEY.
#[derive(Args, Clone, Debug)]
pub(crate) struct EvalMtBenchJudgeArgs {
    /// OUT of `eval mt-bench`, or FastChat's `model_answer/NAME.jsonl`; repeated for several.
    #[arg(long, value_name = "PATH", required = true)]
    answers: Vec<PathBuf>,
    #[command(flatten)]
    questions: QuestionsArgs,
    /// FastChat's `reference_answer/NAME.jsonl`; by default the references of the questions `own`,
    /// or those in the question file.
    #[arg(long, value_name = "FILE")]
    references: Option<PathBuf>,
    /// FastChat's `judge_prompts.jsonl`, instead of the built-in prompts.
    #[arg(long, value_name = "FILE")]
    judge_prompts: Option<PathBuf>,
    /// Task of the judge.
    #[arg(long, value_enum, default_value_t = Mode::Single)]
    mode: Mode,
    /// Name of the model that all others are compared with.
    #[arg(long, value_name = "MODEL", required_if_eq("mode", "pairwise-baseline"))]
    baseline: Option<String>,
    #[command(flatten)]
    judge: JudgeArgs,
    /// Maximum length of a judge's reply, in tokens.
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..))]
    max_reply_tokens: u32,
    #[command(flatten)]
    out: OutArgs,
}

/// The task of a judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    /// Rates every answer from 1 to 10.
    Single,
    /// Compares every model with the baseline.
    PairwiseBaseline,
    /// Compares every model with every other.
    PairwiseAll,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::PairwiseBaseline => "pairwise-baseline",
            Self::PairwiseAll => "pairwise-all",
        }
    }
}

/// The questions and answers to judge, with their references and the judge's prompts.
struct Material {
    questions: Vec<Question>,
    answered: AnswerFiles,
    references: Answers,
    prompts: JudgePrompts,
}

/// The summary of a judge's rows.
struct SummedUp {
    text: String,
    value: Value,
    measures: Vec<Measure>,
    radar: Option<String>,
}

/// Fields of the report besides the measures.
#[derive(Serialize)]
struct MtBenchJudgeDetails {
    judge: JudgeId,
    mode: Mode,
    baseline: Option<String>,
    models: Vec<String>,
    /// File of the judge's verdicts, in the folder of the run.
    judgments: String,
    counts: JudgingCounts,
    n_calls: usize,
    n_cached: usize,
    result: Value,
}

impl EvalMtBenchJudgeArgs {
    fn material(&self) -> Result<Material> {
        let prompts = self.judge_prompts.as_deref();
        Ok(Material {
            questions: self.questions.read()?,
            answered: AnswerFiles::read(&self.answers)?,
            references: self.questions.references(self.references.as_deref())?,
            prompts: prompts.map_or_else(|| Ok(JudgePrompts::builtin()), JudgePrompts::read)?,
        })
    }

    fn files<'a>(&'a self, answered: &'a AnswerFiles) -> Vec<(&'static str, &'a Path)> {
        let answers = answered.files.iter().map(|file| ("--answers", file.as_path()));
        let references = self.references.as_deref().map(|file| ("--references", file));
        let prompts = self.judge_prompts.as_deref().map(|file| ("--judge-prompts", file));
        let questions = self.questions.files().into_iter();
        answers.chain(questions).chain(references).chain(prompts).collect()
    }

    /// Returns all calls to the judge, finished ones included.
    fn calls(&self, material: &Material) -> Result<Vec<Call>> {
        let Material { questions, answered, references, prompts } = material;
        let AnswerFiles { models, answers, .. } = answered;
        let bench = Bench { questions, answers, references, prompts };
        let pairs = match (self.mode, &self.baseline) {
            (Mode::PairwiseBaseline, Some(baseline)) => pairs_with_baseline(models, baseline),
            (Mode::PairwiseAll, None) => all_pairs(models),
            (Mode::Single, None) => return Ok(bench.single_calls(models)?),
            (Mode::PairwiseAll | Mode::Single, Some(_)) | (Mode::PairwiseBaseline, None) => {
                let what = "--baseline goes with --mode pairwise-baseline alone";
                return Err(UserError::arguments(what, "leave it out, or choose that mode").into());
            }
        };
        if pairs.is_empty() {
            let what = "there are no two models to compare";
            return Err(UserError::arguments(what, "name --answers of another model").into());
        }
        Ok(bench.pair_calls(&pairs)?)
    }

    /// Returns the identity of the evaluation by `judge`.
    fn identity(&self, material: &Material, judge: &ChosenJudge) -> Identity {
        let Material { questions, answered, references, prompts } = material;
        let prompts: Vec<_> = prompts.iter().collect();
        let scorer = JudgeIdentity {
            model: judge.name.clone(),
            checkpoint: judge.checkpoint_hash(),
            prompt: format!("MT-Bench, {}", self.mode.name()),
            prompt_sha256: content_hash(&(prompts, self.mode, &self.baseline)),
            temperature: 0.0,
            max_tokens: self.max_reply_tokens as usize,
        };
        let references: Vec<_> = references.values().map(|answer| &answer.choices).collect();
        Identity {
            version: VERSION,
            prompts: vec![
                PromptSet::of("questions", questions),
                PromptSet::of("references", references),
            ],
            trigger: None,
            decoding: answered.decoding.clone(),
            scorers: vec![Scorer::Judge(scorer)],
            prompt_format: answered.prompt_format.as_ref().map(FormatShown::identity),
            models: answered.identities.clone(),
        }
    }

    /// Returns the settings that a later run must share to resume this one.
    fn settings(&self, material: &Material, judge: &ChosenJudge) -> Value {
        json!({
            "judge": judge.id,
            "mode": self.mode,
            "baseline": self.baseline,
            "models": material.answered.models,
            "questions": material.questions,
            "references": material.references.values().collect::<Vec<_>>(),
            "judge_prompts": material.prompts.iter().collect::<Vec<_>>(),
            "max_reply_tokens": self.max_reply_tokens,
        })
    }
}

pub(crate) fn run<C: ComputeBackend>(
    args: &EvalMtBenchJudgeArgs,
    device: &Device<C>,
    console: Console,
) -> Result<()> {
    let material = args.material()?;
    match args.mode {
        Mode::Single => judge_rows::<C, _>(args, &material, sum_up_ratings, (device, console)),
        Mode::PairwiseBaseline | Mode::PairwiseAll => {
            let sum_up = |rows: &[PairJudgment], material: &Material| {
                Ok(sum_up_comparisons(rows, material, args.baseline.as_deref()))
            };
            judge_rows::<C, _>(args, &material, sum_up, (device, console))
        }
    }
}

/// Requests every missing row, and writes all rows with their summary.
fn judge_rows<C: ComputeBackend, R: Judgment>(
    args: &EvalMtBenchJudgeArgs,
    material: &Material,
    sum_up: impl Fn(&[R], &Material) -> Result<SummedUp>,
    (device, console): (&Device<C>, Console),
) -> Result<()> {
    let calls = args.calls(material)?;
    let judge = args.judge.choose(console)?;
    let file = format!("{}_{}.jsonl", file_stem(&judge.name), R::KIND);
    let earlier = args.out.earlier(&format!("{MODEL_JUDGMENT}/{file}"));
    let earlier: Vec<R> = earlier.map_or_else(|| Ok(Vec::new()), |path| read_judgments(&path))?;
    let docket = PendingJudgments::new(&calls, &earlier, &judge.name);
    let open = docket.open();
    let max_tokens = args.max_reply_tokens as usize;
    let requests: Vec<ChatRequest> = open.iter().map(|call| call.request(max_tokens)).collect();
    // A preview writes nothing, so it has no folder.
    let begin = || {
        let files = args.files(&material.answered);
        let settings = args.settings(material, &judge);
        args.out.resume(EvaluationKind::MtBenchJudge, judge.checkpoint(), files, &settings)
    };
    let evaluation = (!args.judge.preview).then(begin).transpose()?;
    let is_good = |index: usize, reply: &Reply| open[index].output_format.is_read(&reply.text);
    let cache = args.out.beside("judge-replies.jsonl");
    let inquiry = Inquiry { requests: &requests, is_good: &is_good, cache };
    let asked = args.judge.ask::<C>(&judge, inquiry, (device, console))?;
    let (Some((id, asking)), Some(mut evaluation)) = (asked, evaluation) else { return Ok(()) };

    let counts = JudgingCounts::of(calls.len(), &open, &asking.outcomes);
    console.say(&counts.to_text());
    let replies: Vec<Option<&str>> = asking.outcomes.iter().map(|asked| asked.text()).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let by = JudgedBy { model: &judge.name, tstamp: now.as_secs_f64() };
    let rows = docket.rows(&replies, by);
    write_rows(&mut evaluation, &file, &rows)?;
    let SummedUp { text, value, measures, radar } = sum_up(&rows, material)?;
    if let Some(radar) = radar {
        evaluation.folder()?.write("radar.svg", radar)?;
    }
    let judged_something = counts.judged_something();
    let details = MtBenchJudgeDetails {
        judge: id,
        mode: args.mode,
        baseline: args.baseline.clone(),
        models: material.answered.models.clone(),
        judgments: format!("{MODEL_JUDGMENT}/{file}"),
        counts,
        n_calls: asking.n_calls,
        n_cached: asking.n_cached,
        result: value,
    };
    let identity = args.identity(material, &judge);
    let prompt_format = material.answered.prompt_format.clone();
    let tables = text + "\n";
    let result = EvalResult { identity, prompt_format, measures, details, tables };
    evaluation.conclude(result, (C::NAME, console))?;
    judged_something
}

/// Writes a judge's file. The old file is replaced only by a complete new one.
fn write_rows<R: Judgment>(evaluation: &mut Evaluation<'_>, file: &str, rows: &[R]) -> Result<()> {
    let folder = evaluation.folder()?.path(MODEL_JUDGMENT);
    std::fs::create_dir_all(&folder).map_err(CannotWrite::at(&folder))?;
    Ok(write_judgments(&folder.join(file), rows)?)
}

fn sum_up_ratings(rows: &[SingleJudgment], material: &Material) -> Result<SummedUp> {
    let result = SingleResult::of(rows, &material.questions);
    let models = &material.answered.models;
    let of_model = |model: &String| {
        let named = |measure: Measure| match models.len() {
            // Two runs of one model each can then be compared.
            1 => measure,
            _ => Measure { by: format!("{}, {model}", measure.by), ..measure },
        };
        mt_bench_measures(rows, model, &material.questions)
            .into_iter()
            .map(named)
            .collect::<Vec<_>>()
    };
    Ok(SummedUp {
        text: result.to_markdown(),
        value: json!(result),
        measures: models.iter().flat_map(of_model).collect(),
        radar: Some(rating_radar(&result)?),
    })
}

fn sum_up_comparisons(
    rows: &[PairJudgment],
    material: &Material,
    baseline: Option<&str>,
) -> SummedUp {
    let selection = PairSelection { baseline, models: None, questions: Some(&material.questions) };
    let result = PairResult::of(rows, selection);
    let measures = pair_measures(rows, &material.questions);
    SummedUp { text: result.to_markdown(), value: json!(result), measures, radar: None }
}
