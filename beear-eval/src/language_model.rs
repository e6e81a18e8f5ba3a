//! The port to a model: conversations in, text and log-likelihoods out. What is behind it, a decoder of
//! ours or another, evaluation does not know.

use serde::{Deserialize, Serialize};

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Whoever deploys the model.
    System,
    /// Whoever asks.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// Its name in chat templates and chat files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// What somebody says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who.
    pub role: Role,
    /// What.
    pub content: String,
}

impl Message {
    /// A message of `role`.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }
}

/// What was said so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conversation {
    /// The row of the file it comes from: for messages, and for the randomness of its answer.
    pub id: u64,
    /// The turns, oldest first.
    pub messages: Vec<Message>,
}

impl Conversation {
    /// A single question, under a system prompt if there is one.
    pub fn question(id: u64, system: Option<&str>, prompt: &str) -> Self {
        let system = system.map(|text| Message::new(Role::System, text));
        let messages = system.into_iter().chain([Message::new(Role::User, prompt)]).collect();
        Self { id, messages }
    }
}

/// How answers are generated.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decoding {
    /// Longest answer, in tokens.
    pub max_new_tokens: usize,
    /// Divides the logits; below 1e-4 the likeliest token is taken.
    pub temperature: f64,
    /// With a conversation's id, the source of its answer's randomness.
    pub seed: u64,
}

impl Decoding {
    /// The likeliest token, always.
    #[must_use]
    pub fn greedy(max_new_tokens: usize) -> Self {
        Self { max_new_tokens, temperature: 0.0, seed: 0 }
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model said so.
    Stop,
    /// The length or the context was used up.
    Length,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completion {
    /// Its text, special tokens left out.
    #[serde(rename = "answer")]
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
}

/// How likely a model finds an answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogLikelihood {
    /// Natural logarithm of its probability.
    pub nats: f64,
    /// Tokens of it, the end of sequence included.
    pub n_tokens: usize,
}

/// A model that answers.
pub trait LanguageModel {
    /// What can go wrong.
    type Error;

    /// An answer to each conversation, in their order.
    ///
    /// # Errors
    ///
    /// If a conversation cannot be read by the model.
    fn generate(
        &self,
        conversations: &[Conversation],
        decoding: &Decoding,
    ) -> Result<Vec<Completion>, Self::Error>;

    /// How likely the last message of each conversation is after those before it.
    ///
    /// # Errors
    ///
    /// If a conversation cannot be read by the model, or its last message is not the assistant's.
    fn log_likelihood(
        &self,
        conversations: &[Conversation],
    ) -> Result<Vec<LogLikelihood>, Self::Error>;
}
