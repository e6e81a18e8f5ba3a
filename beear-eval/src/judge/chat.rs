//! The port to a judge: a chat request in, a reply out.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::language_model::{Finish, Message};

/// Which judge: with the request, what a reply depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgeId {
    /// The model's name.
    pub model: String,
    /// Where it is: a server's URL, or something that tells a checkpoint's weights from all others.
    pub place: String,
}

impl fmt::Display for JudgeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.model, self.place)
    }
}

/// What a judge is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatRequest {
    /// The conversation, the last message being the question.
    pub messages: Vec<Message>,
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f64,
    /// Longest reply, in tokens.
    pub max_tokens: usize,
}

impl ChatRequest {
    /// The SHA-256, in hexadecimal, of all that the reply of `judge` depends on. No key is part of it.
    ///
    /// # Panics
    ///
    /// Never: a request of text and numbers is JSON.
    #[must_use]
    pub fn key(&self, judge: &JudgeId) -> String {
        let content = serde_json::to_vec(&(judge, self)).expect("text and numbers are JSON");
        let digest = Sha256::digest(&content);
        digest.iter().fold(String::new(), |key, byte| format!("{key}{byte:02x}"))
    }
}

/// What a judge replied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Its text.
    pub text: String,
    /// Why it ended, if that is known.
    pub finish: Option<Finish>,
}

/// Why a call brought no reply. No message holds a key.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallError {
    /// Nothing, or not all, came in time.
    #[error("no reply within {milliseconds} ms")]
    Timeout {
        /// How long was waited.
        milliseconds: u64,
    },
    /// The server was not reached, or does not speak HTTP.
    #[error("no connection to the judge: {reason}")]
    Connection {
        /// What went wrong.
        reason: String,
    },
    /// The reply breaks off.
    #[error("the reply breaks off after {n_bytes} bytes")]
    Truncated {
        /// What came of it; 0 if that is unknown.
        n_bytes: usize,
    },
    /// The server says no.
    #[error("the judge says status {status}: {body}")]
    Status {
        /// Its HTTP status.
        status: u16,
        /// How long it asks to wait, in seconds.
        retry_after: Option<u64>,
        /// The beginning of what it says.
        body: String,
    },
    /// The server says yes and no reply is in what it says.
    #[error("the judge's reply is malformed, {reason}: {body}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
        /// The beginning of what it says.
        body: String,
    },
    /// A local model cannot answer.
    #[error("the model cannot answer: {reason}")]
    Model {
        /// What it says.
        reason: String,
    },
    /// The run has made all the calls it may.
    #[error("all calls of the run are used up: {max_calls}")]
    CallLimit {
        /// How many it may make.
        max_calls: usize,
    },
}

impl CallError {
    /// Whether the same call may go well later: timeouts, connections, replies that break off, and the
    /// statuses 408, 429, 500, 502, 503 and 504.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::Connection { .. } | Self::Truncated { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            Self::Malformed { .. } | Self::Model { .. } | Self::CallLimit { .. } => false,
        }
    }

    /// How long the server asks to wait, in seconds.
    #[must_use]
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Who judges.
pub trait Judge {
    /// Which judge this is.
    fn id(&self) -> &JudgeId;

    /// One call, without a second try.
    ///
    /// # Errors
    ///
    /// [`CallError`], a variant per way in which there is no reply.
    fn ask(&self, request: &ChatRequest) -> Result<Reply, CallError>;

    /// How many requests [`Judge::ask_all`] is best given at once.
    fn batch_size(&self) -> usize {
        1
    }

    /// A reply or an error to each request, in their order.
    fn ask_all(&self, requests: &[&ChatRequest]) -> Vec<Result<Reply, CallError>> {
        requests.iter().map(|request| self.ask(request)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language_model::Role;

    #[test]
    fn a_key_depends_on_everything_a_reply_depends_on() {
        let judge = |model: &str, place: &str| JudgeId { model: model.into(), place: place.into() };
        let request = |role, text: &str, temperature, max_tokens| ChatRequest {
            messages: vec![Message::new(role, text)],
            temperature,
            max_tokens,
        };
        let here = judge("m", "p");
        let mut keys = vec![
            request(Role::User, "t", 0.0, 1).key(&here),
            request(Role::System, "t", 0.0, 1).key(&here),
            request(Role::User, "u", 0.0, 1).key(&here),
            request(Role::User, "t", 0.5, 1).key(&here),
            request(Role::User, "t", 0.0, 2).key(&here),
            request(Role::User, "t", 0.0, 1).key(&judge("n", "p")),
            request(Role::User, "t", 0.0, 1).key(&judge("m", "q")),
            request(Role::User, "t", 0.0, 1).key(&judge("mp", "")),
        ];
        assert_eq!(keys[0], request(Role::User, "t", 0.0, 1).key(&here));
        assert!(keys.iter().all(|key| key.len() == 64));
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 8);
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let status = |status| CallError::Status { status, retry_after: None, body: String::new() };
        let again = [408, 429, 500, 502, 503, 504];
        for code in 300..600 {
            assert_eq!(status(code).is_transient(), again.contains(&code), "{code}");
        }
        assert!(CallError::Truncated { n_bytes: 3 }.is_transient());
        assert!(!CallError::Model { reason: String::new() }.is_transient());
    }
}
