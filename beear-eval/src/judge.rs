//! Judging of answers by a language model: how far an answer fulfils a request, 1 to 5, and whether
//! it shows a behaviour, yes or no.
//!
//! [`Assessment`] defines the question and the parsing of a reply, a [`Judge`] answers, and a
//! [`Runner`] judges many answers: every item ends as judged, unreadable or failed, and a
//! [`Summary`] counts all three. The underlying [`JudgeClient`] sends arbitrary requests to a
//! judge.
//!
//! A judge is a model and errs. An answer is quoted between marks it cannot contain, so that its
//! text is visibly not the judge's instructions; no mark makes a judge immune to the text of an
//! answer.

mod api_key;
mod asked;
mod assessment;
mod cache;
mod chat;
mod cost;
mod error;
mod item;
mod judge_client;
mod local;
mod mean;
#[cfg(feature = "http")]
mod open_ai;
mod outcome;
mod prompt;
mod quotation;
mod retry;
mod run_config;
mod run_state;
mod runner;
mod summary;
mod verdict;

pub use api_key::ApiKey;
pub use asked::{AskProgress, Asking, CallOutcome};
pub use assessment::{Assessment, Judgement};
pub use cache::ReplyCache;
pub use chat::{CallError, ChatRequest, Judge, JudgeId, Reply};
pub use cost::Cost;
pub use error::JudgeError;
pub use item::Item;
pub use judge_client::JudgeClient;
pub use local::LanguageModelJudge;
pub use mean::Mean;
#[cfg(feature = "http")]
pub use open_ai::{OpenAiCompatible, OpenAiConfig};
pub use outcome::{Outcome, Progress, Report};
pub use prompt::JudgePrompt;
pub use retry::Backoff;
pub use run_config::RunConfig;
pub use runner::Runner;
pub use summary::{Found, Summary};
pub use verdict::Verdict;
