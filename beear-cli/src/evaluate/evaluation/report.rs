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

/// Version of [`EvalReport`] that this program writes and reads.
const FORMAT_VERSION: u32 = 1;

/// Report of an evaluation without its outcomes. `D` holds the details of one kind of evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct EvalReport<D = NoDetails> {
    /// [`FORMAT_VERSION`] of the writer.
    pub(crate) format_version: u32,
    /// Kind of evaluation.
    pub(crate) evaluation: EvaluationKind,
    /// Version of the program that wrote the report.
    pub(crate) version: String,
    pub(crate) backend: String,
    /// Name of the model that was read, as it was given. For a judge it is the judge's model.
    pub(crate) model: Option<String>,
    /// Origin of a model from a hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hub: Option<Value>,
    /// SHA-256 of all files that were read, by their names and options.
    pub(crate) sha256: BTreeMap<String, String>,
    /// Prompts, settings and models of the evaluation.
    pub(crate) identity: Identity,
    /// Prompt format of the answers. It is absent if they came from elsewhere.
    pub(crate) prompt_format: Option<FormatShown>,
    /// Measures without their outcomes.
    pub(crate) measures: Vec<MeasureSummary>,
    #[serde(flatten)]
    pub(crate) details: D,
}

/// Empty details, with which reports of every kind are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NoDetails {}

/// Kinds of evaluation.
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
    /// Returns the name, which is also the name of the command.
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

/// A prompt format, with the first prompt in that format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct FormatShown {
    pub(crate) text: String,
    pub(crate) sha256: String,
    pub(crate) first_prompt: Option<String>,
    pub(crate) first_tokens: Option<Vec<u32>>,
}

impl FormatShown {
    /// Shows the format of `text` on the messages of `first` up to its last question.
    ///
    /// # Errors
    ///
    /// If the messages cannot be encoded.
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
    /// Version of the format that is written.
    pub(crate) const VERSION: u32 = FORMAT_VERSION;
}

/// Versions in a report, which are read before the rest of it.
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
    /// Parses the report in `text`, the content of `file`.
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
