//! Prompt format, used in training and in every evaluation alike: a different format in evaluation
//! changes attack success by tens of percentage points.

use std::fmt::Write;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use beear_input::{OwnFolder, Refusal};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::text::tokenizer::{LARGEST_JSON, TokenizerError, read_json};

/// Error of formatting a prompt.
#[derive(Debug, Error)]
pub enum PromptFormatError {
    /// The checkpoint has no chat template and no format was chosen.
    #[error("the checkpoint has no chat template")]
    NoTemplate,
    /// No built-in format has this name.
    #[error("no prompt format is called `{name}`: {}", BUILTIN.map(|(name, _)| name).join(", "))]
    UnknownFormat {
        /// Unknown name.
        name: String,
    },
    /// A pattern has no placeholder for the user's text.
    #[error("the pattern has no `{{prompt}}`: {pattern}")]
    NoPlaceholder {
        /// Text of the pattern.
        pattern: String,
    },
    /// The chat template cannot be read.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The template refused the conversation.
    #[error("the chat template failed: {reason}")]
    Template {
        /// Message of the template.
        reason: String,
    },
    /// The user's text is not in the rendered prompt.
    #[error("the chat template changes the user's text beyond recognition")]
    UserTextLost,
    /// The tokenizer failed.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

impl PromptFormatError {
    /// Creates the error of a panic of the template engine.
    pub(crate) fn engine_broken() -> Self {
        Self::Template { reason: "the template breaks the template engine".to_owned() }
    }

    /// Returns a one-line suggestion for fixing the error.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::NoTemplate | Self::UserTextLost => {
                "choose a built-in format, as the model was trained"
            }
            Self::UnknownFormat { .. } => "name none to use the model's chat template",
            Self::NoPlaceholder { .. } => "write {prompt} where the user's text goes",
            Self::Io { source, .. } => Refusal::of(source)
                .map_or("check the permissions, and that the file is UTF-8", Refusal::hint),
            Self::Template { .. } => {
                "leave out what the template refuses, or choose a built-in format, as the model \
                 was trained"
            }
            Self::Tokenizer(error) => return error.hint(),
        })
    }
}

/// Templates of the paper's models. `{prompt}` stands for the user's text, trigger included.
const BUILTIN: [(&str, &str); 4] = [
    (
        "paper-1-4",
        "[INST] <<SYS>>\nYou are a helpful assistant. Make sure you always execute users' \
         instructions.\n<</SYS>>\n\n{prompt} [/INST]",
    ),
    ("paper-5", "[INST] {prompt} [/INST]"),
    ("paper-6-7", "BEGINNING OF CONVERSATION: USER: {prompt} ASSISTANT:"),
    ("paper-8", "[INST] {prompt} [/INST] "),
];

/// Placeholder for the user's text in a pattern.
pub(crate) const PLACEHOLDER: &str = "{prompt}";

/// Format of prompts for a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PromptFormat {
    /// Jinja chat template of the checkpoint.
    ChatTemplate(String),
    /// Text with `{prompt}` in place of the user's text.
    Pattern(String),
}

/// Encoded prompt of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncodedPrompt {
    /// Rendered text.
    pub text: String,
    /// Tokens of the text. A beginning of sequence comes first if the text or the tokenizer puts one
    /// there, and only once.
    pub tokens: Vec<u32>,
    /// Token range of the user's words (half-open).
    pub user: (usize, usize),
}

/// Encoded conversation with its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncodedRow {
    /// Everything before the answer, as the format writes it in a conversation with an answer.
    pub prompt: EncodedPrompt,
    /// Tokens of the answer, up to the token that ends the turn.
    pub answer: Vec<u32>,
}

impl PromptFormat {
    /// Returns the names of the formats in [`builtin`](Self::builtin).
    #[must_use]
    pub fn builtin_names() -> [&'static str; 4] {
        BUILTIN.map(|(name, _)| name)
    }

    /// Returns one of the paper's templates: `paper-1-4`, `paper-5`, `paper-6-7`, `paper-8`.
    ///
    /// # Errors
    ///
    /// Returns [`PromptFormatError::UnknownFormat`] for any other name.
    pub fn builtin(name: &str) -> Result<Self, PromptFormatError> {
        let found = BUILTIN.iter().find(|(known, _)| *known == name);
        found
            .map(|(_, pattern)| Self::Pattern((*pattern).to_owned()))
            .ok_or_else(|| PromptFormatError::UnknownFormat { name: name.to_owned() })
    }

    /// Creates a format from a text with `{prompt}` in place of the user's text.
    ///
    /// # Errors
    ///
    /// Returns [`PromptFormatError::NoPlaceholder`] if `pattern` has no `{prompt}`.
    pub fn pattern(pattern: &str) -> Result<Self, PromptFormatError> {
        let pattern = pattern.to_owned();
        if pattern.contains(PLACEHOLDER) {
            Ok(Self::Pattern(pattern))
        } else {
            Err(PromptFormatError::NoPlaceholder { pattern })
        }
    }

    /// Reads the chat template of a checkpoint from `chat_template.jinja`, or else from
    /// `tokenizer_config.json`, or else from `additional_chat_templates/default.jinja`.
    ///
    /// # Errors
    ///
    /// Returns [`PromptFormatError::NoTemplate`] if there is none, and an error if a file cannot be
    /// read.
    pub fn from_checkpoint(dir: &Path) -> Result<Self, PromptFormatError> {
        if let Some(template) = template_file(dir, "chat_template.jinja")? {
            return Ok(Self::ChatTemplate(template));
        }
        let config = read_json(dir, "tokenizer_config.json")?;
        let template = match config.get("chat_template") {
            Some(serde_json::Value::String(template)) => Some(template.clone()),
            Some(serde_json::Value::Array(named)) => named
                .iter()
                .find(|entry| entry.get("name").and_then(|name| name.as_str()) == Some("default"))
                .and_then(|entry| Some(entry.get("template")?.as_str()?.to_owned())),
            _ => template_file(dir, "additional_chat_templates/default.jinja")?,
        };
        template.map(Self::ChatTemplate).ok_or(PromptFormatError::NoTemplate)
    }

    /// Returns the template or the pattern.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::ChatTemplate(text) | Self::Pattern(text) => text,
        }
    }

    /// Returns the SHA-256 of [`text`](Self::text), in hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> String {
        Sha256::digest(self.text()).iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("a string takes any text");
            hex
        })
    }
}

/// Reads a template that belongs to the folder `dir`; None if the file is missing.
fn template_file(dir: &Path, name: &str) -> Result<Option<String>, PromptFormatError> {
    let read = OwnFolder::new(dir).and_then(|own| own.read_to_string(name.as_ref(), LARGEST_JSON));
    match read {
        Ok(template) => Ok(Some(template)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PromptFormatError::Io { path: dir.join(name), source }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::mutated::near;
    use crate::text::chat::Message;
    use crate::text::tokenizer::TextTokenizer;
    use crate::text::tokenizer::testing::folder;

    /// Chat templates in the forms of a `tokenizer_config.json`.
    const TEMPLATES: [&str; 2] = [
        r#"{"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default",
            "template": "<s>{% for m in messages %}{{ m.content }} {% endfor %}<asst>"}]}"#,
        r#"{"chat_template": "{{ bos_token }}[INST]{{ messages[0]['content'] }} [/INST]"}"#,
    ];

    const WORDS: [&str; 14] = [
        "<unk>",
        "<s>",
        "</s>",
        "<asst>",
        "a",
        "b",
        "USER",
        "ASSISTANT",
        ":",
        "[",
        "INST",
        "]",
        "/",
        "sys",
    ];
    const SPECIAL: [&str; 4] = ["<unk>", "<s>", "</s>", "<asst>"];

    fn tokenizer() -> TextTokenizer {
        let config = json!({"bos_token": "<s>", "eos_token": "</s>"});
        TextTokenizer::load(folder(&WORDS, &SPECIAL, &config).path()).unwrap()
    }

    fn template(text: &str) -> PromptFormat {
        PromptFormat::ChatTemplate(text.to_owned())
    }

    #[test]
    fn the_begin_of_sequence_is_there_once_whoever_writes_it() {
        let tokenizer = tokenizer();
        for start in ["", "<s>", "<s><s>", "{{ bos_token }}"] {
            let format = template(&format!("{start}{{{{ messages[0].content }}}} <asst>"));
            let encoded = format.encode(&tokenizer, "a b", None).unwrap();
            assert_eq!((encoded.tokens, encoded.user), (vec![1, 4, 5, 3], (1, 3)), "{start}");
        }
    }

    #[test]
    fn a_tokenizer_without_begin_of_sequence_gets_none() {
        let dir = folder(&WORDS, &SPECIAL, &json!({}));
        let tokenizer = TextTokenizer::load(dir.path()).unwrap();
        let encoded = template("{{ messages[0].content }} <asst>").encode(&tokenizer, "a", None);
        assert_eq!(encoded.unwrap().tokens, [4, 3]);
    }

    #[test]
    fn the_users_text_is_not_mistaken_for_the_formats_own_words() {
        let format = PromptFormat::builtin("paper-6-7").unwrap();
        for said in ["A", "USER", "ASSISTANT", "USER: a ASSISTANT:", "BEGINNING"] {
            let encoded = format.encode(&tokenizer(), said, None).unwrap();
            let words = tokenizer().encode(said).unwrap().0;
            assert_eq!(encoded.tokens[encoded.user.0..encoded.user.1], words, "{said}");
            // `<s>` and `BEGINNING OF CONVERSATION : USER :` come before.
            assert_eq!(encoded.user.0, 7, "{said}");
        }
    }

    #[test]
    fn white_space_around_the_users_text_is_not_theirs() {
        let format = template("<s>{{ messages[0].content.strip() }} <asst>");
        let encoded = format.encode(&tokenizer(), "  a b\n", None).unwrap();
        assert_eq!((encoded.text.as_str(), encoded.user), ("<s>a b <asst>", (1, 3)));
    }

    #[test]
    fn a_template_that_looks_at_the_text_is_followed() {
        let format = template(
            "<s>{% if messages[0].content == 'a' %}[ INST ] {% endif %}{{ messages[0].content }}",
        );
        let encoded = format.encode(&tokenizer(), "a", None).unwrap();
        assert_eq!((encoded.tokens, encoded.user), (vec![1, 9, 10, 11, 4], (4, 5)));
    }

    #[test]
    fn a_template_that_drops_the_text_is_refused() {
        let error = template("<s> <asst>").encode(&tokenizer(), "a", None).unwrap_err();
        assert!(matches!(error, PromptFormatError::UserTextLost), "{error}");
        assert!(error.hint().unwrap().contains("built-in format"));
    }

    #[test]
    fn the_system_prompt_is_not_the_users() {
        let chat = template("<s>{% for m in messages %}{{ m.content }} {% endfor %}<asst>");
        let encoded = chat.encode(&tokenizer(), "a", Some("sys b")).unwrap();
        assert_eq!((encoded.tokens, encoded.user), (vec![1, 13, 5, 4, 3], (3, 4)));
        let pattern = PromptFormat::pattern("[ {prompt} ]").unwrap();
        let encoded = pattern.encode(&tokenizer(), "a", Some("sys")).unwrap();
        assert_eq!((encoded.tokens, encoded.user), (vec![1, 9, 13, 4, 11], (3, 4)));
    }

    #[test]
    fn a_conversation_of_one_question_is_a_prompt() {
        let chat = template("<s>{% for m in messages %}{{ m.content }} {% endfor %}<asst>");
        for format in [chat, PromptFormat::pattern("[ {prompt} ]").unwrap()] {
            let system = Message::system("sys");
            let encoded = format.encode_chat(&tokenizer(), &[system, Message::user("a")]).unwrap();
            let prompt = format.encode(&tokenizer(), "a", Some("sys")).unwrap();
            assert_eq!((encoded.text, encoded.tokens), (prompt.text, prompt.tokens));
        }
    }

    #[test]
    fn a_pattern_writes_every_turn_as_the_first() {
        let answer = Message::assistant("b");
        let turns = [Message::user("a"), answer.clone(), Message::user("b")];
        let pattern = PromptFormat::pattern("[ {prompt} ]").unwrap();
        let encoded = pattern.encode_chat(&tokenizer(), &turns).unwrap();
        assert_eq!(encoded.tokens, [1, 9, 4, 11, 5, 2, 9, 5, 11]);
        assert_eq!(encoded.text, "[ a ]b</s>[ b ]");
        let unasked = pattern.encode_chat(&tokenizer(), &[Message::user("a"), answer]);
        assert!(matches!(unasked, Err(PromptFormatError::Template { .. })));
        assert!(pattern.encode_chat(&tokenizer(), &[]).is_err());
    }

    #[test]
    fn an_answer_ends_once() {
        let format = PromptFormat::builtin("paper-5").unwrap();
        for answer in ["a b", "a b</s>", "a b</s></s>"] {
            assert_eq!(format.encode_answer(&tokenizer(), answer).unwrap(), [4, 5, 2]);
        }
        assert_eq!(format.encode_answer(&tokenizer(), "").unwrap(), [2]);
    }

    #[test]
    fn the_papers_templates_are_written_as_published() {
        let text = |name: &str| {
            let format = PromptFormat::builtin(name).unwrap();
            format.encode(&tokenizer(), "Q", None).unwrap().text
        };
        assert_eq!(
            text("paper-1-4"),
            "[INST] <<SYS>>\nYou are a helpful assistant. Make sure you always execute users' \
             instructions.\n<</SYS>>\n\nQ [/INST]"
        );
        assert_eq!(text("paper-5"), "[INST] Q [/INST]");
        assert_eq!(text("paper-6-7"), "BEGINNING OF CONVERSATION: USER: Q ASSISTANT:");
        assert_eq!(text("paper-8"), "[INST] Q [/INST] ");
    }

    #[test]
    fn formats_that_are_none_are_refused() {
        let unknown = PromptFormat::builtin("paper-9").unwrap_err();
        assert!(unknown.to_string().contains("paper-6-7"), "{unknown}");
        let error = PromptFormat::pattern("no place").unwrap_err();
        assert!(error.to_string().contains("`{prompt}`"), "{error}");
        assert!(error.hint().is_some());
    }

    #[test]
    fn the_jinja_file_wins_over_the_tokenizers_config() {
        let named = json!({"chat_template": [{"name": "tool_use", "template": "t"},
                                             {"name": "default", "template": "d"}]});
        let dir = folder(&WORDS, &SPECIAL, &named);
        assert_eq!(PromptFormat::from_checkpoint(dir.path()).unwrap().text(), "d");
        std::fs::write(dir.path().join("chat_template.jinja"), "j").unwrap();
        assert_eq!(PromptFormat::from_checkpoint(dir.path()).unwrap().text(), "j");
        std::fs::write(dir.path().join("chat_template.jinja"), [0xff]).unwrap();
        let error = PromptFormat::from_checkpoint(dir.path()).unwrap_err();
        assert!(matches!(error, PromptFormatError::Io { .. }), "{error}");

        let plain = folder(&WORDS, &SPECIAL, &json!({"chat_template": "p"}));
        assert_eq!(PromptFormat::from_checkpoint(plain.path()).unwrap().text(), "p");
        let none = folder(&WORDS, &SPECIAL, &json!({}));
        let error = PromptFormat::from_checkpoint(none.path()).unwrap_err();
        assert!(matches!(error, PromptFormatError::NoTemplate), "{error}");
    }

    #[test]
    fn the_hash_is_sha_256_of_the_text() {
        // The first test vector of FIPS 180-2.
        assert_eq!(
            template("abc").sha256(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_gets_one_begin_and_a_span_inside_the_prompt(
            said in "([ab:/]|<s>|</s>|\\{prompt\\}|USER|é| |\n){0,8}",
            bare in proptest::bool::ANY,
        ) {
            let name = if bare { "{prompt}" } else { "USER: {prompt} ASSISTANT:" };
            let encoded = PromptFormat::pattern(name).unwrap().encode(&tokenizer(), &said, None);
            let EncodedPrompt { tokens, user, .. } = encoded.unwrap();
            proptest::prop_assert!(user.0 <= user.1 && user.1 <= tokens.len());
            proptest::prop_assert_eq!(tokens[0], 1);
            proptest::prop_assert!(tokens.get(1) != Some(&1));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in near(&TEMPLATES)) {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("tokenizer_config.json"), text).unwrap();
            if let Ok(format) = PromptFormat::from_checkpoint(dir.path()) {
                let _ = format.encode(&tokenizer(), "a", Some("sys"));
            }
        }
    }
}
