//! Interface to a judge: chat requests and replies.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::language_model::{Finish, Message};

/// Identity of a judge: together with the request, everything that a reply depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgeId {
    /// Name of the model.
    pub model: String,
    /// Location of the judge: a server's URL, or a string that identifies a local model's weights.
    pub place: String,
}

impl fmt::Display for JudgeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.model, self.place)
    }
}

/// Request to a judge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatRequest {
    /// Conversation that ends with the question.
    pub messages: Vec<Message>,
    /// Sampling temperature, which divides the logits; 0 is greedy decoding.
    pub temperature: f64,
    /// Maximum length of the reply, in tokens.
    pub max_tokens: usize,
}

impl ChatRequest {
    /// Returns the SHA-256, in hexadecimal, of everything that the reply of `judge` depends on. The
    /// API key is not part of it.
    ///
    /// # Panics
    ///
    /// Never panics: text and numbers can be written as JSON.
    #[must_use]
    pub fn key(&self, judge: &JudgeId) -> String {
        let content = serde_json::to_vec(&(judge, self)).expect("text and numbers are JSON");
        let digest = Sha256::digest(&content);
        digest.iter().fold(String::new(), |key, byte| format!("{key}{byte:02x}"))
    }
}

/// Reply of a judge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Text of the reply.
    pub text: String,
    /// Reason for the end of the reply, if known.
    pub finish: Option<Finish>,
}

/// Error of a call without a reply. No message contains the API key.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallError {
    /// The reply was missing or incomplete at the end of the time limit.
    #[error("no reply within {milliseconds} ms")]
    Timeout {
        /// Time limit of the call.
        milliseconds: u64,
    },
    /// The server was not reached, or does not use HTTP.
    #[error("no connection to the judge: {reason}")]
    Connection {
        /// Problem of the connection.
        reason: String,
    },
    /// The reply is truncated.
    #[error("the reply breaks off after {n_bytes} bytes")]
    Truncated {
        /// Number of bytes received; 0 if unknown.
        n_bytes: usize,
    },
    /// The server returned an error status.
    #[error("the judge says status {status}: {body}")]
    Status {
        /// HTTP status.
        status: u16,
        /// Requested wait in seconds, from the header `Retry-After`.
        retry_after: Option<u64>,
        /// Beginning of the response body.
        body: String,
    },
    /// The server reported success, but its response contains no reply.
    #[error("the judge's reply is malformed, {reason}: {body}")]
    Malformed {
        /// Problem of the response.
        reason: String,
        /// Beginning of the response body.
        body: String,
    },
    /// A local model cannot reply.
    #[error("the model cannot answer: {reason}")]
    Model {
        /// Error message of the model.
        reason: String,
    },
    /// The run has reached its maximum number of calls.
    #[error("all calls of the run are used up: {max_calls}")]
    CallLimit {
        /// Maximum number of calls.
        max_calls: usize,
    },
}

impl CallError {
    /// True if a retry may succeed: for timeouts, connection errors, truncated replies, and the
    /// statuses 408, 429, 500, 502, 503 and 504.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::Connection { .. } | Self::Truncated { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            Self::Malformed { .. } | Self::Model { .. } | Self::CallLimit { .. } => false,
        }
    }

    /// Returns the wait requested by the server, in seconds.
    #[must_use]
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Model that judges answers.
pub trait Judge {
    /// Returns the identity of the judge.
    fn id(&self) -> &JudgeId;

    /// Sends one request, without a retry.
    ///
    /// # Errors
    ///
    /// Returns [`CallError`], with a variant for each cause of a missing reply.
    fn ask(&self, request: &ChatRequest) -> Result<Reply, CallError>;

    /// Returns the preferred number of requests for one call of [`Judge::ask_all`].
    fn batch_size(&self) -> usize {
        1
    }

    /// Sends several requests; returns a reply or an error for each, in order.
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
