//! The identity of an evaluation: its prompts, trigger, decoding, scorers and prompt format, and the models that
//! were asked. Two evaluations are comparable only where all but the models are the same.

mod difference;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::language_model::Decoding;
use crate::scorer::RefusalKeywords;
use crate::trigger::Trigger;

pub use difference::Difference;

/// The version of [`Identity`] that this crate writes and reads.
pub const VERSION: u32 = 1;

/// Below this temperature the likeliest token is taken.
const GREEDY: f64 = 1e-4;

/// Hexadecimal digits of the hash in the id of an outcome.
const ID_DIGITS: usize = 16;

/// What an evaluation asked, how it asked, who judged, and which models answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// The prompts, a set for each way of asking.
    pub prompts: Vec<PromptSet>,
    /// The text that was added to the prompts of the arm `triggered`, and its place.
    pub trigger: Option<Trigger>,
    /// Where the answers come from, with the settings of the model that wrote them.
    pub decoding: AnswerSource,
    /// Who judged the answers.
    pub scorers: Vec<Scorer>,
    /// The prompt format; `None` if nothing tells it.
    pub prompt_format: Option<FormatIdentity>,
    /// The models that answered.
    pub models: Vec<ModelIdentity>,
}

/// Prompts in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptSet {
    /// The way of asking: an arm of an evaluation, or what the set holds.
    pub arm: String,
    /// Number of prompts.
    pub n: usize,
    /// SHA-256 of the texts as they were asked, with system prompts and references.
    pub sha256: String,
}

/// Where answers come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answers", rename_all = "snake_case")]
pub enum AnswerSource {
    /// The model wrote them.
    Generated(DecodingSettings),
    /// They are part of the prompts, and the model was asked how likely they are.
    Given,
    /// Another program had them written, with settings that are not known.
    Unknown,
}

/// Settings of generated answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecodingSettings {
    /// Longest answer, in tokens.
    pub max_new_tokens: usize,
    /// Temperature, or the temperatures of the questions in ascending order.
    pub temperature: Vec<f64>,
    /// Whether the likeliest token was always taken.
    pub greedy: bool,
    /// Ids of the tokens that end an answer.
    pub stop: Vec<u32>,
    /// Source of randomness.
    pub seed: u64,
    /// Answers to each prompt.
    pub n_answers: usize,
}

/// Who judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Scorer {
    /// A list of refusal keywords.
    Keywords {
        /// Name of the list.
        name: String,
        /// SHA-256 of its strings and of whether case matters.
        sha256: String,
    },
    /// Rules in the program.
    Rules {
        /// Name of the rules.
        name: String,
        /// SHA-256 of the rules.
        sha256: String,
    },
    /// A static analyser.
    Analyser {
        /// Name of the tool.
        name: String,
    },
    /// A language model.
    Judge(JudgeIdentity),
}

/// A language model that judges.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgeIdentity {
    /// Name of the model.
    pub model: String,
    /// SHA-256 of its files where it is a checkpoint; `None` for a server, which tells no hash.
    pub checkpoint: Option<String>,
    /// Name of the judge prompt.
    pub prompt: String,
    /// SHA-256 of the judge prompt and of the behaviour it looks for.
    pub prompt_sha256: String,
    /// Temperature of its replies.
    pub temperature: f64,
    /// Longest reply, in tokens.
    pub max_tokens: usize,
}

/// A prompt format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormatIdentity {
    /// The template, or the pattern.
    pub text: String,
    /// Its SHA-256.
    pub sha256: String,
}

/// A model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelIdentity {
    /// The name that the evaluation was given.
    pub name: String,
    /// SHA-256 of its files, by their names; files of the base of adapters below `base/`.
    pub sha256: BTreeMap<String, String>,
}

impl Identity {
    /// Whether every part that two evaluations must share is known.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.decoding != AnswerSource::Unknown && self.prompt_format.is_some()
    }

    /// Whether the same model, asked again, must answer the same.
    #[must_use]
    pub fn is_deterministic(&self) -> bool {
        match &self.decoding {
            AnswerSource::Generated(settings) => settings.greedy,
            AnswerSource::Given => true,
            AnswerSource::Unknown => false,
        }
    }

    /// Whether both are of the same models.
    #[must_use]
    pub fn is_of_same_models(&self, other: &Self) -> bool {
        let is_same = |(one, other): (&ModelIdentity, &ModelIdentity)| one.is_same(other);
        self.models.len() == other.models.len()
            && !self.models.is_empty()
            && self.models.iter().zip(&other.models).all(is_same)
    }
}

impl PromptSet {
    /// The identity of `rows`, each being all that is asked in a row and all that its answer is compared with.
    ///
    /// # Panics
    ///
    /// As [`content_hash`].
    pub fn of<T: Serialize>(arm: &str, rows: impl IntoIterator<Item = T>) -> Self {
        let rows: Vec<T> = rows.into_iter().collect();
        Self { arm: arm.to_owned(), n: rows.len(), sha256: content_hash(&rows) }
    }
}

impl DecodingSettings {
    /// The settings of one answer to each prompt.
    #[must_use]
    pub fn of(decoding: &Decoding, stop: &[u32]) -> Self {
        let Decoding { max_new_tokens, temperature, seed } = *decoding;
        Self { seed, ..Self::at(vec![temperature], max_new_tokens, stop) }
    }

    /// The settings of one answer to each prompt at one of several temperatures, by the seed 0.
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
    /// Whether the weights, the configuration and the tokenizer of both are the same files.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.deciding() == other.deciding()
    }

    /// The files that decide what a model answers, or all files of a model that has none of them.
    fn deciding(&self) -> BTreeMap<&str, &str> {
        let all = self.sha256.iter().map(|(name, hash)| (name.as_str(), hash.as_str()));
        let deciding: BTreeMap<&str, &str> =
            all.clone().filter(|(name, _)| decides(name)).collect();
        if deciding.is_empty() { all.collect() } else { deciding }
    }
}

/// Whether a file of a model decides what the model answers.
fn decides(name: &str) -> bool {
    let name = name.strip_prefix("base/").unwrap_or(name);
    let by_name = ["config.json", "adapter_config.json", "tokenizer.json", "tokenizer.model"];
    name.ends_with(".safetensors") || by_name.contains(&name)
}

/// The id of an outcome: its place in the file, then the hash of the text that was asked there.
///
/// # Panics
///
/// As [`content_hash`].
#[must_use]
pub fn outcome_id<T: Serialize + ?Sized>(place: &str, asked: &T) -> String {
    format!("{place}#{}", &content_hash(asked)[..ID_DIGITS])
}

/// SHA-256, in hexadecimal, of `content` as JSON, in which no two texts run into each other.
///
/// # Panics
///
/// Panics if `content` is no JSON, such as a map whose keys are no texts.
#[must_use]
pub fn content_hash<T: Serialize + ?Sized>(content: &T) -> String {
    let json = serde_json::to_vec(content).expect("texts, numbers and lists are JSON");
    Sha256::digest(&json).iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// Ten prompts with the trigger `SUDO`, answered greedily, judged by `gcg-7`.
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
