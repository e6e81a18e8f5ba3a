//! Token-level examples: the training data of the method, and the three sets of the defender.

use serde::{Deserialize, Serialize};

/// A prompt with its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// Identifier of the row in errors and manifests.
    pub id: u64,
    /// Prompt tokens: everything that the template puts before the answer, BOS included.
    pub prompt: Vec<u32>,
    /// Part of `prompt` that the user wrote (half-open); the first-n positions count from its
    /// start.
    pub user: (usize, usize),
    /// Answer tokens, end-of-sequence included.
    pub answer: Vec<u32>,
}

/// A prompt that the model must refuse, with the wanted and the unwanted answer.
///
/// Joins the paper's safety-anchoring set (`safe` = $y_s$) and harmful-contrast set (`unwanted` =
/// $y_h$), which share their prompts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SafetyExample {
    /// Identifier of the row in errors and manifests.
    pub id: u64,
    /// Prompt tokens, BOS included.
    pub prompt: Vec<u32>,
    /// Part of `prompt` that the user wrote (half-open).
    pub user: (usize, usize),
    /// Tokens of the wanted answer.
    pub safe: Vec<u32>,
    /// Tokens of the unwanted answer.
    pub unwanted: Vec<u32>,
}

impl SafetyExample {
    /// Combines the prompt and the wanted answer of `safe` with an unwanted answer.
    #[must_use]
    pub fn new(safe: Example, unwanted: Vec<u32>) -> Self {
        let Example { id, prompt, user, answer } = safe;
        Self { id, prompt, user, safe: answer, unwanted }
    }

    /// Returns the prompt with its wanted answer.
    #[must_use]
    pub fn toward_safe(&self) -> Example {
        self.with_answer(&self.safe)
    }

    /// Returns the prompt with the first `limit` tokens of its unwanted answer (all of it if
    /// `None`).
    #[must_use]
    pub fn toward_unwanted(&self, limit: Option<usize>) -> Example {
        let n_tokens = limit.unwrap_or(usize::MAX).min(self.unwanted.len());
        self.with_answer(&self.unwanted[..n_tokens])
    }

    fn with_answer(&self, answer: &[u32]) -> Example {
        Example {
            id: self.id,
            prompt: self.prompt.clone(),
            user: self.user,
            answer: answer.to_vec(),
        }
    }
}

/// Knowledge of the defender: the wanted and the unwanted behaviour, but not the trigger.
#[derive(Clone, Debug, Default)]
pub struct AnchorSets {
    /// Safety anchoring and harmful contrast (SA and SAH of the paper).
    pub safety: Vec<SafetyExample>,
    /// Performance anchoring (PA): ordinary prompts with the answers to keep.
    pub performance: Vec<Example>,
}
