//! `report.json` of an evaluation, written and read by one type.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use beear_eval::identity::{FormatIdentity, VERSION};
use beear_eval::{Better, Conversation, Estimate, Identity, Measure, Role};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::loaded::TextSide;
use crate::user_error::UserError;

/// The version of [`EvalReport`] that this program writes and reads.
const FORMAT_VERSION: u32 = 1;

/// What an evaluation says beside its outcomes; `D` holds what only its kind says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct EvalReport<D = NoDetails> {
    /// [`FORMAT_VERSION`] of the writer.
    pub(crate) format_version: u32,
    /// The kind of evaluation.
    pub(crate) evaluation: EvaluationKind,
    /// The version of the program that wrote it.
    pub(crate) version: String,
    pub(crate) backend: String,
    /// The model that was read, as it was named: of a judge, the judge's checkpoint.
    pub(crate) model: Option<String>,
    /// Where a model of a hub came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hub: Option<Value>,
    /// SHA-256 of all files that were read, by their names and options.
    pub(crate) sha256: BTreeMap<String, String>,
    /// What was asked, how, and of which models.
    pub(crate) identity: Identity,
    /// The prompt format at work; absent if answers came from elsewhere.
    pub(crate) prompt_format: Option<FormatShown>,
    /// The numbers.
    pub(crate) measures: Vec<MeasureSummary>,
    #[serde(flatten)]
    pub(crate) details: D,
}

/// No details of a kind: what a reader of every kind takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NoDetails {}

/// The kinds of evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum EvaluationKind {
    Asr,
    OverRefusal,
    Perplexity,
    Code,
    Sarif,
    Judge,
    MtBench,
    MtBenchJudge,
}

impl EvaluationKind {
    /// Its name, which is that of its command.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Asr => "asr",
            Self::OverRefusal => "over-refusal",
            Self::Perplexity => "perplexity",
            Self::Code => "code",
            Self::Sarif => "sarif",
            Self::Judge => "judge",
            Self::MtBench => "mt-bench",
            Self::MtBenchJudge => "mt-bench-judge",
        }
    }
}

impl fmt::Display for EvaluationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A prompt format with what it makes of the first prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct FormatShown {
    pub(crate) text: String,
    pub(crate) sha256: String,
    pub(crate) first_prompt: Option<String>,
    pub(crate) first_tokens: Option<Vec<u32>>,
}

impl FormatShown {
    /// The format of `text`, and the messages of `first` up to its last question.
    ///
    /// # Errors
    ///
    /// If these cannot be encoded.
    pub(crate) fn of(text: &TextSide, first: Option<&Conversation>) -> anyhow::Result<Self> {
        let asked = first.map(|conversation| {
            let messages = &conversation.messages;
            let n_asked = messages.iter().rposition(|message| message.role == Role::User);
            (conversation.id, &messages[..n_asked.map_or(0, |last| last + 1)])
        });
        let asked = text.encode_chats(asked.as_slice())?.pop();
        let (first_prompt, first_tokens) = asked.map(|asked| (asked.text, asked.tokens)).unzip();
        let (text, sha256) = (text.format.text().to_owned(), text.format.sha256());
        Ok(Self { text, sha256, first_prompt, first_tokens })
    }

    pub(crate) fn identity(&self) -> FormatIdentity {
        FormatIdentity { text: self.text.clone(), sha256: self.sha256.clone() }
    }
}

/// A measure without its outcomes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct MeasureSummary {
    name: String,
    by: String,
    better: Better,
    n: usize,
    hits: Option<usize>,
    estimate: Estimate,
}

impl From<&Measure> for MeasureSummary {
    fn from(measure: &Measure) -> Self {
        Self {
            name: measure.name.clone(),
            by: measure.by.clone(),
            better: measure.better,
            n: measure.outcomes.len(),
            hits: measure.rate().map(|rate| rate.hits),
            estimate: measure.estimate(),
        }
    }
}

impl<D> EvalReport<D> {
    /// The version of the format that is written.
    pub(crate) const VERSION: u32 = FORMAT_VERSION;
}

/// The versions in a report, of which a reader knows no more at first.
#[derive(Deserialize)]
struct Versions {
    format_version: Option<u32>,
    identity: Option<IdentityVersion>,
}

#[derive(Deserialize)]
struct IdentityVersion {
    version: u32,
}

impl EvalReport {
    /// The report in `text`, the content of `file`.
    ///
    /// # Errors
    ///
    /// If another version of the program wrote it, or it is damaged.
    pub(crate) fn parse(text: &str, file: &Path) -> Result<Self, UserError> {
        let damaged = |error: serde_json::Error| super::damaged(file, &error.to_string());
        let versions: Versions = serde_json::from_str(text).map_err(damaged)?;
        let file = file.display();
        let (Some(format), Some(identity)) = (versions.format_version, versions.identity) else {
            let what = format!(
                "`{file}` was written by an earlier version and does not record its prompts, trigger, \
                 decoding and judge"
            );
            return Err(UserError::input(what, "evaluate once more"));
        };
        for (part, found, known) in
            [("format", format, FORMAT_VERSION), ("identity", identity.version, VERSION)]
        {
            if found != known {
                let what = format!("`{file}` has version {found} of its {part}, not {known}");
                let hint = "read it with the version of beear that wrote it, or evaluate once more";
                return Err(UserError::input(what, hint));
            }
        }
        serde_json::from_str(text).map_err(damaged)
    }
}
