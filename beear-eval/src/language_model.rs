//! Interface to a language model: conversations in, text and log-likelihoods out. The evaluation
//! does not depend on the implementation of the model.

use serde::{Deserialize, Serialize};

/// Role of a speaker in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Deployer of the model.
    System,
    /// User who asks.
    User,
    /// Model that answers.
    Assistant,
}

impl Role {
    /// Returns the name of the role in chat templates and chat files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// Message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Role of the speaker.
    pub role: Role,
    /// Text of the message.
    pub content: String,
}

impl Message {
    /// Creates a message of `role`.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }
}

/// Conversation so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conversation {
    /// Number of the row in the source file, used in messages and, with the seed, for sampling the
    /// answer.
    pub id: u64,
    /// Messages, oldest first.
    pub messages: Vec<Message>,
}

impl Conversation {
    /// Creates a conversation with a single question and an optional system prompt.
    pub fn question(id: u64, system: Option<&str>, prompt: &str) -> Self {
        let system = system.map(|text| Message::new(Role::System, text));
        let messages = system.into_iter().chain([Message::new(Role::User, prompt)]).collect();
        Self { id, messages }
    }
}

/// Decoding settings of generated answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decoding {
    /// Maximum length of an answer, in tokens.
    pub max_new_tokens: usize,
    /// Sampling temperature, which divides the logits; decoding is greedy below 1e-4.
    pub temperature: f64,
    /// Seed of the sampling, together with the id of the conversation.
    pub seed: u64,
}

impl Decoding {
    /// Creates settings for greedy decoding.
    #[must_use]
    pub fn greedy(max_new_tokens: usize) -> Self {
        Self { max_new_tokens, temperature: 0.0, seed: 0 }
    }
}

/// Reason for the end of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model ended the answer.
    Stop,
    /// The maximum length or the context was reached.
    Length,
}

/// Answer of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completion {
    /// Text of the answer without special tokens.
    #[serde(rename = "answer")]
    pub text: String,
    /// Reason for the end of the answer.
    pub finish: Finish,
}

/// Log-likelihood of an answer under a model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogLikelihood {
    /// Natural logarithm of the answer's probability.
    pub nats: f64,
    /// Number of tokens of the answer, including the end of sequence.
    pub n_tokens: usize,
}

/// Language model that answers conversations.
pub trait LanguageModel {
    /// Error of the model.
    type Error;

    /// Generates an answer to each conversation, in order.
    ///
    /// # Errors
    ///
    /// Returns an error if the model cannot process a conversation.
    fn generate(
        &self,
        conversations: &[Conversation],
        decoding: &Decoding,
    ) -> Result<Vec<Completion>, Self::Error>;

    /// Computes the log-likelihood of each conversation's last message, given the messages before
    /// it.
    ///
    /// # Errors
    ///
    /// Returns an error if the model cannot process a conversation, or a last message is not the
    /// assistant's.
    fn log_likelihood(
        &self,
        conversations: &[Conversation],
    ) -> Result<Vec<LogLikelihood>, Self::Error>;
}
