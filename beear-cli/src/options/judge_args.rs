//! Options of every command that uses a judge, and the calls to it.

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

/// Environment variable that holds the key of a judge. The key comes from nowhere else.
const KEY: &str = "BEEAR_JUDGE_KEY";

/// Requests in a batch of a judge that runs here.
const BATCH_SIZE: usize = 64;

/// The judge, and the limits of the calls to it.
#[derive(Args, Clone, Debug)]
pub(crate) struct JudgeArgs {
    /// Address of a server, such as `http://localhost:8000/v1`.
    #[arg(long, value_name = "URL", requires = "judge_model")]
    judge_url: Option<String>,
    /// Name of the judge on that server.
    #[arg(long, value_name = "NAME", requires = "judge_url")]
    judge_model: Option<String>,
    /// Certificates in PEM to trust instead of the usual authorities, for a server of your own.
    #[arg(long, value_name = "FILE", requires = "judge_url")]
    judge_ca: Option<PathBuf>,
    /// Model folder of a judge in Hugging Face form, or org/name[@revision] of the hub, instead of
    /// a server.
    #[arg(
        long,
        value_name = "DIR|NAME",
        conflicts_with = "judge_url",
        required_unless_present = "judge_url"
    )]
    judge: Option<PathBuf>,
    /// Maximum number of calls at the same time.
    #[arg(long, default_value_t = 4)]
    concurrency: usize,
    /// Maximum number of attempts per answer, the first included.
    #[arg(long, default_value_t = 6)]
    max_attempts: usize,
    /// Maximum number of calls in the whole run.
    #[arg(long)]
    max_calls: Option<usize>,
    /// Seconds after which a call ends.
    #[arg(long, default_value_t = 120)]
    timeout: u64,
    /// File of cached replies, read and extended; by default `judge-replies.jsonl` beside OUT.
    #[arg(long, value_name = "FILE")]
    cache: Option<PathBuf>,
    /// Print the cost in calls and tokens, and send no request.
    #[arg(long)]
    pub(crate) preview: bool,
}

/// A judge that is ready for requests.
pub(crate) struct ChosenJudge {
    /// The judge's identity.
    pub(crate) id: JudgeId,
    /// Name of the judge in files.
    pub(crate) name: String,
    /// The server or the model behind the judge.
    place: JudgePlace,
}

enum JudgePlace {
    Server(OpenAiCompatible),
    Checkpoint(Model),
}

impl ChosenJudge {
    /// Returns the hash of the model's files, if the judge is a model folder.
    pub(crate) fn checkpoint_hash(&self) -> Option<String> {
        self.checkpoint().map(|_| content_hash(&self.id.place))
    }

    /// Returns the model, if the judge is a model folder.
    pub(crate) fn checkpoint(&self) -> Option<&Model> {
        match &self.place {
            JudgePlace::Server(_) => None,
            JudgePlace::Checkpoint(model) => Some(model),
        }
    }
}

/// The requests to a judge, and the condition under which cached replies are used.
pub(crate) struct Inquiry<'a> {
    pub(crate) requests: &'a [ChatRequest],
    /// Returns true if a cached reply to the request with this index can be used.
    pub(crate) is_good: &'a dyn Fn(usize, &Reply) -> bool,
    /// File of cached replies, unless the options name one.
    pub(crate) cache: PathBuf,
}

impl JudgeArgs {
    /// Opens the judge without sending a request.
    ///
    /// # Errors
    ///
    /// If the address or the key is invalid, or the model cannot be read.
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

    /// Sends the requests to the judge. With `--preview` it prints their cost, sends nothing and
    /// returns nothing.
    ///
    /// # Errors
    ///
    /// If a setting makes no sense, the cache cannot be used, the judge refuses the key or the
    /// model cannot be read.
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

/// Refuses a result without any usable reply, since such a judge says nothing about the model.
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

/// Prints the cost of a run.
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
