//! Turns of a conversation: chat and `ShareGPT` objects, pairs of a history, and dialogues in one
//! text, as HH-RLHF has them.

use serde_json::Value;

use super::row::{is_blank, kind};
use crate::language_model::{Message, Role};

const ROLE_KEYS: [&str; 3] = ["role", "from", "speaker"];
const TEXT_KEYS: [&str; 3] = ["content", "value", "text"];

const USER: [&str; 4] = ["user", "human", "prompter", "usr"];
const ASSISTANT: [&str; 11] = [
    "assistant",
    "gpt",
    "chatgpt",
    "bing",
    "bard",
    "model",
    "bot",
    "ai",
    "claude",
    "chatbot",
    "output",
];
const SYSTEM: [&str; 2] = ["system", "developer"];

/// Parses the turns of a conversation: a list of turns, or a single turn.
///
/// # Errors
///
/// Returns the problem of the first turn that is not a message of the user, the assistant or the
/// system.
pub(super) fn turns(key: &str, value: &Value) -> Result<Vec<Message>, String> {
    let list = match value {
        Value::Array(list) => list.as_slice(),
        Value::Object(_) => std::slice::from_ref(value),
        _ => return Err(format!("`{key}` is {}, not a list", kind(value))),
    };
    let turn = |(number, value)| turn(&format!("turn {number} of `{key}`"), value);
    (1_usize..).zip(list).map(turn).collect()
}

/// Returns true if a value has the keys of a turn.
pub(super) fn is_turn(value: &Value) -> bool {
    ROLE_KEYS.iter().chain(&TEXT_KEYS).any(|key| value.get(key).is_some())
}

/// Parses one turn; `place` names it in messages.
fn turn(place: &str, value: &Value) -> Result<Message, String> {
    if !value.is_object() {
        return Err(format!("{place} is {}, not an object", kind(value)));
    }
    let given = |keys: [&str; 3]| {
        keys.iter().filter_map(|key| value.get(key)).find(|value| !value.is_null())
    };
    let name = given(ROLE_KEYS).and_then(Value::as_str).map(str::trim);
    let name = name.ok_or_else(|| format!("{place} has no role"))?;
    let role = role(name).ok_or_else(|| format!("{place} has the unknown role `{name}`"))?;
    let place = format!("{place} (`{name}`)");
    for key in ["tool_calls", "function_call"] {
        if value.get(key).is_some_and(|calls| !is_blank(calls)) {
            return Err(format!("{place} calls a tool"));
        }
    }
    let text = match given(TEXT_KEYS) {
        None => return Err(format!("{place} has no text")),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => joined(&place, parts)?,
        Some(other) => return Err(format!("{place} has {} for text", kind(other))),
    };
    let message = Message::new(role, text);
    check_filled(&place, &message)?;
    Ok(message)
}

fn role(name: &str) -> Option<Role> {
    let is_one_of = |names: &[&str]| names.iter().any(|known| known.eq_ignore_ascii_case(name));
    if is_one_of(&USER) {
        Some(Role::User)
    } else if is_one_of(&ASSISTANT) {
        Some(Role::Assistant)
    } else if is_one_of(&SYSTEM) {
        Some(Role::System)
    } else {
        None
    }
}

/// Joins the text parts of a message.
fn joined(place: &str, parts: &[Value]) -> Result<String, String> {
    let text = |part: &Value| match part {
        Value::String(text) => Ok(text.clone()),
        Value::Object(fields) => {
            let kind = fields.get("type").and_then(Value::as_str).unwrap_or("text");
            let text = fields.get("text").and_then(Value::as_str);
            match (kind, text) {
                ("text" | "input_text" | "output_text", Some(text)) => Ok(text.to_owned()),
                ("text" | "input_text" | "output_text", None) => {
                    Err(format!("{place} has a part without text"))
                }
                (kind, _) => Err(format!("{place} has a part of type `{kind}`, not text")),
            }
        }
        other => Err(format!("{place} has {} as a part", kind(other))),
    };
    parts.iter().map(text).collect()
}

/// Refuses an empty message of the user or the assistant.
fn check_filled(place: &str, message: &Message) -> Result<(), String> {
    let what = match message.role {
        Role::System => return Ok(()),
        Role::User => "prompt",
        Role::Assistant => "answer",
    };
    if message.content.trim().is_empty() {
        return Err(format!("empty {what}: {place}"));
    }
    Ok(())
}

/// Parses earlier turns: pairs of a question and its answer, or turns.
///
/// # Errors
///
/// Returns the problem of the first malformed pair or turn.
pub(super) fn history(key: &str, value: &Value) -> Result<Vec<Message>, String> {
    let Some(pairs) = value.as_array().filter(|list| list.iter().any(Value::is_array)) else {
        return turns(key, value);
    };
    let mut messages = Vec::with_capacity(2 * pairs.len());
    for (number, pair) in (1_usize..).zip(pairs) {
        let place = format!("pair {number} of `{key}`");
        let [Value::String(question), Value::String(answer)] =
            pair.as_array().map_or(&[][..], Vec::as_slice)
        else {
            return Err(format!("{place} is not a question and its answer"));
        };
        for (role, text) in [(Role::User, question), (Role::Assistant, answer)] {
            let message = Message::new(role, text);
            check_filled(&place, &message)?;
            messages.push(message);
        }
    }
    Ok(messages)
}

/// Starts of the turns in a dialogue.
const SPEAKERS: [(&str, Role); 2] =
    [("\n\nHuman:", Role::User), ("\n\nAssistant:", Role::Assistant)];

/// Splits a dialogue in one text, `\n\nHuman: ..\n\nAssistant: ..`, into its turns; None if the
/// text is no dialogue. Turns can be empty.
pub(super) fn dialogue(text: &str) -> Option<Vec<Message>> {
    let text = format!("\n\n{}", text.trim_start());
    if !text.starts_with(SPEAKERS[0].0) || !text.contains(SPEAKERS[1].0) {
        return None;
    }
    let starts = |(mark, role): (&'static str, Role)| {
        text.match_indices(mark).map(move |(at, mark)| (at, at + mark.len(), role))
    };
    let mut starts: Vec<(usize, usize, Role)> = SPEAKERS.into_iter().flat_map(starts).collect();
    starts.sort_unstable_by_key(|&(at, ..)| at);
    let ends = starts.iter().skip(1).map(|&(at, ..)| at).chain([text.len()]);
    let turns = starts.iter().zip(ends);
    let turn = |(&(_, from, role), to): (&(usize, usize, Role), usize)| {
        Message::new(role, text[from..to].trim())
    };
    Some(turns.map(turn).collect())
}

/// Refuses empty turns of a dialogue.
///
/// # Errors
///
/// Returns the first empty turn.
pub(super) fn check_all_filled(key: &str, turns: &[Message]) -> Result<(), String> {
    let mut turns = (1_usize..).zip(turns);
    turns.try_for_each(|(number, turn)| check_filled(&format!("turn {number} of `{key}`"), turn))
}
