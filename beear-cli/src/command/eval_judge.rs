//! `beear eval judge`: a language model scores the answers of an earlier evaluation.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use beear_eval::attack_success::{Answered, ArmKind};
use beear_eval::identity::{JudgeIdentity, Scorer, content_hash};
use beear_eval::judge::{
    Assessment, CallError, ChatRequest, Item, JudgeId, JudgePrompt, Judgement, Outcome, Report,
    Summary, Verdict,
};
use beear_eval::{Better, Identity, Measure, Statistic};
use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::Device;
use crate::backend::ComputeBackend;
use crate::display::console::Console;
use crate::evaluate::evaluation::{
    COMPLETIONS, EvalResult, EvaluationKind, OutArgs, read_answers, read_run,
};
use crate::options::judge_args::{ChosenJudge, Inquiry, JudgeArgs, judged_something};

/// Lets a language model judge the answers of an earlier `eval asr` or `eval over-refusal`.
///
/// The judge scores from 1 to 5 how far an answer fulfils its request, or says with `--behaviour`
/// whether the answer shows that behaviour. The judge is a server that speaks OpenAI's chat
/// completions (with its key, if it requires one, in the environment variable BEEAR_JUDGE_KEY), or
/// a model folder. Replies are cached, and no request is sent twice. Answers with an unreadable
/// reply or a failed call are counted and never averaged.
#[derive(Args, Clone, Debug)]
pub(crate) struct EvalJudgeArgs {
    /// OUT of `eval asr` or `eval over-refusal` with the answers to judge.
    #[arg(long, value_name = "RUN")]
    answers: PathBuf,
    #[command(flatten)]
    judge: JudgeArgs,
    /// Behaviour to look for in the answers, as a sentence, instead of scoring how far they fulfil
    /// the request.
    #[arg(long, value_name = "TEXT")]
    behaviour: Option<String>,
    /// TOML with `name`, `template` and optionally `system`, instead of the built-in judge prompt.
    #[arg(long, value_name = "FILE")]
    judge_prompt: Option<PathBuf>,
    /// Maximum length of a judge's reply, in tokens.
    #[arg(long, default_value_t = 256)]
    max_reply_tokens: usize,
    #[command(flatten)]
    out: OutArgs,
}

/// Temperature of the judge's replies.
const TEMPERATURE: f64 = 0.0;

/// Fields of the report besides the measures.
#[derive(Serialize)]
struct JudgeDetails {
    judge: JudgeId,
    judge_prompt: JudgePrompt,
    n_calls: usize,
    n_cached: usize,
    /// Replies by arm.
    summaries: BTreeMap<String, Summary>,
}

impl EvalJudgeArgs {
    fn assessment(&self) -> Result<Assessment> {
        let prompt = self.judge_prompt.as_deref().map(JudgePrompt::read).transpose()?;
        let (judgement, own): (Judgement, fn() -> JudgePrompt) = match &self.behaviour {
            Some(behaviour) => (Judgement::Behaviour(behaviour.clone()), JudgePrompt::behaviour),
            None => (Judgement::Fulfilment, JudgePrompt::fulfilment),
        };
        let assessment = Assessment::new(judgement, prompt.unwrap_or_else(own))?;
        Ok(assessment.replying(TEMPERATURE, self.max_reply_tokens)?)
    }

    /// Returns the judge's part in the identity of the evaluation.
    fn judge_identity(&self, judge: &ChosenJudge, assessment: &Assessment) -> JudgeIdentity {
        let asked = (assessment.prompt(), assessment.judgement());
        JudgeIdentity {
            model: judge.name.clone(),
            checkpoint: judge.checkpoint_hash(),
            prompt: assessment.prompt().name.clone(),
            prompt_sha256: content_hash(&asked),
            temperature: TEMPERATURE,
            max_tokens: self.max_reply_tokens,
        }
    }

    fn files(&self) -> Vec<(&'static str, &Path)> {
        let prompt = self.judge_prompt.as_deref().map(|path| ("--judge-prompt", path));
        prompt.into_iter().collect()
    }
}

pub(crate) fn run<C: ComputeBackend>(
    args: &EvalJudgeArgs,
    device: &Device<C>,
    console: Console,
) -> Result<()> {
    let assessment = args.assessment()?;
    let answered = read_run(&args.answers)?.report;
    let answers = read_answers(&args.answers)?;
    let completions = args.answers.join(COMPLETIONS);
    let request =
        |a: &Answered| assessment.request(&Item::new(a.prompt.clone(), a.completion.text.clone()));
    let requests: Vec<ChatRequest> = answers.iter().map(request).collect();
    let mut files = args.files();
    files.push(("--answers", completions.as_path()));
    let judge = args.judge.choose(console)?;
    let mut evaluation = args.out.begin(EvaluationKind::Judge, judge.checkpoint(), files)?;
    let cache = args.out.beside("judge-replies.jsonl");
    // An unreadable reply is not requested again: at temperature 0 the judge most likely repeats
    // it.
    let inquiry = Inquiry { requests: &requests, is_good: &|_, _| true, cache };
    let Some((id, asking)) = args.judge.ask::<C>(&judge, inquiry, (device, console))? else {
        return Ok(());
    };
    let report = Report::of(&assessment, &id, &asking);

    let arms = arms(assessment.judgement(), &answers, &report);
    say_counts(&arms, &report, console);
    let n_judged = arms.iter().map(|(_, (_, summary))| summary.n_valid).sum::<usize>();
    let folder = evaluation.folder()?;
    let rows = answers
        .iter()
        .zip(&report.outcomes)
        .map(|(answer, outcome)| json!({"arm": answer.arm, "id": answer.id, "outcome": outcome}));
    folder.write_lines("judgements.jsonl", &rows.collect::<Vec<_>>())?;
    let (mut measures, mut summaries) = (Vec::new(), BTreeMap::new());
    for (arm, (measure, summary)) in arms {
        measures.push(measure);
        summaries.insert(arm, summary);
    }
    let n_expected = report.outcomes.len();
    let scorer = Scorer::Judge(args.judge_identity(&judge, &assessment));
    let result = EvalResult {
        identity: Identity { scorers: vec![scorer], ..answered.identity },
        prompt_format: answered.prompt_format,
        measures,
        details: JudgeDetails {
            judge: report.judge,
            judge_prompt: assessment.prompt().clone(),
            n_calls: report.n_calls,
            n_cached: report.n_cached,
            summaries,
        },
        tables: String::new(),
    };
    evaluation.conclude(result, (C::NAME, console))?;
    judged_something(n_judged, n_expected)
}

/// Prints how many answers of each arm were judged.
fn say_counts(arms: &[(String, (Measure, Summary))], report: &Report, console: Console) {
    for (arm, (_, summary)) in arms {
        let Summary { n_expected, n_valid, n_unreadable, n_failed, .. } = summary;
        console.say(&format!(
            "{arm}: {n_valid} of {n_expected} judged, {n_unreadable} unreadable, {n_failed} failed"
        ));
    }
    if let Some(error) = report.outcomes.iter().find_map(failure) {
        console.say(&format!("the first that failed: {error}"));
    }
}

fn failure(outcome: &Outcome) -> Option<&CallError> {
    if let Outcome::Failed { error, .. } = outcome { Some(error) } else { None }
}

/// Returns the measure and the counts of each arm. An answer without a verdict is in the counts
/// only.
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
            Some(beear_eval::Outcome { id: answer.outcome_id(), value, weight: 1.0 })
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
