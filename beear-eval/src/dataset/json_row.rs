//! Parser of a row; its layout is detected from the keys.

use serde_json::Value;

use super::Record;
use super::answer::{self, answers};
use super::question::{Question, chat};
use super::row::{Row, is_blank, is_key};
use super::turns::{check_all_filled, dialogue, history, turns};
use crate::language_model::{Message, Role};

/// Keys of conversations.
const CONVERSATIONS: [&str; 6] =
    ["messages", "conversations", "conversation", "turns", "chat", "dialogue"];

/// Keys of prompts as text. `input` is one where there is no other.
const PROMPTS: [&str; 6] =
    ["instruction", "prompt", "question", "query", "goal", "forbidden_prompt"];

/// Keys of a prompt of `HarmBench`, its name and the text that it refers to.
const BEHAVIOUR: [&str; 3] = ["behavior", "behaviorid", "contextstring"];

/// Keys of the text that follows an instruction.
const INPUTS: [&str; 2] = ["input", "context"];

const SYSTEMS: [&str; 2] = ["system", "system_prompt"];
const HISTORY: &str = "history";

/// Keys of what a model is shown beside text.
const UNREADABLE: [&str; 8] =
    ["tools", "functions", "image", "images", "video", "videos", "audio", "audios"];

/// Returns true if a key makes an object a row.
pub(super) fn is_prompt_key(name: &str) -> bool {
    let others = ["input", "chosen", "rejected"];
    is_conversation_key(name) || PROMPTS.iter().chain(&others).any(|key| is_key(name, key))
}

/// Returns true if conversations stand under a key.
pub(super) fn is_conversation_key(name: &str) -> bool {
    CONVERSATIONS.iter().any(|key| is_key(name, key))
}

/// Returns true if the names are those of a row: one is the key of a prompt, or two are those of
/// `HarmBench`.
pub(super) fn is_known(names: &[String]) -> bool {
    let has = |key: &str| names.iter().any(|name| is_key(name, key));
    names.iter().any(|name| is_prompt_key(name)) || has(BEHAVIOUR[0]) && has(BEHAVIOUR[1])
}

/// Returns true if the value of a key can become part of a record.
pub(super) fn is_read(name: &str) -> bool {
    let others = [&BEHAVIOUR[..], &INPUTS, &SYSTEMS, &[HISTORY], &UNREADABLE].concat();
    let is_other = others.iter().any(|key| is_key(name, key));
    is_other || is_prompt_key(name) || answer::is_read(name)
}

/// Parses a row into a record without number; None if the layout of the row is unknown.
///
/// # Errors
///
/// Returns the problem of the row.
pub(super) fn record(value: &Value) -> Result<Option<Record>, String> {
    let row = Row::of(value)?;
    if !is_known(&row.keys()) {
        return Ok(None);
    }
    let mut record = exchange(&row)?;
    for key in UNREADABLE {
        let is_none = |value: &Value| is_blank(value) || value.as_str() == Some("[]");
        if row.get(key)?.is_some_and(|value| !is_none(value)) {
            return Err(format!("`{key}` cannot be read"));
        }
    }
    if let Some(system) = row.filled_text_of(&SYSTEMS)? {
        if record.system.as_ref().is_some_and(|turn| turn.trim() != system.trim()) {
            return Err("two system prompts: a key of the row and a turn".to_owned());
        }
        record.system = Some(system.to_owned());
    }
    if let Some(earlier) = row.get(HISTORY)?.filter(|value| !is_blank(value)) {
        record.before.splice(0..0, history(HISTORY, earlier)?);
    }
    Ok(Some(record))
}

/// Parses the conversation and the answers of a row.
fn exchange(row: &Row<'_>) -> Result<Record, String> {
    let conversation = conversation(row)?;
    let prompt = text_prompt(row, conversation.is_some())?;
    let answers = answers(row, conversation.is_some())?;
    let (lead_key, lead) = answers.lead()?;
    let (mut asked, mut behaviour) = (conversation, None);
    if let Some(prompt) = prompt {
        if let Some((key, turns)) = &asked {
            prompt.check_is_in(key, turns)?;
        } else {
            behaviour = prompt.behaviour;
            asked = Some((prompt.key, prompt.turns));
        }
    }
    let record = match asked {
        None if lead.is_empty() => return Err(no_prompt(row)),
        None => answers.to(Question::of(lead_key, lead)?),
        Some((key, turns)) if answers.is_none() => chat(key, turns)?,
        Some((key, mut turns)) if lead.is_empty() => {
            let answers = answers.with_last_of(key, &mut turns)?;
            answers.to(Question::of(key, turns)?)
        }
        Some((key, turns)) => {
            let turns = answers.joined((key, turns), (lead_key, lead))?;
            answers.to(Question::of(key, turns)?)
        }
    };
    Ok(Record { behaviour, ..record })
}

fn no_prompt(row: &Row<'_>) -> String {
    let list = CONVERSATIONS.into_iter().find(|key| row.has_one_of(&[*key]));
    list.map_or("no prompt".to_owned(), |key| format!("`{key}` has no turn of the user"))
}

/// Returns the conversation of a row with its key: a list of turns under the key of a conversation
/// or of a prompt.
fn conversation(row: &Row<'_>) -> Result<Option<(&'static str, Vec<Message>)>, String> {
    let mut keys = Vec::with_capacity(CONVERSATIONS.len());
    for key in CONVERSATIONS {
        // A number of turns is no conversation.
        if !matches!(row.get(key)?, Some(Value::Number(_) | Value::Bool(_))) {
            keys.push(key);
        }
    }
    let list = row.one_of(&keys)?.filter(|(_, value)| !is_blank(value));
    let list = list.map(|(key, value)| Ok::<_, String>((key, turns(key, value)?))).transpose()?;
    let prompt = row.get("prompt")?.filter(|value| value.is_array() || value.is_object());
    let Some(prompt) = prompt else { return Ok(list) };
    let prompt = turns("prompt", prompt)?;
    match list {
        Some((key, list)) if !list.starts_with(&prompt) => {
            Err(format!("both `{key}` and `prompt`"))
        }
        Some(list) => Ok(Some(list)),
        None => Ok(Some(("prompt", prompt))),
    }
}

/// Prompt in one text.
struct Prompt {
    key: &'static str,
    /// Turn of the user, or the turns of a dialogue in the text.
    turns: Vec<Message>,
    /// Name of the prompt.
    behaviour: Option<String>,
}

impl Prompt {
    /// Refuses a conversation without the prompt.
    fn check_is_in(&self, key: &str, turns: &[Message]) -> Result<(), String> {
        let is_in =
            |asked: &Message| turns.iter().any(|turn| turn.content.trim() == asked.content.trim());
        if self.turns.iter().all(is_in) {
            return Ok(());
        }
        Err(format!("both `{key}` and `{}`", self.key))
    }
}

/// Returns the prompt of a row in one text; None if there is none, or it is blank beside a
/// conversation.
fn text_prompt(row: &Row<'_>, has_conversation: bool) -> Result<Option<Prompt>, String> {
    let Some((key, text)) = asked_text(row)? else { return Ok(None) };
    if text.trim().is_empty() {
        return if has_conversation { Ok(None) } else { Err(format!("empty prompt: `{key}`")) };
    }
    let text = match key {
        "instruction" => match row.filled_text_of(&INPUTS)?.filter(|input| !is_no_input(input)) {
            Some(input) => format!("{text}\n\n{input}"),
            None => text.to_owned(),
        },
        "behavior" => match row.filled_text_of(&BEHAVIOUR[2..])? {
            Some(context) => format!("{context}\n\n{text}"),
            None => text.to_owned(),
        },
        _ => {
            // Another text under `input` is refused.
            row.one_of(&[key, INPUTS[0]])?;
            text.to_owned()
        }
    };
    let turns = match dialogue(&text).filter(|_| key == "prompt") {
        Some(mut turns) => {
            turns.pop_if(|last| last.role == Role::Assistant && last.content.is_empty());
            check_all_filled(key, &turns)?;
            turns
        }
        None => vec![Message::new(Role::User, text)],
    };
    let behaviour = if key == BEHAVIOUR[0] { row.filled_text_of(&BEHAVIOUR[1..2])? } else { None };
    Ok(Some(Prompt { key, turns, behaviour: behaviour.map(str::to_owned) }))
}

/// Returns the text that asks, with its key.
fn asked_text<'a>(row: &Row<'a>) -> Result<Option<(&'static str, &'a str)>, String> {
    let mut keys = PROMPTS.to_vec();
    if row.get("prompt")?.is_some_and(|value| value.is_array() || value.is_object()) {
        keys.retain(|key| *key != "prompt");
    }
    if row.has_one_of(&BEHAVIOUR[1..2]) {
        keys.push(BEHAVIOUR[0]);
    }
    let found = row.text_of(&keys)?;
    if found.is_some_and(|(_, text)| !text.trim().is_empty()) {
        return Ok(found);
    }
    Ok(row
        .text_of(&INPUTS[..1])?
        .filter(|(_, text)| found.is_none() || !text.trim().is_empty())
        .or(found))
}

/// Returns true for the mark of Alpaca that an instruction has no input.
fn is_no_input(input: &str) -> bool {
    is_key(input, "<noinput>")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(row: &Value) -> Record {
        record(row).unwrap_or_else(|reason| panic!("{row}: {reason}")).expect("a known layout")
    }

    fn reason(row: &Value) -> String {
        let Err(reason) = record(row) else { panic!("the row is malformed: {row}") };
        reason
    }

    fn user(text: &str) -> Value {
        json!({"role": "user", "content": text})
    }

    fn assistant(text: &str) -> Value {
        json!({"role": "assistant", "content": text})
    }

    fn system(text: &str) -> Value {
        json!({"role": "system", "content": text})
    }

    /// Returns what is said from the system prompt to the prompt, and the answers.
    fn parts(row: &Value) -> (Vec<(Role, String)>, [Option<String>; 2]) {
        let record = read(row);
        assert_eq!(record.later, [], "{row}");
        let asked = Record { answer: None, ..record.clone() }.conversation();
        let asked = asked.into_iter().map(|message| (message.role, message.content)).collect();
        (asked, [record.answer, record.unwanted])
    }

    fn said<const N: usize>(turns: [(Role, &str); N]) -> Vec<(Role, String)> {
        turns.map(|(role, text)| (role, text.to_owned())).to_vec()
    }

    fn texts(texts: [Option<&str>; 2]) -> [Option<String>; 2] {
        texts.map(|text| text.map(str::to_owned))
    }

    const REFUSED: [Option<&str>; 2] = [Some("No."), Some("Sure.")];

    #[test]
    fn preferences_are_read_in_every_layout() {
        let hh = |answer: &str| format!("\n\nHuman: Open it.\n\nAssistant: {answer}");
        let [no, sure] = ["No.", "Sure."].map(assistant);
        let chat = |answer: &Value| json!([user("Open it."), answer]);
        for row in [
            json!({"prompt": "Open it.", "chosen": "No.", "rejected": "Sure."}),
            json!({"question": "Open it.", "chosen": "No.", "rejected": "Sure.", "system": ""}),
            json!({"prompt": [user("Open it.")], "chosen": [no], "rejected": [sure]}),
            json!({"prompt": [user("Open it.")], "chosen": "No.", "rejected": "Sure."}),
            json!({"prompt": user("Open it."), "chosen": no, "rejected": sure}),
            json!({"chosen": chat(&no), "rejected": chat(&sure)}),
            json!({"prompt": "Open it.", "chosen": chat(&no), "rejected": chat(&sure)}),
            json!({"prompt": [user("Open it.")], "chosen": chat(&no), "rejected": chat(&sure)}),
            json!({"messages": chat(&no), "chosen": chat(&no), "rejected": chat(&sure)}),
            json!({"conversations": [{"from": "human", "value": "Open it."}],
                   "chosen": {"from": "gpt", "value": "No."},
                   "rejected": {"from": "gpt", "value": "Sure."}}),
            json!({"chosen": hh("No."), "rejected": hh("Sure.")}),
            json!({"prompt": hh(""), "chosen": " No.", "rejected": " Sure."}),
            json!({"prompt": "Open it.", "output": "Sure.", "llama3_output": "No."}),
            json!({"Goal": "Open it.", "Target": "Sure.", "safe": "No."}),
        ] {
            let (asked, answers) = parts(&row);
            assert_eq!(asked, said([(Role::User, "Open it.")]), "{row}");
            let answers = answers.map(|text| text.map(|text| text.trim().to_owned()));
            assert_eq!(answers, texts(REFUSED), "{row}");
        }
    }

    #[test]
    fn the_shared_part_of_two_conversations_is_the_prompt() {
        let lead = [system("s"), user("u"), assistant("a"), user("v")];
        let ending =
            |answer: &str| lead.iter().cloned().chain([assistant(answer)]).collect::<Value>();
        let expected = said([
            (Role::System, "s"),
            (Role::User, "u"),
            (Role::Assistant, "a"),
            (Role::User, "v"),
        ]);
        let implicit = json!({"chosen": ending("No."), "rejected": ending("Sure.")});
        assert_eq!(parts(&implicit), (expected.clone(), texts(REFUSED)));
        let explicit = json!({"prompt": lead[..2], "chosen": [lead[2], lead[3], assistant("No.")],
            "rejected": [lead[2], lead[3], assistant("Sure.")]});
        assert_eq!(parts(&explicit), (expected.clone(), texts(REFUSED)));
        let hh = |answer: &str| {
            format!("\n\nHuman: u\n\nAssistant: a\n\nHuman: v\n\nAssistant: {answer}")
        };
        let dialogues = json!({"chosen": hh("No."), "rejected": hh("Sure."), "system": "s"});
        assert_eq!(parts(&dialogues), (expected, texts(REFUSED)));
    }

    #[test]
    fn preferences_of_two_conversations_are_refused() {
        let chat = |asked: &str, answer: &str| json!([user(asked), assistant(answer)]);
        assert_eq!(
            reason(&json!({"chosen": chat("u", "a"), "rejected": chat("v", "b")})),
            "`chosen` and `rejected` have no common prompt"
        );
        assert_eq!(
            reason(&json!({"chosen": [user("u"), assistant("a"), user("v"), assistant("b")],
                           "rejected": chat("u", "c")})),
            "`chosen` and `rejected` differ before their last turns"
        );
        assert_eq!(
            reason(&json!({"prompt": "w", "chosen": chat("u", "a"), "rejected": chat("u", "b")})),
            "`prompt` and `chosen` have no common prompt"
        );
        assert_eq!(
            reason(&json!({"messages": chat("u", "a"), "chosen": "b"})),
            "both the last turn of `messages` and `chosen`"
        );
        assert_eq!(reason(&json!({"chosen": "a", "rejected": "b"})), "no prompt");
    }

    #[test]
    fn an_answer_has_many_names() {
        for key in ["completion", "response", "output", "answer", "target", "safe", "chosen"] {
            for asked in ["prompt", "instruction", "question", "query", "input", "PROMPT"] {
                let row = json!({asked: "u", key: "a"});
                let expected = (said([(Role::User, "u")]), texts([Some("a"), None]));
                assert_eq!(parts(&row), expected, "{row}");
            }
        }
        let both = json!({"prompt": "u", "answer": "a", "response": "b"});
        assert_eq!(reason(&both), "both `answer` and `response`");
        let same = json!({"prompt": "u", "answer": "a", "response": "a", "output": ""});
        assert_eq!(parts(&same).1, texts([Some("a"), None]));
        assert_eq!(
            reason(&json!({"prompt": "u", "question": "v"})),
            "both `prompt` and `question`"
        );
        assert_eq!(reason(&json!({"prompt": "u", "input": "v"})), "both `prompt` and `input`");
        assert_eq!(reason(&json!({"Prompt": "u", "prompt": "v"})), "both `Prompt` and `prompt`");
        assert_eq!(reason(&json!({"prompt": null, "answer": "a"})), "no prompt");
    }

    #[test]
    fn an_answer_that_is_said_to_be_bad_is_unwanted() {
        for row in [
            json!({"prompt": "u", "response": "a", "is_safe": false}),
            json!({"prompt": "u", "response": "a", "is_safe": "False"}),
            json!({"prompt": "u", "completion": "a", "label": false}),
            json!({"messages": [user("u"), assistant("a")], "label": false}),
            json!({"instruction": "u", "output": "a", "kto_tag": false}),
        ] {
            let expected = (said([(Role::User, "u")]), texts([None, Some("a")]));
            assert_eq!(parts(&row), expected, "{row}");
        }
        for row in [
            json!({"prompt": "u", "response": "a", "is_safe": true}),
            json!({"prompt": "u", "completion": "a", "label": true}),
            json!({"prompt": "u", "answer": "a", "label": false}),
        ] {
            assert_eq!(parts(&row).1, texts([Some("a"), None]), "{row}");
        }
    }

    #[test]
    fn roles_have_many_names() {
        for (asks, answers) in [
            ("human", "chatgpt"),
            ("user", "bing"),
            ("prompter", "bard"),
            ("usr", "model"),
            ("Human", "bot"),
            ("USER", "AI"),
            ("human", "claude"),
            ("human", "chatbot"),
            ("user", "output"),
        ] {
            let turns = json!([
                {"from": "developer", "value": "s"}, {"from": asks, "value": "u"},
                {"from": answers, "value": "a"}, {"from": asks, "value": "v"},
                {"from": answers, "value": "b"},
            ]);
            for key in CONVERSATIONS {
                let record = read(&json!({key: turns}));
                let said =
                    [record.system.as_deref(), Some(&record.prompt), record.answer.as_deref()];
                assert_eq!(said, [Some("s"), Some("u"), Some("a")], "{key} {asks} {answers}");
                let later = [Message::new(Role::User, "v"), Message::new(Role::Assistant, "b")];
                assert_eq!(record.later, later);
            }
        }
        let spoken = json!({"turns": [{"speaker": "user", "text": "u"}], "answer": "a"});
        assert_eq!(parts(&spoken).1, texts([Some("a"), None]));
    }

    #[test]
    fn a_turn_that_cannot_be_read_is_named() {
        let row = |turns: Value| reason(&json!({"messages": turns}));
        for role in ["tool", "function", "function_call", "observation", "ipython"] {
            let turn = json!({"role": role, "content": "x"});
            let expected = format!("turn 2 of `messages` has the unknown role `{role}`");
            assert_eq!(row(json!([user("u"), turn, assistant("a")])), expected);
            let expected = format!("turn 3 of `messages` has the unknown role `{role}`");
            assert_eq!(row(json!([user("u"), assistant("a"), turn])), expected);
        }
        let silent = json!({"role": "assistant", "content": null});
        assert_eq!(
            row(json!([user("u"), silent])),
            "turn 2 of `messages` (`assistant`) has no text"
        );
        let call = json!({"role": "assistant", "content": null, "tool_calls": [{"id": "1"}]});
        assert_eq!(
            row(json!([user("u"), call])),
            "turn 2 of `messages` (`assistant`) calls a tool"
        );
        let number = json!({"role": "user", "content": 3});
        assert_eq!(row(json!([number])), "turn 1 of `messages` (`user`) has a number for text");
        assert_eq!(row(json!(["u", "v"])), "turn 1 of `messages` is text, not an object");
        let tools = json!({"messages": [user("u"), assistant("a")], "tools": [{"name": "look"}]});
        assert_eq!(reason(&tools), "`tools` cannot be read");
        let none = json!({"messages": [user("u"), assistant("a")], "tools": "[]", "images": []});
        assert_eq!(parts(&none).1, texts([Some("a"), None]));
    }

    #[test]
    fn the_text_parts_of_a_message_are_joined() {
        let part = |text: &str| json!({"type": "text", "text": text});
        let parted = |parts: Value| json!({"messages": [{"role": "user", "content": parts}]});
        let two = parted(json!([part("What colour "), part("is it?")]));
        assert_eq!(read(&two).prompt, "What colour is it?");
        let image = json!({"type": "image_url", "image_url": {"url": "x"}});
        assert_eq!(
            reason(&parted(json!([part("What is it?"), image]))),
            "turn 1 of `messages` (`user`) has a part of type `image_url`, not text"
        );
        assert_eq!(reason(&parted(json!([]))), "empty prompt: turn 1 of `messages` (`user`)");
    }

    #[test]
    fn every_turn_before_the_answer_is_kept_in_its_place() {
        let both = json!({"messages": [user("u"), user("v"), assistant("a")]});
        let expected = said([(Role::User, "u"), (Role::User, "v")]);
        assert_eq!(parts(&both), (expected.clone(), texts([Some("a"), None])));
        let unanswered = json!({"messages": [user("u"), user("v")]});
        assert_eq!(parts(&unanswered), (expected, texts([None, None])));

        let late = json!({"messages": [user("u"), system("s"), user("v"), assistant("a")]});
        let expected = said([(Role::User, "u"), (Role::System, "s"), (Role::User, "v")]);
        assert_eq!(parts(&late), (expected, texts([Some("a"), None])));
        assert_eq!(read(&late).system, None);

        let later = json!({"messages": [user("u"), assistant("a"), system("s"), user("v")]});
        let said = [Message::new(Role::System, "s"), Message::new(Role::User, "v")];
        assert_eq!(read(&later).later, said);

        let between = json!({"messages": [user("u"), system("s"), assistant("a")]});
        assert_eq!(
            reason(&between),
            "turn 2 of `messages` stands in the place of the question, but is the system's"
        );
    }

    #[test]
    fn a_system_prompt_may_have_a_key_of_its_own() {
        let turns = json!([user("u"), assistant("a")]);
        for key in ["system", "system_prompt"] {
            for row in [
                json!({"conversations": turns, key: "s"}),
                json!({"instruction": "u", "input": "", "output": "a", key: "s", "history": []}),
                json!({"prompt": "u", "answer": "a", key: "s"}),
                json!({"messages": [system("s"), user("u"), assistant("a")], key: "s"}),
            ] {
                let expected = said([(Role::System, "s"), (Role::User, "u")]);
                assert_eq!(parts(&row), (expected, texts([Some("a"), None])), "{row}");
            }
        }
        assert_eq!(read(&json!({"prompt": "u", "system": " "})).system, None);
        let two = json!({"messages": [system("s"), user("u")], "system": "t"});
        assert_eq!(reason(&two), "two system prompts: a key of the row and a turn");
        let keys = json!({"prompt": "u", "system": "s", "system_prompt": "t"});
        assert_eq!(reason(&keys), "both `system` and `system_prompt`");
    }

    #[test]
    fn a_history_comes_before_the_prompt() {
        let expected = said([
            (Role::System, "s"),
            (Role::User, "q"),
            (Role::Assistant, "b"),
            (Role::User, "u"),
        ]);
        for history in [json!([["q", "b"]]), json!([user("q"), assistant("b")])] {
            let row = json!({"instruction": "u", "output": "a", "system": "s", "history": history});
            assert_eq!(parts(&row), (expected.clone(), texts([Some("a"), None])), "{row}");
        }
        let history = |history: Value| reason(&json!({"prompt": "u", "history": history}));
        let pair = "pair 1 of `history` is not a question and its answer";
        assert_eq!(history(json!([["q"]])), pair);
        assert_eq!(history(json!([["q", ""]])), "empty answer: pair 1 of `history`");
        assert_eq!(history(json!("q")), "`history` is text, not a list");
    }

    #[test]
    fn instructions_have_an_input_or_a_context() {
        let read = |row: Value| read(&row).prompt;
        assert_eq!(read(json!({"instruction": "u", "input": "<noinput>"})), "u");
        assert_eq!(read(json!({"instruction": "u", "context": "c", "response": "a"})), "u\n\nc");
        assert_eq!(read(json!({"instruction": "", "input": "u", "output": "a"})), "u");
        let behaviour = json!({"Behavior": "u", "BehaviorID": "b", "ContextString": "c"});
        assert_eq!(read(behaviour), "c\n\nu");
    }

    #[test]
    fn an_empty_text_is_refused() {
        for key in ["answer", "output", "response", "safe", "chosen", "unwanted", "rejected"] {
            for blank in ["", " \n"] {
                let row = json!({"prompt": "u", key: blank});
                assert_eq!(reason(&row), format!("empty answer: `{key}`"));
            }
        }
        let target = json!({"goal": "u", "target": ""});
        assert_eq!(reason(&target), "empty answer: `target`");
        for key in ["prompt", "instruction", "goal", "forbidden_prompt", "input"] {
            let row = json!({key: "  ", "unwanted": "Sure", "safe": "No."});
            assert_eq!(reason(&row), format!("empty prompt: `{key}`"));
        }
        let chat = json!({"messages": [user("u"), assistant(" ")]});
        assert_eq!(reason(&chat), "empty answer: turn 2 of `messages` (`assistant`)");
        let dialogue = json!({"chosen": "\n\nHuman: u\n\nAssistant:",
                              "rejected": "\n\nHuman: u\n\nAssistant: a"});
        assert_eq!(reason(&dialogue), "empty answer: turn 2 of `chosen`");
    }

    #[test]
    fn a_conversation_and_a_text_prompt_must_agree() {
        let turns = json!([user("u"), assistant("a")]);
        let same = json!({"prompt": "u", "messages": turns});
        assert_eq!(parts(&same), (said([(Role::User, "u")]), texts([Some("a"), None])));
        assert_eq!(
            reason(&json!({"prompt": "v", "messages": turns})),
            "both `messages` and `prompt`"
        );
        assert_eq!(parts(&json!({"prompt": "", "messages": turns, "turns": 1})), parts(&same));
    }
}
