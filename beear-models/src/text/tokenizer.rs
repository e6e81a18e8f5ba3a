//! Tokenization with a checkpoint's `tokenizer.json`, and decoding.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use beear_input::{OwnFolder, Refusal};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;
use tokenizers::{AddedToken, Tokenizer};

use super::named_tokens::{add_token, adds_bos, begins_with, named_tokens, token_text};

/// Error of reading or using a tokenizer.
#[derive(Debug, Error)]
pub enum TokenizerError {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The folder contains only the sentencepiece form.
    #[error("`{}` has tokenizer.model and no tokenizer.json", path.display())]
    SentencePieceOnly {
        /// Path of the folder.
        path: PathBuf,
    },
    /// A file is malformed.
    #[error("malformed `{}`: {reason}", path.display())]
    Malformed {
        /// Path of the file.
        path: PathBuf,
        /// Problem of the file.
        reason: String,
    },
    /// The text cannot be encoded or the ids decoded.
    #[error("the tokenizer failed: {reason}")]
    Failed {
        /// Message of the tokenizer.
        reason: String,
    },
}

impl TokenizerError {
    /// Returns a one-line suggestion for fixing the error.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::SentencePieceOnly { .. } => {
                "convert it: AutoTokenizer.from_pretrained(DIR, use_fast=True).save_pretrained(DIR)"
            }
            Self::Io { source, .. } if source.kind() == ErrorKind::NotFound => {
                "the folder should hold tokenizer.json"
            }
            Self::Io { source, .. } => {
                Refusal::of(source).map_or("check the path and the permissions", Refusal::hint)
            }
            Self::Malformed { .. } => {
                "the file is damaged or of a newer form: copy or download it again"
            }
            Self::Failed { .. } => "use the tokenizer.json that belongs to the model",
        })
    }
}

/// Start and end (exclusive) of a byte range in a text.
pub type ByteRange = (usize, usize);

/// Special tokens named by the files beside `tokenizer.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecialTokens {
    /// Beginning of sequence, as text; empty if the checkpoint has none.
    pub bos: String,
    /// End of sequence, as text; empty if the checkpoint has none.
    pub eos: String,
    /// Padding, as text; empty if the checkpoint has none.
    pub pad: String,
    /// Ids that end an answer, besides that of `eos`.
    pub end_ids: BTreeSet<u32>,
    /// Setting of whether texts begin with `bos`; None where `tokenizer.json` decides.
    pub adds_bos: Option<bool>,
    /// Tokens that `tokenizer.json` may lack, in the order of their ids.
    pub added: Vec<AddedToken>,
}

/// Tokenizer files of a folder, before `tokenizer.json` is parsed.
#[derive(Clone, Debug)]
pub struct TokenizerFiles {
    /// Path of `tokenizer.json`.
    pub path: PathBuf,
    /// Content of `tokenizer.json`.
    pub tokenizer: Vec<u8>,
    /// Special tokens from the other files.
    pub special: SpecialTokens,
}

impl TokenizerFiles {
    /// Reads the tokenizer files that belong to a Hugging Face folder.
    ///
    /// # Errors
    ///
    /// Returns [`TokenizerError`] if a file is missing, or a file beside `tokenizer.json` is
    /// malformed.
    pub fn read(dir: &Path) -> Result<Self, TokenizerError> {
        let path = dir.join("tokenizer.json");
        if !path.exists() && dir.join("tokenizer.model").exists() {
            return Err(TokenizerError::SentencePieceOnly { path: dir.to_owned() });
        }
        let read = OwnFolder::new(dir)
            .and_then(|own| own.read("tokenizer.json".as_ref(), LARGEST_TOKENIZER));
        let tokenizer = read.map_err(|source| TokenizerError::Io { path: path.clone(), source })?;
        let config = read_json(dir, "tokenizer_config.json")?;
        let specials = read_json(dir, "special_tokens_map.json")?;
        let special = |key| {
            let token = [&config, &specials].into_iter().find_map(|file| token_text(file.get(key)));
            token.unwrap_or_default()
        };
        let mut end_ids = BTreeSet::new();
        for name in ["generation_config.json", "config.json"] {
            end_ids.extend(eos_ids(read_json(dir, name)?.get("eos_token_id")));
        }
        let [bos, eos, pad] = ["bos_token", "eos_token", "pad_token"].map(special);
        let adds_bos = adds_bos(&config);
        let added = named_tokens(&config, &read_json(dir, "added_tokens.json")?, &specials);
        let special = SpecialTokens { bos, eos, pad, end_ids, adds_bos, added };
        Ok(Self { path, tokenizer, special })
    }
}

/// Maximum size of `tokenizer.json`, in bytes; files with a quarter of a million tokens have 35 MB.
const LARGEST_TOKENIZER: u64 = 1 << 30;

/// Maximum size of the other JSON files, in bytes; those of published models have less than 1 MB,
/// templates included.
pub(crate) const LARGEST_JSON: u64 = 64 << 20;

/// Tokenizer with the special tokens of its checkpoint.
#[derive(Clone, Debug)]
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    /// Beginning of sequence, as text; empty if the checkpoint has none.
    pub bos: String,
    /// End of sequence, as text; empty if the checkpoint has none.
    pub eos: String,
    /// Padding, as text; empty if the checkpoint has none.
    pub pad: String,
    stop_ids: Vec<u32>,
    unknown_id: Option<u32>,
    adds_bos: bool,
    /// Ids of added tokens that are markers: the library copies its whole table at each request.
    special_ids: BTreeSet<u32>,
}

impl TextTokenizer {
    /// Loads the tokenizer of a Hugging Face folder.
    ///
    /// `tokenizer.json` decides how much time and memory loading and encoding take, and neither is
    /// bounded here: use a [`TextEngine`](crate::TextEngine) with limits for an untrusted folder.
    ///
    /// # Errors
    ///
    /// Returns [`TokenizerError`] if a file is missing or malformed.
    pub fn load(dir: &Path) -> Result<Self, TokenizerError> {
        Self::new(TokenizerFiles::read(dir)?)
    }

    /// Builds a tokenizer from `files`.
    ///
    /// # Errors
    ///
    /// Returns [`TokenizerError::Malformed`] if `tokenizer.json` is malformed.
    pub fn new(files: TokenizerFiles) -> Result<Self, TokenizerError> {
        let TokenizerFiles { path, tokenizer, special } = files;
        let malformed =
            |e: tokenizers::Error| TokenizerError::Malformed { path, reason: e.to_string() };
        let unknown = UnknownToken::of(&tokenizer);
        let made = Tokenizer::from_bytes(tokenizer).and_then(|mut tokenizer| {
            // The caller decides about padding and truncation, not the file.
            tokenizer.with_padding(None);
            tokenizer.with_truncation(None)?;
            for token in &special.added {
                add_token(token, &mut tokenizer);
            }
            Ok(tokenizer)
        });
        let tokenizer = made.map_err(malformed)?;
        let SpecialTokens { bos, eos, pad, end_ids: mut stop, adds_bos, .. } = special;
        let adds_bos = adds_bos.unwrap_or_else(|| begins_with(&tokenizer, &bos));
        stop.extend(tokenizer.token_to_id(&eos));
        let unknown_id = unknown.id(&tokenizer);
        let added = tokenizer.get_added_tokens_decoder().into_iter();
        let special_ids = added.filter(|(_, token)| token.special).map(|(id, _)| id).collect();
        Ok(Self {
            tokenizer,
            bos,
            eos,
            pad,
            stop_ids: stop.into_iter().collect(),
            unknown_id,
            adds_bos,
            special_ids,
        })
    }

    /// Returns the ids that end an answer.
    #[must_use]
    pub fn stop_ids(&self) -> &[u32] {
        &self.stop_ids
    }

    /// Adds an id that ends an answer.
    pub(crate) fn stop_at(&mut self, id: u32) {
        if let Err(place) = self.stop_ids.binary_search(&id) {
            self.stop_ids.insert(place, id);
        }
    }

    /// True if the tokenizer puts a beginning of sequence before a text.
    #[must_use]
    pub fn adds_bos(&self) -> bool {
        self.adds_bos
    }

    /// True if an id is a marker and no text.
    #[must_use]
    pub fn is_special(&self, id: u32) -> bool {
        self.stop_ids.contains(&id) || self.special_ids.contains(&id)
    }

    /// Returns the id for text without a token; None for byte-level tokenizers.
    #[must_use]
    pub fn unknown_id(&self) -> Option<u32> {
        self.unknown_id
    }

    /// Returns the id of a token; None if the token is unknown.
    #[must_use]
    pub fn id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// Returns the token of an id; None if the id has no token.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        self.tokenizer.id_to_token(id)
    }

    /// Returns the number of token ids, added tokens included.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// Returns the ids of visible text: neither special nor added tokens, nor tokens that show
    /// nothing.
    #[must_use]
    pub fn text_ids(&self) -> Vec<u32> {
        let added = self.tokenizer.get_added_tokens_decoder();
        let shows = |id: &u32| {
            let text = self.tokenizer.decode(&[*id], true).unwrap_or_default();
            text.chars().any(|c| !c.is_whitespace() && !c.is_control() && c != '\u{FFFD}')
        };
        let mut ids: Vec<u32> = self.tokenizer.get_vocab(false).into_values().collect();
        ids.sort_unstable();
        ids.into_iter().filter(|id| !added.contains_key(id)).filter(shows).collect()
    }

    /// Encodes a text into ids and their byte ranges. No special token is added; those written in
    /// the text are recognised.
    ///
    /// # Errors
    ///
    /// Returns [`TokenizerError::Failed`] if the text cannot be encoded.
    pub fn encode(&self, text: &str) -> Result<(Vec<u32>, Vec<ByteRange>), TokenizerError> {
        let encoding = self.tokenizer.encode(text, false).map_err(failed)?;
        Ok((encoding.get_ids().to_vec(), encoding.get_offsets().to_vec()))
    }

    /// Decodes ids into text without special tokens.
    ///
    /// # Errors
    ///
    /// Returns [`TokenizerError::Failed`] if the ids cannot be decoded.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        self.tokenizer.decode(ids, true).map_err(failed)
    }
}

/// Unknown token of a `tokenizer.json`, by name or id.
#[derive(Default, Deserialize)]
struct UnknownToken {
    unk_token: Option<String>,
    unk_id: Option<u32>,
}

impl UnknownToken {
    fn of(tokenizer_json: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct File {
            model: UnknownToken,
        }
        serde_json::from_slice::<File>(tokenizer_json).map_or_else(|_| Self::default(), |f| f.model)
    }

    fn id(&self, tokenizer: &Tokenizer) -> Option<u32> {
        self.unk_id.or_else(|| tokenizer.token_to_id(self.unk_token.as_deref()?))
    }
}

fn failed(error: tokenizers::Error) -> TokenizerError {
    TokenizerError::Failed { reason: error.to_string() }
}

/// Reads a JSON file that belongs to the folder `dir`; null if the file is missing.
pub(crate) fn read_json(dir: &Path, name: &str) -> Result<Value, TokenizerError> {
    let path = dir.join(name);
    let text = OwnFolder::new(dir).and_then(|own| own.read_to_string(name.as_ref(), LARGEST_JSON));
    let text = match text {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Value::Null),
        Err(source) => return Err(TokenizerError::Io { path, source }),
    };
    let malformed =
        |e: serde_json::Error| TokenizerError::Malformed { path, reason: e.to_string() };
    serde_json::from_str(&text).map_err(malformed)
}

fn eos_ids(value: Option<&Value>) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Some(Value::Array(ids)) => ids.iter().filter_map(id).collect(),
        Some(value) => id(value).into_iter().collect(),
        None => Vec::new(),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use serde_json::{Value, json};

    /// Writes a folder with a word-level tokenizer over `words`, with ids in order; tokens in
    /// `special` are recognised within text. Texts begin with the `bos_token` of `config`.
    pub(crate) fn folder(words: &[&str], special: &[&str], config: &Value) -> tempfile::TempDir {
        let id = |word: &str| words.iter().position(|known| *known == word).unwrap();
        let vocab: serde_json::Map<String, Value> =
            words.iter().map(|word| ((*word).to_owned(), json!(id(word)))).collect();
        let added: Vec<Value> = special
            .iter()
            .map(|word| {
                json!({"id": id(word), "content": word, "single_word": false, "lstrip": false,
                       "rstrip": false, "normalized": false, "special": true})
            })
            .collect();
        let bos = config["bos_token"].as_str().filter(|bos| words.contains(bos));
        let post_processor = bos.map(|bos| {
            let first = json!({"SpecialToken": {"id": bos, "type_id": 0}});
            let text = |id| json!({"Sequence": {"id": id, "type_id": 0}});
            json!({"type": "TemplateProcessing", "single": [first, text("A")],
                   "pair": [first, text("A"), text("B")],
                   "special_tokens": {bos: {"id": bos, "ids": [id(bos)], "tokens": [bos]}}})
        });
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
            "normalizer": null, "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": post_processor,
            "decoder": null,
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": words[0]},
        });
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
        dir
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use serde_json::json;
    use tempfile::TempDir;

    use super::testing::folder;
    use super::*;
    use crate::mutated::near;

    /// Example of a `tokenizer_config.json`, with keys that are read and one that is not.
    const CONFIG: &str = r#"{"bos_token": {"__type": "AddedToken", "content": "<s>", "lstrip": false},
        "eos_token": "</s>", "pad_token": null, "model_max_length": 1e30}"#;

    /// Small `tokenizer.json` of the same kind as Llama's.
    const TOKENIZER: &str = r#"{"version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{"id": 1, "content": "<s>", "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false, "special": true}],
        "normalizer": {"type": "Prepend", "prepend": "_"},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
        "post_processor": null, "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "unk_token": "u", "fuse_unk": true, "byte_fallback": false,
        "vocab": {"u": 0, "<s>": 1, "h": 2, "o": 3, "ho": 4}, "merges": ["h o"]}}"#;

    /// Folder with a valid tokenizer.
    static FOLDER: LazyLock<TempDir> = LazyLock::new(|| folder(&WORDS, &SPECIAL, &json!({})));

    const WORDS: [&str; 7] = ["<unk>", "<s>", "</s>", "<pad>", "how", "are", "you"];
    const SPECIAL: [&str; 4] = ["<unk>", "<s>", "</s>", "<pad>"];

    #[test]
    fn texts_begin_as_the_tokenizer_or_its_class_begins_them() {
        let adds_bos = |config: Value| {
            let dir = folder(&WORDS, &SPECIAL, &config);
            TextTokenizer::load(dir.path()).unwrap().adds_bos()
        };
        let of_class = |class: &str, setting: Option<bool>| {
            let mut config = json!({"bos_token": "<s>", "tokenizer_class": class});
            if let Some(setting) = setting {
                config["add_bos_token"] = json!(setting);
            }
            adds_bos(config)
        };
        assert!(adds_bos(json!({"bos_token": "<s>"})), "the post-processor adds it");
        assert!(of_class("PreTrainedTokenizerFast", Some(false)), "the class has no such setting");
        assert!(of_class("LlamaTokenizerFast", None));
        assert!(!of_class("LlamaTokenizer", Some(false)));
        let dir = folder(&WORDS, &SPECIAL, &json!({}));
        std::fs::write(dir.path().join("tokenizer_config.json"), CONFIG).unwrap();
        let without = TextTokenizer::load(dir.path()).unwrap();
        assert_eq!((without.bos.as_str(), without.adds_bos()), ("<s>", false));
    }

    #[test]
    fn tokens_that_only_the_files_beside_name_are_added_in_the_order_of_their_ids() {
        let token = |content: &str| {
            json!({"content": content, "lstrip": false, "rstrip": false,
            "normalized": false, "single_word": false, "special": true})
        };
        let decoder = json!({"8": token("<end>"), "7": token("<start>"), "1": token("<s>")});
        let dir = folder(
            &WORDS,
            &SPECIAL,
            &json!({"added_tokens_decoder": decoder,
            "eos_token": "<end>", "additional_special_tokens": ["<more>"]}),
        );
        std::fs::write(dir.path().join("added_tokens.json"), r#"{"<old>": 9}"#).unwrap();
        let tokenizer = TextTokenizer::load(dir.path()).unwrap();
        let ids = ["<s>", "<start>", "<end>", "<old>", "<more>"].map(|t| tokenizer.id(t));
        assert_eq!(ids, [1, 7, 8, 9, 10].map(Some));
        assert_eq!(tokenizer.encode("how<end>").unwrap().0, [4, 8]);
        assert_eq!(tokenizer.stop_ids(), [8]);
        assert!(tokenizer.is_special(7) && !tokenizer.is_special(4));
    }

    #[test]
    fn special_tokens_in_the_text_are_recognised_and_none_is_added() {
        let dir = folder(&WORDS, &SPECIAL, &json!({}));
        let tokenizer = TextTokenizer::load(dir.path()).unwrap();
        let (ids, offsets) = tokenizer.encode("<s>how are</s>").unwrap();
        assert_eq!(ids, [1, 4, 5, 2]);
        assert_eq!(offsets, [(0, 3), (3, 6), (7, 10), (10, 14)]);
        assert_eq!(tokenizer.decode(&ids).unwrap(), "how are");
    }

    #[test]
    fn special_tokens_are_named_by_text_or_object_in_either_file() {
        let config = json!({"bos_token": {"content": "<s>"}, "eos_token": "</s>"});
        let dir = folder(&WORDS, &SPECIAL, &config);
        let map = json!({"pad_token": {"content": "<pad>", "lstrip": false}});
        std::fs::write(dir.path().join("special_tokens_map.json"), map.to_string()).unwrap();
        let tokenizer = TextTokenizer::load(dir.path()).unwrap();
        let names = [&tokenizer.bos, &tokenizer.eos, &tokenizer.pad];
        assert_eq!(names, ["<s>", "</s>", "<pad>"]);
        assert_eq!(tokenizer.id("you"), Some(6));
        assert_eq!(tokenizer.token(6).as_deref(), Some("you"));
        assert_eq!((tokenizer.id("me"), tokenizer.token(7)), (None, None));
    }

    #[test]
    fn every_file_may_name_ids_that_end_an_answer() {
        let dir = folder(&WORDS, &SPECIAL, &json!({"eos_token": "</s>"}));
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("config.json", r#"{"eos_token_id": 3}"#);
        write("generation_config.json", r#"{"eos_token_id": [2, 5]}"#);
        assert_eq!(TextTokenizer::load(dir.path()).unwrap().stop_ids(), [2, 3, 5]);
    }

    #[test]
    fn a_sentencepiece_model_alone_gets_a_hint() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tokenizer.model"), "x").unwrap();
        let error = TextTokenizer::load(dir.path()).unwrap_err();
        assert!(matches!(error, TokenizerError::SentencePieceOnly { .. }), "{error}");
        assert!(error.hint().unwrap().contains("convert"));
    }

    #[test]
    fn a_missing_or_malformed_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let load = || TextTokenizer::load(dir.path()).unwrap_err();
        assert!(matches!(load(), TokenizerError::Io { .. }));
        std::fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
        assert!(matches!(load(), TokenizerError::Malformed { .. }));
        assert!(load().hint().unwrap().contains("damaged"));
        // An unreadable file differs from a missing one.
        std::fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
        assert!(load().hint().unwrap().contains("should hold"));
        std::fs::create_dir(dir.path().join("tokenizer.json")).unwrap();
        assert!(load().to_string().contains("cannot read"));
        assert!(load().hint().unwrap().contains("not a folder"));
    }

    proptest::proptest! {
        #[test]
        fn words_survive_the_round_trip(words in proptest::collection::vec(4_u32..7, 0..20)) {
            let dir = folder(&WORDS, &SPECIAL, &json!({}));
            let tokenizer = TextTokenizer::load(dir.path()).unwrap();
            let text = tokenizer.decode(&words).unwrap();
            proptest::prop_assert_eq!(tokenizer.encode(&text).unwrap().0, words);
        }

        #[test]
        fn no_text_makes_the_reader_panic(
            config in near(&[CONFIG]),
            map in near(&[r#"{"pad_token": {"content": "<pad>", "lstrip": false}}"#]),
            generation in near(&[r#"{"eos_token_id": [2, 5]}"#, r#"{"eos_token_id": 2}"#]),
        ) {
            let dir = FOLDER.path();
            std::fs::write(dir.join("tokenizer_config.json"), config).unwrap();
            std::fs::write(dir.join("special_tokens_map.json"), map).unwrap();
            std::fs::write(dir.join("generation_config.json"), generation).unwrap();
            if let Ok(tokenizer) = TextTokenizer::load(dir) {
                tokenizer.encode(&tokenizer.bos).unwrap();
            }
        }

        #[test]
        fn no_tokenizer_makes_the_reader_panic(text in near(&[TOKENIZER])) {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("tokenizer.json"), text).unwrap();
            if let Ok(tokenizer) = TextTokenizer::load(dir.path()) {
                let _ = tokenizer.encode("<s>how are you?").map(|(ids, _)| tokenizer.decode(&ids));
            }
        }
    }
}
