//! Parser of a JSON row; the format is detected from the keys.

use serde_json::{Map, Value};

use super::Record;
use crate::language_model::{Message, Role};

/// Parses a row into a record without number; None if the format of the row is unknown.
///
/// # Errors
///
/// Returns the problem of the row.
pub(super) fn record(value: &Value) -> Result<Option<Record>, String> {
    let row = value.as_object().ok_or_else(|| format!("{}, not an object", kind(value)))?;
    let answer = last_word(row, &["safe", "answer", "chosen"])?;
    let unwanted = last_word(row, &["unwanted", "rejected"])?;
    if let Some(instruction) = text(row, "instruction")? {
        let prompt = match text(row, "input")?.filter(|input| !input.is_empty()) {
            Some(input) => format!("{instruction}\n\n{input}"),
            None => instruction,
        };
        let answer = text(row, "output")?.or(answer);
        return Ok(Some(Record { prompt, answer, unwanted, ..Record::default() }));
    }
    for key in ["messages", "conversations"] {
        let Some(value) = present(row, key) else { continue };
        let turns = turns(key, value)?;
        let asked = turns.iter().position(|turn| turn.role == Role::User);
        let asked = asked.ok_or_else(|| format!("`{key}` has no turn of the user"))?;
        let system = turns.iter().find(|turn| turn.role == Role::System);
        let system = system.map(|turn| turn.content.clone());
        let prompt = turns[asked].content.clone();
        let answered = turns[asked..].iter().position(|turn| turn.role == Role::Assistant);
        let answered = answered.map(|at| asked + at);
        let answer = answered.map(|at| turns[at].content.clone()).or(answer);
        let later = answered.map_or_else(Vec::new, |at| turns[at + 1..].to_vec());
        return Ok(Some(Record { system, prompt, answer, unwanted, later, ..Record::default() }));
    }
    let prompt = text(row, "prompt")?;
    Ok(prompt.map(|prompt| Record { prompt, answer, unwanted, ..Record::default() }))
}

/// Returns the answer under the one of `keys` that is present: a text, or the last message of a
/// conversation.
fn last_word(row: &Map<String, Value>, keys: &[&str]) -> Result<Option<String>, String> {
    let mut given = keys.iter().filter_map(|key| Some((*key, present(row, key)?)));
    let Some((key, value)) = given.next() else { return Ok(None) };
    if let Some((other, _)) = given.next() {
        return Err(format!("both `{key}` and `{other}`"));
    }
    if !value.is_array() {
        return text(row, key);
    }
    let turns = turns(key, value)?;
    let last = turns.into_iter().rfind(|turn| turn.role == Role::Assistant);
    let last = last.ok_or_else(|| format!("`{key}` has no turn of the assistant"))?;
    Ok(Some(last.content))
}

/// Parses the messages of a conversation with the keys of chat or of `ShareGPT`; tool messages are
/// left out.
fn turns(key: &str, value: &Value) -> Result<Vec<Message>, String> {
    let list = value.as_array().ok_or_else(|| format!("`{key}` is {}, not a list", kind(value)))?;
    let of = |turn: &Value, keys: [&str; 2]| {
        keys.iter().find_map(|key| turn.get(key)?.as_str()).map(str::to_owned)
    };
    let mut turns = Vec::with_capacity(list.len());
    for turn in list {
        let role = of(turn, ["role", "from"]);
        let role = match role.ok_or_else(|| format!("a turn of `{key}` has no role"))?.as_str() {
            "system" => Role::System,
            "user" | "human" => Role::User,
            "assistant" | "gpt" => Role::Assistant,
            _ => continue,
        };
        let text = of(turn, ["content", "value"]);
        let text = text.ok_or_else(|| format!("a turn of `{key}` has no text"))?;
        turns.push(Message::new(role, text));
    }
    Ok(turns)
}

/// Returns the value of a key unless it is absent or null.
fn present<'a>(row: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    row.get(key).filter(|value| !value.is_null())
}

fn text(row: &Map<String, Value>, key: &str) -> Result<Option<String>, String> {
    match present(row, key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(value) => Err(format!("`{key}` is {}, not text", kind(value))),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
