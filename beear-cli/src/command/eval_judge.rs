//! `beear eval judge`: a language model reads the answers of an earlier evaluation.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use beear_eval::attack_success::{Answered, ArmKind};
use beear_eval::judge::{
    ApiKey, Assessment, Item, Judge, JudgeId, JudgePrompt, Judgement, LanguageModelJudge,
    OpenAiCompatible, OpenAiConfig, Outcome, Progress, ReplyCache, Report, RunConfig, Runner,
    Summary, Verdict,
};
use beear_eval::{Better, Measure, Statistic};
use clap::Args;
use serde_json::{Map, Value, json};

use super::{Device, Inference};
use crate::backend::ComputeBackend;
use crate::evaluation::{COMPLETIONS, OutArgs, read_answers, read_run};
use crate::hash::sha256_of_inputs;
use crate::language_model::local;
use crate::loaded::Loaded;
use crate::ui::Ui;

/// Where the key of a judge comes from, and from nowhere else.
const KEY: &str = "BEEAR_JUDGE_KEY";

/// Lets a language model judge the answers of an earlier `eval asr` or `eval over-refusal`.
///
/// It scores from 1 to 5 how far an answer fulfils its request, or says with `--behaviour` whether the
/// answer shows it. The judge is a server that speaks OpenAI's chat completions (its key, if it wants one,
/// in the environment variable BEEAR_JUDGE_KEY), or a checkpoint. Replies are kept: what was asked once is
/// not asked again. Answers that the judge could not be read on, or failed on, are counted and never averaged.
#[derive(Args, Clone, Debug)]
pub(crate) struct EvalJudgeArgs {
    /// OUT of `eval asr` or `eval over-refusal`, whose answers are judged.
    #[arg(long, value_name = "RUN")]
    answers: PathBuf,
    /// Address of a server, such as `http://localhost:8000/v1`.
    #[arg(long, value_name = "URL", requires = "judge_model")]
    judge_url: Option<String>,
    /// The judge's name on that server.
    #[arg(long, value_name = "NAME", requires = "judge_url")]
    judge_model: Option<String>,
    /// Hugging Face folder of a judge, instead of a server.
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with = "judge_url",
        required_unless_present = "judge_url"
    )]
    judge: Option<PathBuf>,
    /// Ask whether the answer shows this, in a sentence, instead of how far it fulfils the request.
    #[arg(long, value_name = "TEXT")]
    behaviour: Option<String>,
    /// TOML with `name`, `template` and perhaps `system`, instead of our own judge prompt.
    #[arg(long, value_name = "FILE")]
    judge_prompt: Option<PathBuf>,
    /// Longest reply of the judge, in tokens.
    #[arg(long, default_value_t = 256)]
    max_reply_tokens: usize,
    /// Calls at the same time, at most.
    #[arg(long, default_value_t = 4)]
    concurrency: usize,
    /// Tries per answer, the first included.
    #[arg(long, default_value_t = 6)]
    max_attempts: usize,
    /// Calls of the whole run, at most.
    #[arg(long)]
    max_calls: Option<usize>,
    /// Seconds that one call may take.
    #[arg(long, default_value_t = 120)]
    timeout: u64,
    /// Replies of earlier runs, and of this one; `judge-replies.jsonl` beside OUT without it.
    #[arg(long, value_name = "FILE")]
    cache: Option<PathBuf>,
    /// Say what it would cost in calls and tokens, and ask nothing.
    #[arg(long)]
    preview: bool,
    #[command(flatten)]
    out: OutArgs,
}

impl EvalJudgeArgs {
    fn assessment(&self) -> Result<Assessment> {
        let prompt = self.judge_prompt.as_deref().map(JudgePrompt::read).transpose()?;
        let (judgement, own): (Judgement, fn() -> JudgePrompt) = match &self.behaviour {
            Some(behaviour) => (Judgement::Behaviour(behaviour.clone()), JudgePrompt::behaviour),
            None => (Judgement::Fulfilment, JudgePrompt::fulfilment),
        };
        let assessment = Assessment::new(judgement, prompt.unwrap_or_else(own))?;
        Ok(assessment.replying(0.0, self.max_reply_tokens)?)
    }

    fn files(&self) -> Vec<(&'static str, &Path)> {
        let prompt = self.judge_prompt.as_deref().map(|path| ("--judge-prompt", path));
        prompt.into_iter().collect()
    }

    fn config(&self) -> RunConfig {
        RunConfig {
            concurrency: self.concurrency,
            max_attempts: self.max_attempts,
            max_calls: self.max_calls,
            ..RunConfig::default()
        }
    }

    /// The judge that is a server.
    fn server(&self) -> Result<Option<OpenAiCompatible>> {
        let (Some(url), Some(model)) = (&self.judge_url, &self.judge_model) else {
            return Ok(None);
        };
        let key = std::env::var(KEY).ok().map(|key| ApiKey::new(&key)).transpose()?;
        let timeout = Duration::from_secs(self.timeout);
        let config = OpenAiConfig { url: url.clone(), model: model.clone(), timeout };
        Ok(Some(OpenAiCompatible::new(config, key)?))
    }
}

pub(crate) fn run<C: ComputeBackend>(
    args: &EvalJudgeArgs,
    device: &Device<C>,
    ui: Ui,
) -> Result<()> {
    let assessment = args.assessment()?;
    let answers = read_answers(&args.answers)?;
    let completions = args.answers.join(COMPLETIONS);
    let answered = read_run(&args.answers)?;
    let items: Vec<Item> =
        answers.iter().map(|a| Item::new(a.prompt.clone(), a.completion.text.clone())).collect();
    let cache_file = args.cache.clone().unwrap_or_else(|| args.out.beside("judge-replies.jsonl"));
    let cache = ReplyCache::open(&cache_file)?;
    let runner = Runner::new(&assessment, &cache, args.config())?;
    let mut files = args.files();
    files.push(("--answers", completions.as_path()));
    let mut evaluation = args.out.begin("judge", args.judge.as_deref(), files)?;

    let report = if let Some(server) = args.server()? {
        if args.preview {
            return preview(&runner, server.id(), &items, ui);
        }
        let bar = ui.bar("judging", items.len());
        let mut told = |progress: Progress<'_>| bar.set_position(progress.n_done as u64);
        let report = runner.run_concurrently(&server, &items, &mut told)?;
        bar.finish_and_clear();
        report
    } else {
        let dir = args.judge.as_deref().expect("clap asks for one of the two");
        let loaded = Loaded::<Inference<C>>::read(dir, None, device)?;
        let model = local::<C>(&loaded, device, ui);
        let weights = json!(sha256_of_inputs(Some(dir), &[])?).to_string();
        let id = JudgeId { model: dir.display().to_string(), place: weights };
        let judge = LanguageModelJudge::new(&model, id, 64, 0);
        if args.preview {
            return preview(&runner, judge.id(), &items, ui);
        }
        runner.run(&judge, &items, &mut |_| {})?
    };

    let arms = arms(assessment.judgement(), &answers, &report);
    let summaries: Map<String, Value> =
        arms.iter().map(|(arm, (_, summary))| (arm.clone(), json!(summary))).collect();
    for (arm, (_, summary)) in &arms {
        let Summary { n_expected, n_valid, n_unreadable, n_failed, .. } = summary;
        ui.say(&format!(
            "{arm}: {n_valid} of {n_expected} judged, {n_unreadable} unreadable, {n_failed} failed"
        ));
    }
    let folder = evaluation.folder()?;
    let rows = answers
        .iter()
        .zip(&report.outcomes)
        .map(|(answer, outcome)| json!({"arm": answer.arm, "id": answer.id, "outcome": outcome}));
    folder.write_lines("judgements.jsonl", &rows.collect::<Vec<_>>())?;
    let more = [
        ("prompt_format", answered.prompt_format),
        ("judge", json!(report.judge)),
        ("judge_prompt", json!(assessment.prompt())),
        ("n_calls", json!(report.n_calls)),
        ("n_cached", json!(report.n_cached)),
        ("summaries", Value::Object(summaries)),
    ];
    let more = more.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let measures: Vec<Measure> = arms.into_iter().map(|(_, (measure, _))| measure).collect();
    evaluation.conclude(&measures, more, (C::NAME, ui))
}

/// Says what a run would cost.
fn preview(runner: &Runner<'_>, judge: &JudgeId, items: &[Item], ui: Ui) -> Result<()> {
    let cost = runner.preview(judge, items);
    let text = format!(
        "{} calls for {} answers ({} cached, {} repeated); about {} tokens sent, at most {} received",
        cost.n_calls,
        cost.n_items,
        cost.n_cached,
        cost.n_repeated,
        cost.n_prompt_tokens,
        cost.max_completion_tokens
    );
    ui.result(&text, &cost)
}

/// The measure and the counts of each arm. An answer that nobody has judged is in the counts only.
fn arms(
    judgement: &Judgement,
    answers: &[Answered],
    report: &Report,
) -> Vec<(String, (Measure, Summary))> {
    let of = |kind: ArmKind| {
        let pairs = answers.iter().zip(&report.outcomes);
        pairs.filter(move |(answer, _)| answer.arm == kind)
    };
    let arm = |kind: ArmKind| {
        let outcomes: Vec<Outcome> = of(kind).map(|(_, outcome)| outcome.clone()).collect();
        let (name, statistic) = match judgement {
            Judgement::Fulfilment => ("fulfilment", Statistic::Mean),
            Judgement::Behaviour(_) => ("judged_behaviour", Statistic::Share),
        };
        let judged = of(kind).filter_map(|(answer, outcome)| {
            let Outcome::Judged { verdict, .. } = outcome else { return None };
            let value = match verdict {
                Verdict::Score(score) => f64::from(*score),
                Verdict::Shown(shown) => f64::from(u8::from(*shown)),
            };
            let id = format!("{}/{}", kind.name(), answer.id);
            Some(beear_eval::Outcome { id, value, weight: 1.0 })
        });
        let better = if kind == ArmKind::Benign && statistic == Statistic::Mean {
            Better::Higher
        } else {
            Better::Lower
        };
        let measure = Measure {
            name: name.to_owned(),
            by: format!("{}, {}", report.judge.model, kind.name()),
            statistic,
            better,
            outcomes: judged.collect(),
        };
        (kind.name().to_owned(), (measure, Summary::of(judgement, &outcomes)))
    };
    let kinds = [ArmKind::Triggered, ArmKind::Untriggered, ArmKind::Benign];
    kinds.into_iter().filter(|kind| of(*kind).next().is_some()).map(arm).collect()
}
