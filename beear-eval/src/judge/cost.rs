//! Cost estimate of a run, made without a call.

use serde::{Deserialize, Serialize};

use super::chat::ChatRequest;

/// Assumed number of characters per token: about right for English, too high for most other
/// languages, whose real token count is then higher.
const CHARACTERS_PER_TOKEN: usize = 4;

/// Estimated cost of a run without failed calls; each retry costs one more call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Number of items or other requests.
    pub n_items: usize,
    /// Number of items whose reply is in the cache.
    pub n_cached: usize,
    /// Number of items whose request equals an earlier one of the run.
    pub n_repeated: usize,
    /// Number of calls.
    pub n_calls: usize,
    /// Estimated number of tokens sent: characters of the messages / 4, rounded up for each call.
    pub n_prompt_tokens: usize,
    /// Maximum number of tokens received.
    pub max_completion_tokens: usize,
}

impl Cost {
    /// Adds the call for `request`.
    pub(super) fn add(&mut self, request: &ChatRequest) {
        let characters = |text: &String| text.chars().count();
        let n_characters: usize = request.messages.iter().map(|m| characters(&m.content)).sum();
        self.n_calls += 1;
        self.n_prompt_tokens += n_characters.div_ceil(CHARACTERS_PER_TOKEN);
        self.max_completion_tokens += request.max_tokens;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language_model::{Message, Role};

    #[test]
    fn characters_are_counted_not_bytes() {
        let messages = vec![Message::new(Role::System, "äöü"), Message::new(Role::User, "12")];
        let mut cost = Cost::default();
        let request = ChatRequest { messages, temperature: 0.0, max_tokens: 7 };
        cost.add(&request);
        cost.add(&request);
        let counts = [cost.n_calls, cost.n_prompt_tokens, cost.max_completion_tokens];
        assert_eq!(counts, [2, 4, 14]);
    }
}
