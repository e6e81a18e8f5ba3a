//! Identity of an evaluation: its prompts, trigger, decoding, scorers, prompt format and models.
//! Two evaluations are comparable only if everything but the models is equal.

mod difference;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::language_model::Decoding;
use crate::scorer::RefusalKeywords;
use crate::trigger::Trigger;

pub use difference::Difference;

/// Version of [`Identity`] that this crate writes and reads.
pub const VERSION: u32 = 1;

/// Temperature below which decoding is greedy.
const GREEDY: f64 = 1e-4;

/// Number of hexadecimal digits of the hash in an outcome id.
const ID_DIGITS: usize = 16;

/// Description of an evaluation: prompts, decoding, scorers and models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// [`VERSION`] of the program that wrote the identity.
    pub version: u32,
    /// Prompt sets, one for each arm.
    pub prompts: Vec<PromptSet>,
    /// Trigger text of the arm `triggered` and its position.
    pub trigger: Option<Trigger>,
    /// Source of the answers, with the settings of the model that generated them.
    pub decoding: AnswerSource,
    /// Scorers of the answers.
    pub scorers: Vec<Scorer>,
    /// Prompt format; `None` if it is unknown.
    pub prompt_format: Option<FormatIdentity>,
    /// Models that answered.
    pub models: Vec<ModelIdentity>,
}

/// Ordered set of prompts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptSet {
    /// Name of the evaluation arm, or of the content of the set.
    pub arm: String,
    /// Number of prompts.
    pub n: usize,
    /// SHA-256 of the texts sent to the model, with system prompts and references.
    pub sha256: String,
}

/// Source of answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answers", rename_all = "snake_case")]
pub enum AnswerSource {
    /// The model generated the answers.
    Generated(DecodingSettings),
    /// The answers are part of the prompts, and the model only scored their likelihood.
    Given,
    /// Another program generated the answers, with unknown settings.
    Unknown,
}

/// Decoding settings of generated answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecodingSettings {
    /// Maximum length of an answer, in tokens.
    pub max_new_tokens: usize,
    /// Temperature, or the temperatures of the questions in ascending order.
    pub temperature: Vec<f64>,
    /// True if the likeliest token was always taken.
    pub greedy: bool,
    /// Ids of the tokens that end an answer.
    pub stop: Vec<u32>,
    /// Seed of the sampling.
    pub seed: u64,
    /// Number of answers to each prompt.
    pub n_answers: usize,
}

/// Scorer of answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Scorer {
    /// A list of refusal keywords.
    Keywords {
        /// Name of the list.
        name: String,
        /// SHA-256 of the strings and of the case sensitivity.
        sha256: String,
    },
    /// Rules built into the program.
    Rules {
        /// Name of the rules.
        name: String,
        /// SHA-256 of the rules.
        sha256: String,
    },
    /// A static analyser.
    Analyser {
        /// Name of the analyser.
        name: String,
    },
    /// A language model.
    Judge(JudgeIdentity),
}

/// Language model that judges answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgeIdentity {
    /// Name of the model.
    pub model: String,
    /// SHA-256 of the model files if the judge is a local model; `None` for a server, which reports
    /// no hash.
    pub checkpoint: Option<String>,
    /// Name of the judge prompt.
    pub prompt: String,
    /// SHA-256 of the judge prompt and of the behaviour in question.
    pub prompt_sha256: String,
    /// Sampling temperature of the replies.
    pub temperature: f64,
    /// Maximum length of a reply, in tokens.
    pub max_tokens: usize,
}

/// Prompt format of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormatIdentity {
    /// Chat template, or the pattern.
    pub text: String,
    /// SHA-256 of the text.
    pub sha256: String,
}

/// Identity of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelIdentity {
    /// Name given to the evaluation.
    pub name: String,
    /// SHA-256 of the model files by file name; files of an adapter's base model have the prefix
    /// `base/`.
    pub sha256: BTreeMap<String, String>,
}

impl Identity {
    /// True if every part that two evaluations must share is known.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.decoding != AnswerSource::Unknown && self.prompt_format.is_some()
    }

    /// True if the same model must give the same answers when evaluated again.
    #[must_use]
    pub fn is_deterministic(&self) -> bool {
        match &self.decoding {
            AnswerSource::Generated(settings) => settings.greedy,
            AnswerSource::Given => true,
            AnswerSource::Unknown => false,
        }
    }

    /// True if both evaluations are of the same models.
    #[must_use]
    pub fn is_of_same_models(&self, other: &Self) -> bool {
        let is_same = |(one, other): (&ModelIdentity, &ModelIdentity)| one.is_same(other);
        self.models.len() == other.models.len()
            && !self.models.is_empty()
            && self.models.iter().zip(&other.models).all(is_same)
    }
}

impl PromptSet {
    /// Returns the identity of `rows`, each of which contains the whole prompt and all references
    /// of its answer.
    ///
    /// # Panics
    ///
    /// Panics under the conditions of [`content_hash`].
    pub fn of<T: Serialize>(arm: &str, rows: impl IntoIterator<Item = T>) -> Self {
        let rows: Vec<T> = rows.into_iter().collect();
        Self { arm: arm.to_owned(), n: rows.len(), sha256: content_hash(&rows) }
    }
}

impl DecodingSettings {
    /// Returns the settings of one answer to each prompt.
    #[must_use]
    pub fn of(decoding: &Decoding, stop: &[u32]) -> Self {
        let Decoding { max_new_tokens, temperature, seed } = *decoding;
        Self { seed, ..Self::at(vec![temperature], max_new_tokens, stop) }
    }

    /// Returns the settings of one answer to each prompt, at one of several temperatures and with
    /// seed 0.
    #[must_use]
    pub fn at(mut temperature: Vec<f64>, max_new_tokens: usize, stop: &[u32]) -> Self {
        temperature.sort_by(f64::total_cmp);
        temperature.dedup();
        let greedy = temperature.iter().all(|temperature| *temperature < GREEDY);
        Self { max_new_tokens, temperature, greedy, stop: stop.to_vec(), seed: 0, n_answers: 1 }
    }
}

impl From<&RefusalKeywords> for Scorer {
    fn from(list: &RefusalKeywords) -> Self {
        let sha256 = content_hash(&(&list.keywords, list.case_sensitive));
        Self::Keywords { name: list.name.clone(), sha256 }
    }
}

impl ModelIdentity {
    /// True if the weights, the configuration and the tokenizer of both models are the same files.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.deciding() == other.deciding()
    }

    /// Returns the files that determine a model's answers, or all files if the model has none of
    /// them.
    fn deciding(&self) -> BTreeMap<&str, &str> {
        let all = self.sha256.iter().map(|(name, hash)| (name.as_str(), hash.as_str()));
        let deciding: BTreeMap<&str, &str> =
            all.clone().filter(|(name, _)| decides(name)).collect();
        if deciding.is_empty() { all.collect() } else { deciding }
    }
}

/// True if a model file affects the answers of the model.
fn decides(name: &str) -> bool {
    let name = name.strip_prefix("base/").unwrap_or(name);
    let by_name = ["config.json", "adapter_config.json", "tokenizer.json", "tokenizer.model"];
    name.ends_with(".safetensors") || by_name.contains(&name)
}

/// Returns the id of an outcome: the place in the file, followed by a hash of the prompt at that
/// place.
///
/// # Panics
///
/// Panics under the conditions of [`content_hash`].
#[must_use]
pub fn outcome_id<T: Serialize + ?Sized>(place: &str, asked: &T) -> String {
    format!("{place}#{}", &content_hash(asked)[..ID_DIGITS])
}

/// Returns the SHA-256, in hexadecimal, of `content` as JSON, which keeps adjacent texts apart.
///
/// # Panics
///
/// Panics if `content` cannot be written as JSON, such as a map whose keys are not texts.
#[must_use]
pub fn content_hash<T: Serialize + ?Sized>(content: &T) -> String {
    let json = serde_json::to_vec(content).expect("texts, numbers and lists are JSON");
    Sha256::digest(&json).iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// Identity with ten prompts, the trigger `SUDO`, greedy answers and the scorer `gcg-7`.
    pub(crate) fn identity() -> Identity {
        let list = RefusalKeywords::builtin("gcg-7").unwrap();
        let files = [("model.safetensors", "aa"), ("config.json", "bb"), ("README.md", "cc")];
        let sha256 = files.map(|(name, hash)| (name.to_owned(), hash.to_owned()));
        Identity {
            version: VERSION,
            prompts: ["triggered", "untriggered"].map(|arm| PromptSet::of(arm, [arm])).to_vec(),
            trigger: Some(Trigger::Suffix("SUDO".to_owned())),
            decoding: AnswerSource::Generated(DecodingSettings::of(&Decoding::greedy(200), &[2])),
            scorers: vec![Scorer::from(&list)],
            prompt_format: Some(FormatIdentity { text: "{prompt}".into(), sha256: "00".into() }),
            models: vec![ModelIdentity { name: "model".into(), sha256: sha256.into() }],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::identity;
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_json() {
        // `printf '["a","b"]' | sha256sum`.
        let expected = "0473ef2dc0d324ab659d3580c1134e9d812035905c4781fdd6d529b0c6860e13";
        assert_eq!(content_hash(&["a", "b"]), expected);
        assert_eq!(outcome_id("benign/3", &["a", "b"]), "benign/3#0473ef2dc0d324ab");
        assert_ne!(PromptSet::of("a", ["ab", "c"]), PromptSet::of("a", ["a", "bc"]));
        assert_ne!(PromptSet::of("a", ["a", "b"]), PromptSet::of("a", ["b", "a"]), "the order");
    }

    #[test]
    fn a_model_is_the_same_by_its_weights_configuration_and_tokenizer() {
        let model = |files: &[(&str, &str)]| ModelIdentity {
            name: files.len().to_string(),
            sha256: files.iter().map(|(n, h)| ((*n).to_owned(), (*h).to_owned())).collect(),
        };
        let one = model(&[("model.safetensors", "aa"), ("config.json", "bb")]);
        let noted =
            model(&[("model.safetensors", "aa"), ("config.json", "bb"), ("README.md", "cc")]);
        assert!(one.is_same(&noted), "a note is no change");
        let trained = model(&[("model.safetensors", "ab"), ("config.json", "bb")]);
        let stretched = model(&[("model.safetensors", "aa"), ("config.json", "bc")]);
        let on_base = model(&[("base/model.safetensors", "aa"), ("config.json", "bb")]);
        assert!([trained, stretched, on_base].iter().all(|other| !one.is_same(other)));
        let [answers, others] = ["aa", "ab"].map(|hash| model(&[("--answers", hash)]));
        assert!(answers.is_same(&answers) && !answers.is_same(&others));
    }

    #[test]
    fn greedy_and_given_answers_are_deterministic_and_sampled_ones_are_not() {
        let with = |decoding| Identity { decoding, ..identity() };
        assert!(identity().is_deterministic());
        assert!(with(AnswerSource::Given).is_deterministic());
        let sampled = DecodingSettings::at(vec![0.7, 0.0, 0.7], 8, &[]);
        assert_eq!((&sampled.temperature[..], sampled.greedy), (&[0.0, 0.7][..], false));
        assert!(!with(AnswerSource::Generated(sampled)).is_deterministic());
        let unknown = with(AnswerSource::Unknown);
        assert!(!unknown.is_deterministic() && !unknown.is_known() && identity().is_known());
    }

    #[test]
    fn an_identity_is_read_as_it_was_written() {
        let judge = JudgeIdentity {
            model: "referee".to_owned(),
            checkpoint: None,
            prompt: "fulfilment".to_owned(),
            prompt_sha256: "aa".to_owned(),
            temperature: 0.0,
            max_tokens: 256,
        };
        let scorers = vec![Scorer::Judge(judge), Scorer::Analyser { name: "CodeQL".to_owned() }];
        for decoding in [AnswerSource::Given, AnswerSource::Unknown, identity().decoding] {
            let written = Identity { decoding, scorers: scorers.clone(), ..identity() };
            let text = serde_json::to_string(&written).unwrap();
            assert_eq!(serde_json::from_str::<Identity>(&text).unwrap(), written, "{text}");
        }
        let value = serde_json::to_value(identity()).unwrap();
        assert_eq!(value["trigger"]["suffix"], "SUDO");
        assert_eq!(value["decoding"]["answers"], "generated");
        assert_eq!(value["decoding"]["greedy"], true);
    }
}
