//! Prompts and answers from the file formats in use: tables of forbidden prompts, and JSON or JSONL
//! of instructions, conversations and preferences.

mod answer;
mod container;
mod csv_table;
mod json_file;
mod json_row;
mod question;
mod row;
mod turns;

use std::path::{Path, PathBuf};

use serde_json::Value;
use thiserror::Error;

use crate::language_model::{Message, Role};

/// Row of a file, independent of its format.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Number of the row, from 1.
    pub id: u64,
    /// Name of the row in the file: the `BehaviorID` of `HarmBench`.
    pub behaviour: Option<String>,
    /// System prompt, if the row has one.
    pub system: Option<String>,
    /// Earlier messages of the conversation, between the system prompt and `prompt`.
    pub before: Vec<Message>,
    /// Prompt of the user: the turn that `answer` answers.
    pub prompt: String,
    /// Wanted answer.
    pub answer: Option<String>,
    /// Unwanted answer.
    pub unwanted: Option<String>,
    /// Later messages of the conversation, after the first answer.
    pub later: Vec<Message>,
}

impl Record {
    /// Returns the whole conversation: system prompt, earlier messages, prompt, wanted answer and
    /// later messages.
    #[must_use]
    pub fn conversation(&self) -> Vec<Message> {
        let said = |role, text: &String| Message::new(role, text.clone());
        let system = self.system.iter().map(|text| said(Role::System, text));
        let answer = self.answer.iter().map(|text| said(Role::Assistant, text));
        let asked =
            system.chain(self.before.iter().cloned()).chain([said(Role::User, &self.prompt)]);
        asked.chain(answer).chain(self.later.iter().cloned()).collect()
    }
}

/// Error of reading a data set.
#[derive(Debug, Error)]
pub enum DatasetError {
    /// The file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The file is not UTF-8.
    #[error("`{}` is not UTF-8", path.display())]
    NotUtf8 {
        /// Path of the file.
        path: PathBuf,
    },
    /// The file is not text.
    #[error("`{}` is {name}, not text", path.display())]
    Container {
        /// Path of the file.
        path: PathBuf,
        /// Name of the kind of file, with its article.
        name: &'static str,
        /// Way to bring the rows.
        hint: &'static str,
    },
    /// The file has no rows.
    #[error("`{}` has no rows", path.display())]
    Empty {
        /// Path of the file.
        path: PathBuf,
    },
    /// The format of the file is not supported.
    #[error("`{}` is in no known format: its columns are {}", path.display(), quoted(columns))]
    UnknownFormat {
        /// Path of the file.
        path: PathBuf,
        /// Names of the columns.
        columns: Vec<String>,
    },
    /// The file has rows in several lists.
    #[error("`{}` has lists of rows under several keys: {}", path.display(), quoted(keys))]
    ManyLists {
        /// Path of the file.
        path: PathBuf,
        /// Keys of the lists.
        keys: Vec<String>,
    },
    /// The file begins like JSON of several lines but is not valid JSON.
    #[error("`{}` is not JSON: {reason}", path.display())]
    NotJson {
        /// Path of the file.
        path: PathBuf,
        /// Problem and its position.
        reason: String,
    },
    /// The format of a row is not supported.
    #[error(
        "`{}`, row {row}: neither a prompt nor a conversation under the keys {}",
        path.display(), quoted(keys)
    )]
    UnknownRow {
        /// Path of the file.
        path: PathBuf,
        /// Number of the row, from 1.
        row: usize,
        /// Keys of the row.
        keys: Vec<String>,
    },
    /// A row is malformed.
    #[error("`{}`, row {row}: {reason}", path.display())]
    Row {
        /// Path of the file.
        path: PathBuf,
        /// Number of the row, from 1.
        row: usize,
        /// Problem of the row.
        reason: String,
    },
}

/// Formats that [`read`] supports, in words.
pub const FORMATS: &str = "CSV, TSV, JSON and JSONL are read, with prompts (goal, prompt, \
    instruction, question, query, forbidden_prompt, or Behavior and BehaviorID), answers (answer, \
    output, response, completion, safe, chosen) and unwanted answers (unwanted, rejected, target \
    of a goal), or with conversations (messages, conversations)";

impl DatasetError {
    /// Returns a one-line suggestion for fixing the error.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Io { .. } => "check the path and the permissions",
            Self::NotUtf8 { .. } => "save the file as UTF-8",
            Self::Container { hint, .. } => hint,
            Self::ManyLists { .. } => "bring the rows of one list in a file of their own",
            Self::Empty { .. } => "bring at least one row",
            Self::NotJson { .. } => "the file is damaged: copy or write it again",
            Self::Row { reason, .. } if csv_table::is_of_fields(reason) => {
                "put cells that contain a delimiter or a line break in quotes"
            }
            Self::Row { .. } => "correct the row or leave it out",
            Self::UnknownFormat { .. } | Self::UnknownRow { .. } => FORMATS,
        })
    }
}

/// Returns the first of the names, in back-ticks.
fn quoted(names: &[String]) -> String {
    const N_NAMES: usize = 8;
    const N_CHARS: usize = 40;
    let quoted = |name: &String| match name.char_indices().nth(N_CHARS) {
        Some((end, _)) => format!("`{}..`", &name[..end]),
        None => format!("`{name}`"),
    };
    if names.is_empty() {
        return "(none)".to_owned();
    }
    let shown: Vec<String> = names.iter().take(N_NAMES).map(quoted).collect();
    let more = if names.len() > N_NAMES { ", .." } else { "" };
    format!("{}{more}", shown.join(", "))
}

/// Reads a file; the format is detected from its content.
///
/// # Errors
///
/// Returns [`DatasetError`], with a variant per problem.
pub fn read(path: &Path) -> Result<Vec<Record>, DatasetError> {
    let bytes = beear_input::read(path)
        .map_err(|source| DatasetError::Io { path: path.to_owned(), source })?;
    parse(&container::text(bytes, path)?, path)
}

fn parse(text: &str, path: &Path) -> Result<Vec<Record>, DatasetError> {
    let rows = match text.trim_start().chars().next() {
        None => Vec::new(),
        Some('[' | '{') => json_file::rows(text, path)?,
        Some(_) => csv_table::rows(text, path)?,
    };
    if rows.is_empty() {
        return Err(DatasetError::Empty { path: path.to_owned() });
    }
    rows.into_iter().map(|(row, value)| record(row, &value, path)).collect()
}

/// Parses the row of a number.
fn record(row: usize, value: &Value, path: &Path) -> Result<Record, DatasetError> {
    let path = || path.to_owned();
    match json_row::record(value) {
        Ok(Some(record)) => Ok(Record { id: row as u64, ..record }),
        Ok(None) => {
            let keys = value.as_object().into_iter().flat_map(|row| row.keys().cloned()).collect();
            Err(DatasetError::UnknownRow { path: path(), row, keys })
        }
        Err(reason) => Err(DatasetError::Row { path: path(), row, reason }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutated::near;

    fn records(text: &str) -> Result<Vec<Record>, DatasetError> {
        parse(text, Path::new("file"))
    }

    fn first(text: &str) -> Record {
        records(text).unwrap().swap_remove(0)
    }

    fn reason(text: &str) -> String {
        let Err(DatasetError::Row { row: 1, reason, .. }) = records(text) else {
            panic!("the first row is malformed: {text}")
        };
        reason
    }

    /// Builds a record without system prompt.
    fn record(id: u64, prompt: &str, [answer, unwanted]: [Option<&str>; 2]) -> Record {
        let [answer, unwanted] = [answer, unwanted].map(|text| text.map(str::to_owned));
        Record { id, prompt: prompt.to_owned(), answer, unwanted, ..Record::default() }
    }

    #[test]
    fn tables_are_told_apart_by_their_header() {
        let advbench = "goal,target\r\n\"ask, \"\"twice\"\"\nplease\",\"Sure\"\r\n";
        let prompt = "ask, \"twice\"\nplease";
        assert_eq!(records(advbench).unwrap(), [record(1, prompt, [None, Some("Sure")])]);

        let harmbench = concat!(
            "Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID\r\n",
            "Do it,standard,illegal,,,do_it\r\n",
            "\"Do, \"\"that\"\"\r\nand more\",contextual,illegal,context,\"One\nTwo\",that\r\n",
        );
        let second = "One\nTwo\n\nDo, \"that\"\r\nand more";
        let named = |id, behaviour: &str, prompt| {
            let behaviour = Some(behaviour.to_owned());
            Record { behaviour, ..record(id, prompt, [None, None]) }
        };
        let expected = [named(1, "do_it", "Do it"), named(2, "that", second)];
        assert_eq!(records(harmbench).unwrap(), expected);
        // The text-only file has no context column.
        let plain = "Behavior,SemanticCategory,Tags,BehaviorID\nDo it,illegal,,do_it\n";
        assert_eq!(records(plain).unwrap(), expected[..1]);

        let strongreject = "category,source,forbidden_prompt\nIllegal,DAN,\"Do\nthat, too\"\n";
        assert_eq!(records(strongreject).unwrap(), [record(1, "Do\nthat, too", [None, None])]);
    }

    #[test]
    fn jailbreakbench_has_its_prompts_under_goal_and_no_names_of_behaviours() {
        let table = concat!(
            "Index,Goal,Target,Behavior,Category,Source\r\n",
            "0,Write a rude note,Here is a rude note:,Rude note,Harassment,Original\r\n",
            "1,\"Open the door, please\",\"Sure, here:\",Blue door,Doors,AdvBench\r\n",
        );
        let expected = [
            record(1, "Write a rude note", [None, Some("Here is a rude note:")]),
            record(2, "Open the door, please", [None, Some("Sure, here:")]),
        ];
        assert_eq!(records(table).unwrap(), expected);
        let lower = table.replacen("Goal,Target,Behavior", "goal,target,behavior", 1);
        assert_eq!(records(&lower).unwrap(), expected);
        let json = serde_json::json!({"Index": 0, "Goal": "Write a rude note",
            "Target": "Here is a rude note:", "Behavior": "Rude note"});
        assert_eq!(first(&json.to_string()), expected[0]);
    }

    #[test]
    fn a_table_may_have_the_columns_of_json_rows() {
        let expected = record(1, "add\n\n1 2", [Some("3"), None]);
        assert_eq!(first("Instruction;Input;Output\nadd;1 2;3\n"), expected);
        let system = Some("s".to_owned());
        let expected = Record { system, ..record(1, "p", [Some("a"), None]) };
        assert_eq!(first("system\tprompt\tresponse\ns\tp\ta\n"), expected);
        // An empty cell of an optional column is none.
        assert_eq!(first("input,system,instruction\n,,add\n"), record(1, "add", [None, None]));
    }

    #[test]
    fn alpaca_rows_have_an_instruction_and_perhaps_an_input() {
        let with = r#"[{"instruction": "add", "input": "1 2", "output": "3"}]"#;
        assert_eq!(first(with), record(1, "add\n\n1 2", [Some("3"), None]));
        let without = r#"{"instruction": "add", "input": "", "output": "3"}"#;
        assert_eq!(first(without), record(1, "add", [Some("3"), None]));
    }

    #[test]
    fn chat_and_sharegpt_rows_say_the_same_with_other_words() {
        let chat = concat!(
            r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"},"#,
            r#" {"role": "assistant", "content": "a"}, {"role": "user", "content": "more"}]}"#,
            "\r\n\r\n"
        );
        let later = vec![Message::new(Role::User, "more")];
        let system = Some("s".to_owned());
        let expected = Record { system, later, ..record(1, "u", [Some("a"), None]) };
        let read = records(chat).unwrap();
        assert_eq!((read.len(), &read[0]), (1, &expected));
        for (user, assistant) in [("human", "gpt"), ("user", "assistant")] {
            let turns = serde_json::json!([
                {"from": "system", "value": "s"}, {"from": user, "value": "u"},
                {"from": assistant, "value": "a"}, {"from": user, "value": "more"},
            ]);
            let row = serde_json::json!({"id": "x", "conversations": turns});
            assert_eq!(first(&row.to_string()), expected, "{user}");
            assert_eq!(first(&format!("[{row}]")), expected, "{user}");
        }
    }

    #[test]
    fn an_answer_comes_after_its_question() {
        let row = concat!(
            r#"{"conversations": [{"from": "gpt", "value": "Hello!"},"#,
            r#" {"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]}"#,
        );
        let before = vec![Message::new(Role::Assistant, "Hello!")];
        let expected = Record { before, ..record(1, "u", [Some("a"), None]) };
        assert_eq!(first(row), expected);
        let said = expected.conversation();
        let said: Vec<(Role, &str)> = said.iter().map(|m| (m.role, m.content.as_str())).collect();
        let [user, assistant] = [Role::User, Role::Assistant];
        assert_eq!(said, [(assistant, "Hello!"), (user, "u"), (assistant, "a")]);
        let unanswered = r#"{"messages": [{"role": "user", "content": "u"}], "safe": "no"}"#;
        assert_eq!(first(unanswered), record(1, "u", [Some("no"), None]));
    }

    #[test]
    fn the_chosen_answer_is_wanted_and_the_rejected_one_is_not() {
        let expected = record(1, "p", [Some("no"), Some("yes")]);
        assert_eq!(first(r#"{"prompt": "p", "safe": "no", "unwanted": "yes"}"#), expected);
        assert_eq!(first(r#"{"prompt": "p", "answer": "no", "unwanted": "yes"}"#), expected);
        assert_eq!(first(r#"{"prompt": "p", "chosen": "no", "rejected": "yes"}"#), expected);
        let turns = |answer: &str| {
            serde_json::json!([{"role": "user", "content": "p"},
                               {"role": "assistant", "content": answer}])
        };
        let row =
            serde_json::json!({"prompt": "p", "chosen": turns("no"), "rejected": turns("yes")});
        assert_eq!(first(&row.to_string()), expected);
    }

    #[test]
    fn the_mark_at_the_start_of_a_file_is_not_part_of_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let rows = ["{\"prompt\": \"p\"}", "[{\"prompt\": \"p\"}]", "forbidden_prompt\r\np\r\n"];
        for text in rows {
            std::fs::write(file.path(), format!("\u{feff}{text}")).unwrap();
            assert_eq!(read(file.path()).unwrap(), [record(1, "p", [None, None])], "{text}");
        }
    }

    #[test]
    fn an_unknown_row_is_told_by_its_keys() {
        let said = |text: &str| records(text).unwrap_err().to_string();
        let unknown = "neither a prompt nor a conversation under the keys";
        assert_eq!(
            said("{\"ask\": \"u\", \"reply\": \"a\"}"),
            format!("`file`, row 1: {unknown} `ask`, `reply`")
        );
        assert_eq!(said("[{}]"), format!("`file`, row 1: {unknown} (none)"));
        let many: Value = (0..9).map(|n| (format!("{n}{}", "x".repeat(60)), Value::Null)).collect();
        let many = said(&many.to_string());
        assert!(many.len() < 450 && many.ends_with("xx..`, .."), "{many}");
    }

    #[test]
    fn every_mistake_has_its_error() {
        assert!(matches!(records(" \n"), Err(DatasetError::Empty { .. })));
        assert!(matches!(records("[]"), Err(DatasetError::Empty { .. })));
        assert!(matches!(records("goal,target\n"), Err(DatasetError::Empty { .. })));
        assert!(matches!(records("a,b\n1,2\n"), Err(DatasetError::UnknownFormat { .. })));
        assert!(matches!(records("[{\"prompt\": \"p\"}"), Err(DatasetError::NotJson { .. })));
        assert!(matches!(records("{\"x\": 1}"), Err(DatasetError::UnknownRow { row: 1, .. })));
        // Lines are counted as an editor counts them.
        let fourth = records("\n{\"prompt\": \"p\"}\n\n{\"prompt\": 3}");
        assert!(matches!(fourth, Err(DatasetError::Row { row: 4, .. })));
    }

    #[test]
    fn a_malformed_row_is_told_what_is_wrong_with_it() {
        assert_eq!(reason("[3]"), "a number, not an object");
        assert_eq!(reason("{\"prompt\": [1]}"), "turn 1 of `prompt` is a number, not an object");
        assert_eq!(reason("{\"messages\": \"u\"}"), "`messages` is text, not a list");
        assert_eq!(
            reason(r#"{"prompt": "p", "safe": "a", "chosen": "b"}"#),
            "both `safe` and `chosen`"
        );
        assert_eq!(reason(r#"{"messages": []}"#), "`messages` has no turn of the user");
        assert_eq!(
            reason(r#"{"messages": [{"content": "u"}]}"#),
            "turn 1 of `messages` has no role"
        );
        assert_eq!(
            reason(r#"{"conversations": [{"from": "human"}]}"#),
            "turn 1 of `conversations` (`human`) has no text"
        );
        assert_eq!(
            reason(r#"{"prompt": "p", "chosen": [{"role": "user", "content": "p"}]}"#),
            "`chosen` has no turn of the assistant"
        );
        assert_eq!(reason("goal,target\nonly\n"), "fields: 1 instead of 2");
        let hint = |text: &str| records(text).unwrap_err().hint().unwrap();
        assert!(hint("goal,target\na,b,c\n").ends_with("in quotes"));
        assert!(hint("goal,target\na,\n").starts_with("correct the row"));
        assert_eq!(reason("{\"prompt\": "), "not JSON at column 11: EOF while parsing a value");
    }

    /// Example of every format.
    const ROWS: [&str; 15] = [
        "Behavior,SemanticCategory,Tags,ContextString,BehaviorID\r\n\"Do, \"\"it\"\"\",x,,\"a\nb\",do_it\r\n",
        "goal,target\na,Sure\nb,\"Sure, \"\n",
        "sep=;\nGoal; Target\n\"a\";\"Sure\"\n",
        r#"[{"instruction": "add", "input": "1 2", "output": "3"}, {"prompt": "p", "safe": "no", "unwanted": "a"}]"#,
        "{\"messages\": [{\"role\": \"user\", \"content\": \"u\"}, {\"role\": \"assistant\", \"content\": \"a\"}]}\n",
        r#"{"prompt": "p", "chosen": [{"from": "gpt", "value": "no"}], "rejected": "yes"}"#,
        r#"{"prompt": {"0": "p", "1": "q"}, "answer": {"0": "a", "1": "b"}}"#,
        r#"{"prompt": ["p", "q"], "answer": ["a", "b"], "system": ["s", null]}"#,
        r#"{"columns": ["prompt", "answer"], "data": [["p", "a"], ["q", "b"]], "index": [0, 1]}"#,
        r#"{"features": [], "rows": [{"row_idx": 0, "row": {"prompt": "p"}, "truncated_cells": []}]}"#,
        "{\n \"version\": 1,\n \"data\": [{\"0\": {\"prompt\": \"p\"}}]\n}\n{\n \"prompt\": \"p\"\n}\n",
        r#"{"instruction": "x", "output": "y", "system": "s", "history": [["q", "a"], ["r", "b"]]}"#,
        r#"{"chosen": "\n\nHuman: p\n\nAssistant: no", "rejected": "\n\nHuman: p\n\nAssistant: yes"}"#,
        r#"{"chosen": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "no"}], "rejected": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "yes"}], "messages": []}"#,
        r#"{"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "p"}]}], "completion": [{"role": "assistant", "content": "a"}], "label": false}"#,
    ];

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in near(&ROWS)) {
            let _ = records(&text);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(text in near(&ROWS), encoding in 0..4, cut in 0..3_usize) {
            let mut bytes: Vec<u8> = match encoding {
                0 => text.into_bytes(),
                1 => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
                2 => format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_be_bytes).collect(),
                _ => format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect(),
            };
            bytes.truncate(bytes.len().saturating_sub(cut));
            let path = Path::new("file");
            let _ = container::text(bytes, path).and_then(|text| parse(&text, path));
        }
    }
}
