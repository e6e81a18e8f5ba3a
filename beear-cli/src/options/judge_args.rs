//! Options of every command that asks a judge, and how it is asked.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use beear_eval::identity::content_hash;
use beear_eval::judge::{
    ApiKey, AskProgress, Asking, ChatRequest, Cost, Judge, JudgeClient, JudgeId,
    LanguageModelJudge, OpenAiCompatible, OpenAiConfig, Reply, ReplyCache, RunConfig,
};
use clap::Args;
use serde_json::json;

use crate::backend::ComputeBackend;
use crate::command::{Device, Inference};
use crate::display::console::Console;
use crate::model::Model;
use crate::model::hub::Needed;
use crate::model::language_model::local;
use crate::model::loaded::Loaded;
use crate::run_folder::hash::sha256_of_inputs;
use crate::user_error::UserError;

/// Where the key of a judge comes from, and from nowhere else.
const KEY: &str = "BEEAR_JUDGE_KEY";

/// Requests that a checkpoint is asked at once.
const BATCH_SIZE: usize = 64;

/// Who judges, and how it is asked.
#[derive(Args, Clone, Debug)]
pub(crate) struct JudgeArgs {
    /// Address of a server, such as `http://localhost:8000/v1`.
    #[arg(long, value_name = "URL", requires = "judge_model")]
    judge_url: Option<String>,
    /// The judge's name on that server.
    #[arg(long, value_name = "NAME", requires = "judge_url")]
    judge_model: Option<String>,
    /// Certificates in PEM to trust instead of the usual authorities, for a server of your own.
    #[arg(long, value_name = "FILE", requires = "judge_url")]
    judge_ca: Option<PathBuf>,
    /// Hugging Face folder of a judge, or org/name[@revision] of the hub, instead of a server.
    #[arg(
        long,
        value_name = "DIR|NAME",
        conflicts_with = "judge_url",
        required_unless_present = "judge_url"
    )]
    judge: Option<PathBuf>,
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
    pub(crate) preview: bool,
}

/// A judge that can be asked.
pub(crate) struct ChosenJudge {
    /// Which.
    pub(crate) id: JudgeId,
    /// What it goes by in files.
    pub(crate) name: String,
    /// Where it is.
    place: JudgePlace,
}

enum JudgePlace {
    Server(OpenAiCompatible),
    Checkpoint(Model),
}

impl ChosenJudge {
    /// The hash of the checkpoint's files, where it is one.
    pub(crate) fn checkpoint_hash(&self) -> Option<String> {
        self.checkpoint().map(|_| content_hash(&self.id.place))
    }

    /// The checkpoint, where it is one.
    pub(crate) fn checkpoint(&self) -> Option<&Model> {
        match &self.place {
            JudgePlace::Server(_) => None,
            JudgePlace::Checkpoint(model) => Some(model),
        }
    }
}

/// What a judge is asked, and which of its replies of earlier runs are asked for anew.
pub(crate) struct Inquiry<'a> {
    pub(crate) requests: &'a [ChatRequest],
    /// Whether a kept reply to a request, by its place, will do.
    pub(crate) is_good: &'a dyn Fn(usize, &Reply) -> bool,
    /// Where replies are kept unless the options say so.
    pub(crate) cache: PathBuf,
}

impl JudgeArgs {
    /// The judge, not asked yet.
    ///
    /// # Errors
    ///
    /// If the address or the key is none, or the checkpoint cannot be read.
    pub(crate) fn choose(&self, console: Console) -> Result<ChosenJudge> {
        if let (Some(url), Some(model)) = (&self.judge_url, &self.judge_model) {
            let key = std::env::var(KEY).ok().map(|key| ApiKey::new(&key)).transpose()?;
            let timeout = Duration::from_secs(self.timeout);
            let read = |path: &PathBuf| {
                beear_input::read_to_string(path)
                    .with_context(|| format!("reading `{}`", path.display()))
            };
            let authorities = self.judge_ca.as_ref().map(read).transpose()?;
            let config =
                OpenAiConfig { url: url.clone(), model: model.clone(), timeout, authorities };
            let server = OpenAiCompatible::new(config, key)?;
            let (id, name) = (server.id().clone(), model.clone());
            return Ok(ChosenJudge { id, name, place: JudgePlace::Server(server) });
        }
        let dir = self.judge.as_deref().expect("clap asks for one of the two");
        let model = Model::find(dir, Needed::Everything, console)?;
        let place = json!(sha256_of_inputs(Some(&model), &[])?).to_string();
        let id = JudgeId { model: model.to_string(), place };
        Ok(ChosenJudge { id, name: model.name(), place: JudgePlace::Checkpoint(model) })
    }

    /// Asks the judge. With `--preview` it says what that would cost, and nothing is asked or returned.
    ///
    /// # Errors
    ///
    /// If a setting makes no sense, the cache cannot be used, the judge refuses the key or the checkpoint
    /// cannot be read.
    pub(crate) fn ask<C: ComputeBackend>(
        &self,
        judge: &ChosenJudge,
        inquiry: Inquiry<'_>,
        (device, console): (&Device<C>, Console),
    ) -> Result<Option<(JudgeId, Asking)>> {
        let Inquiry { requests, is_good, cache } = inquiry;
        let cache = ReplyCache::open(self.cache.as_deref().unwrap_or(&cache))?;
        let asker = JudgeClient::new(&cache, self.config())?;
        let cost = |id: &JudgeId| {
            asker.forget_unless(id, requests, is_good);
            self.preview.then(|| say_cost(asker.preview(id, requests), console)).transpose()
        };
        let checkpoint = match &judge.place {
            JudgePlace::Checkpoint(checkpoint) => checkpoint,
            JudgePlace::Server(server) => {
                if cost(server.id())?.is_some() {
                    return Ok(None);
                }
                let bar = console.bar("judging", requests.len());
                let mut told = |progress: AskProgress<'_>| bar.set_position(progress.n_done as u64);
                let asking = asker.ask_concurrently(server, requests, &mut told)?;
                bar.finish_and_clear();
                return Ok(Some((server.id().clone(), asking)));
            }
        };
        let loaded = Loaded::<Inference<C>>::read(checkpoint, None, device)?;
        let model = local::<C>(&loaded, device, console);
        let local = LanguageModelJudge::new(&model, judge.id.clone(), BATCH_SIZE, 0);
        if cost(local.id())?.is_some() {
            return Ok(None);
        }
        let asking = asker.ask(&local, requests, &mut |_| {})?;
        Ok(Some((local.id().clone(), asking)))
    }

    fn config(&self) -> RunConfig {
        RunConfig {
            concurrency: self.concurrency,
            max_attempts: self.max_attempts,
            max_calls: self.max_calls,
            ..RunConfig::default()
        }
    }
}

/// A judge that has judged nothing has not found a model good or bad.
///
/// # Errors
///
/// If none of `n_expected` replies can be used.
pub(crate) fn judged_something(n_valid: usize, n_expected: usize) -> Result<()> {
    if n_valid > 0 || n_expected == 0 {
        return Ok(());
    }
    let what = format!("the judge has judged none of {n_expected}");
    let hint =
        "what it replied, or why it did not, is in OUT: another judge, or another prompt, may do";
    Err(UserError::input(what, hint).into())
}

/// Says what a run would cost.
fn say_cost(cost: Cost, console: Console) -> Result<()> {
    let text = format!(
        "{} calls for {} answers ({} cached, {} repeated); about {} tokens sent, at most {} received",
        cost.n_calls,
        cost.n_items,
        cost.n_cached,
        cost.n_repeated,
        cost.n_prompt_tokens,
        cost.max_completion_tokens
    );
    console.result(&text, &cost)
}
