//! Question of a conversation, with what was said before it.

use super::Record;
use crate::language_model::{Message, Role};

/// Conversation up to the user's turn that is answered.
pub(super) struct Question {
    system: Option<String>,
    before: Vec<Message>,
    prompt: String,
}

impl Question {
    /// Splits turns, of which the last is the question; `key` names them in messages.
    ///
    /// # Errors
    ///
    /// Returns the problem if the last turn is not the user's.
    pub(super) fn of(key: &str, mut turns: Vec<Message>) -> Result<Self, String> {
        let is_asked = turns.iter().any(|turn| turn.role == Role::User);
        let prompt = turns.pop().filter(|_| is_asked);
        let prompt = prompt.ok_or_else(|| format!("`{key}` has no turn of the user"))?;
        if prompt.role != Role::User {
            let (number, role) = (turns.len() + 1, prompt.role.name());
            return Err(format!(
                "turn {number} of `{key}` stands in the place of the question, but is the {role}'s"
            ));
        }
        let has_system = turns.first().is_some_and(|turn| turn.role == Role::System);
        let system = has_system.then(|| turns.remove(0).content);
        Ok(Self { system, before: turns, prompt: prompt.content })
    }

    /// Creates a record with the answers to the question.
    pub(super) fn answered(self, answer: Option<String>, unwanted: Option<String>) -> Record {
        let Self { system, before, prompt } = self;
        Record { system, before, prompt, answer, unwanted, ..Record::default() }
    }
}

/// Parses a conversation into its first question that is answered, the answer and later turns.
///
/// # Errors
///
/// Returns the problem if there is no question, or another turn is between it and its answer.
pub(super) fn chat(key: &str, mut turns: Vec<Message>) -> Result<Record, String> {
    let asked = turns.iter().position(|turn| turn.role == Role::User).unwrap_or(turns.len());
    let answered = turns[asked..].iter().position(|turn| turn.role == Role::Assistant);
    let Some(answered) = answered else {
        return Ok(Question::of(key, turns)?.answered(None, None));
    };
    let later = turns.split_off(asked + answered + 1);
    let answer = turns.pop().map(|turn| turn.content);
    let record = Question::of(key, turns)?.answered(answer, None);
    Ok(Record { later, ..record })
}
