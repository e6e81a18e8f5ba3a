//! Answers of a row: the wanted and the unwanted one, each as text, as a message, or as the last
//! turn of a conversation.

use serde_json::Value;

use super::Record;
use super::question::Question;
use super::row::{Row, as_text, is_key};
use super::turns::{check_all_filled, dialogue, turns};
use crate::language_model::{Message, Role};

const WANTED: [&str; 2] = ["safe", "chosen"];
const UNWANTED: [&str; 2] = ["unwanted", "rejected"];
/// Keys of answers that are wanted unless the row says otherwise.
const GIVEN: [&str; 3] = ["answer", "completion", "response"];
/// Keys whose meaning depends on other keys.
const OUTPUT: &str = "output";
const TARGET: &str = "target";
/// Key of the refusal in the data of circuit breakers, whose `output` is the unwanted answer.
const REFUSAL: &str = "llama3_output";
/// Keys of the truth value that says whether the answer is wanted. `label` is one in rows of
/// `prompt` and `completion` and in conversations.
const VERDICTS: [&str; 2] = ["is_safe", "kto_tag"];
const LABEL: &str = "label";

/// Returns true if a key is that of an answer, or says whether an answer is wanted.
pub(super) fn is_read(name: &str) -> bool {
    let keys = [&WANTED[..], &UNWANTED, &GIVEN, &VERDICTS, &[OUTPUT, TARGET, REFUSAL, LABEL]];
    keys.concat().iter().any(|key| is_key(name, key))
}

/// Answer with the conversation before it, if it is the last turn of one.
struct Answer {
    key: &'static str,
    lead: Vec<Message>,
    text: String,
}

impl Answer {
    /// Returns the answer under the one of `keys` that is present.
    fn of(row: &Row<'_>, keys: &[&'static str]) -> Result<Option<Self>, String> {
        let Some((key, value)) = row.one_of(keys)? else { return Ok(None) };
        let mut turns = match value {
            Value::Array(_) | Value::Object(_) => turns(key, value)?,
            _ => {
                let text = as_text(key, value)?;
                if text.trim().is_empty() {
                    return Err(format!("empty answer: `{key}`"));
                }
                let is_preference = ["chosen", "rejected"].contains(&key);
                let Some(turns) = is_preference.then(|| dialogue(text)).flatten() else {
                    return Ok(Some(Self { key, lead: Vec::new(), text: text.to_owned() }));
                };
                check_all_filled(key, &turns)?;
                turns
            }
        };
        let has_answer = turns.iter().any(|turn| turn.role == Role::Assistant);
        let last = turns.pop().filter(|_| has_answer);
        let last = last.ok_or_else(|| format!("`{key}` has no turn of the assistant"))?;
        if last.role != Role::Assistant {
            return Err(format!("`{key}` does not end with a turn of the assistant"));
        }
        Ok(Some(Self { key, lead: turns, text: last.content }))
    }

    fn says(&self, text: &str) -> bool {
        self.text.trim() == text.trim()
    }
}

/// Answers of a row.
pub(super) struct Answers {
    wanted: Option<Answer>,
    unwanted: Option<Answer>,
    /// True if the answer in the conversation is the unwanted one.
    is_unwanted: bool,
}

/// Returns the answers of a row, those in its conversation aside.
///
/// # Errors
///
/// Returns the problem of the answers: empty, not text, or given twice.
pub(super) fn answers(row: &Row<'_>, is_conversation: bool) -> Result<Answers, String> {
    let is_labelled = is_conversation || row.get("completion")?.is_some();
    let is_unwanted = says_no(row, &VERDICTS)? || is_labelled && says_no(row, &[LABEL])?;
    let (mut wanted, mut unwanted) = (WANTED.to_vec(), UNWANTED.to_vec());
    let is_refused = row.get(REFUSAL)?.is_some();
    if is_refused {
        wanted.push(REFUSAL);
    }
    let is_attack = row.has_one_of(&["goal"]);
    for key in GIVEN.into_iter().chain([OUTPUT, TARGET]) {
        let is_bad = is_unwanted || key == OUTPUT && is_refused || key == TARGET && is_attack;
        if is_bad { &mut unwanted } else { &mut wanted }.push(key);
    }
    let (wanted, unwanted) = (Answer::of(row, &wanted)?, Answer::of(row, &unwanted)?);
    Ok(Answers { wanted, unwanted, is_unwanted })
}

fn says_no(row: &Row<'_>, keys: &[&'static str]) -> Result<bool, String> {
    let value = row.one_of(keys)?.map(|(_, value)| value);
    Ok(value.is_some_and(|value| match value {
        Value::Bool(truth) => !truth,
        Value::String(text) => is_key(text, "false"),
        _ => false,
    }))
}

impl Answers {
    /// Returns true if nothing is known of the answer but the conversation itself.
    pub(super) fn is_none(&self) -> bool {
        self.wanted.is_none() && self.unwanted.is_none() && !self.is_unwanted
    }

    /// Returns the conversation before the answers, with its key; it is empty if they are texts.
    ///
    /// # Errors
    ///
    /// Returns the problem if the answers are those of two conversations.
    pub(super) fn lead(&self) -> Result<(&'static str, Vec<Message>), String> {
        let given = [&self.wanted, &self.unwanted].into_iter().flatten();
        let mut leads = given.filter(|answer| !answer.lead.is_empty());
        let Some(first) = leads.next() else { return Ok(("", Vec::new())) };
        match leads.next() {
            Some(other) if other.lead != first.lead => {
                let keys = format!("`{}` and `{}`", first.key, other.key);
                let mut common = first.lead.iter().zip(&other.lead).take_while(|(a, b)| a == b);
                let is_asked = common.any(|(turn, _)| turn.role == Role::User);
                let what = if is_asked {
                    "differ before their last turns"
                } else {
                    "have no common prompt"
                };
                Err(format!("{keys} {what}"))
            }
            _ => Ok((first.key, first.lead.clone())),
        }
    }

    /// Joins the turns of the prompt with the conversation before the answers, which may repeat
    /// them or follow them.
    ///
    /// # Errors
    ///
    /// Returns the problem if they are two conversations.
    pub(super) fn joined(
        &self,
        (key, turns): (&str, Vec<Message>),
        (lead_key, lead): (&str, Vec<Message>),
    ) -> Result<Vec<Message>, String> {
        let mut turns = turns;
        // The conversation may end with the wanted answer.
        let is_wanted = |text: &str| self.wanted.as_ref().is_some_and(|wanted| wanted.says(text));
        if turns.last().is_some_and(|t| t.role == Role::Assistant && is_wanted(&t.content)) {
            turns.pop();
        }
        let is_last_of = |role, turns: &[Message]| turns.last().is_some_and(|t| t.role == role);
        if lead[0].role == Role::Assistant && is_last_of(Role::User, &turns) {
            turns.extend(lead);
            return Ok(turns);
        }
        let is_one = turns.len() == 1 && lead.iter().any(|turn| is_same(turn, &turns[0]));
        if is_one || starts_with(&lead, &turns) || ends_with(&lead, &turns) {
            return Ok(lead);
        }
        if ends_with(&turns, &lead) {
            return Ok(turns);
        }
        Err(format!("`{key}` and `{lead_key}` have no common prompt"))
    }

    /// Takes the last turn of a conversation, if it is the assistant's, as an answer.
    ///
    /// # Errors
    ///
    /// Returns the problem if the row has that answer with another text.
    pub(super) fn with_last_of(
        mut self,
        key: &'static str,
        turns: &mut Vec<Message>,
    ) -> Result<Self, String> {
        let Some(last) = turns.pop_if(|turn| turn.role == Role::Assistant) else { return Ok(self) };
        let place = if self.is_unwanted { &mut self.unwanted } else { &mut self.wanted };
        match place {
            Some(answer) if !answer.says(&last.content) => {
                Err(format!("both the last turn of `{key}` and `{}`", answer.key))
            }
            _ => {
                *place = Some(Answer { key, lead: Vec::new(), text: last.content });
                Ok(self)
            }
        }
    }

    /// Creates the record of a question with these answers.
    pub(super) fn to(self, question: Question) -> Record {
        let text = |answer: Option<Answer>| answer.map(|answer| answer.text);
        question.answered(text(self.wanted), text(self.unwanted))
    }
}

fn is_same(a: &Message, b: &Message) -> bool {
    a.role == b.role && a.content.trim() == b.content.trim()
}

fn starts_with(long: &[Message], short: &[Message]) -> bool {
    long.len() >= short.len() && long.iter().zip(short).all(|(a, b)| is_same(a, b))
}

fn ends_with(long: &[Message], short: &[Message]) -> bool {
    let last = long.len().checked_sub(short.len()).map(|from| &long[from..]);
    last.is_some_and(|last| starts_with(last, short))
}
