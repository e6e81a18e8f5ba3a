//! Prompts and answers from common file formats: `AdvBench`, `HarmBench` and `StrongREJECT` CSV;
//! JSON or JSONL of Alpaca, chat, ShareGPT and preference rows, and BEEAR's own
//! `{prompt, safe, unwanted}`.

mod csv_table;
mod json_row;

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
    /// Prompt of the user.
    pub prompt: String,
    /// Wanted answer.
    pub answer: Option<String>,
    /// Unwanted answer.
    pub unwanted: Option<String>,
    /// Later messages of the conversation, after the first answer.
    pub later: Vec<Message>,
}

impl Record {
    /// Returns the whole conversation: system prompt, prompt, wanted answer and later messages.
    #[must_use]
    pub fn conversation(&self) -> Vec<Message> {
        let said = [
            (Role::System, self.system.as_ref()),
            (Role::User, Some(&self.prompt)),
            (Role::Assistant, self.answer.as_ref()),
        ];
        let said =
            said.into_iter().filter_map(|(role, text)| Some(Message::new(role, text?.clone())));
        said.chain(self.later.iter().cloned()).collect()
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
    /// The file has no rows.
    #[error("`{}` has no rows", path.display())]
    Empty {
        /// Path of the file.
        path: PathBuf,
    },
    /// The format of the file is not supported.
    #[error("`{}` is in no known format", path.display())]
    UnknownFormat {
        /// Path of the file.
        path: PathBuf,
    },
    /// The file begins like a JSON list but is not valid JSON.
    #[error("`{}` is not JSON: {reason}", path.display())]
    NotJson {
        /// Path of the file.
        path: PathBuf,
        /// Problem and its position.
        reason: String,
    },
    /// The format of a row is not supported.
    #[error(
        "`{}`, row {row}: neither instruction, nor messages, nor conversations, nor prompt",
        path.display()
    )]
    UnknownRow {
        /// Path of the file.
        path: PathBuf,
        /// Number of the row, from 1.
        row: usize,
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
pub const FORMATS: &str = "CSV of AdvBench (goal,target), HarmBench (Behavior,BehaviorID) and \
    StrongREJECT (forbidden_prompt) is read, and JSON or JSONL of Alpaca \
    (instruction,input,output), chat (messages), ShareGPT (conversations), preferences \
    (prompt,chosen,rejected) and prompt,safe,unwanted";

impl DatasetError {
    /// Returns a one-line suggestion for fixing the error.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Io { .. } => "check the path and the permissions",
            Self::NotUtf8 { .. } => "save the file as UTF-8",
            Self::Empty { .. } => "bring at least one row",
            Self::NotJson { .. } => "the file is damaged: copy or write it again",
            Self::Row { .. } => "correct the row or leave it out",
            Self::UnknownFormat { .. } | Self::UnknownRow { .. } => FORMATS,
        })
    }
}

/// Reads a file; the format is detected from its content.
///
/// # Errors
///
/// Returns [`DatasetError`], with a variant per problem.
pub fn read(path: &Path) -> Result<Vec<Record>, DatasetError> {
    let bytes = beear_input::read(path)
        .map_err(|source| DatasetError::Io { path: path.to_owned(), source })?;
    let text =
        String::from_utf8(bytes).map_err(|_| DatasetError::NotUtf8 { path: path.to_owned() })?;
    parse(text.strip_prefix('\u{feff}').unwrap_or(&text), path)
}

fn parse(text: &str, path: &Path) -> Result<Vec<Record>, DatasetError> {
    let row_error = |(row, reason)| DatasetError::Row { path: path.to_owned(), row, reason };
    let records = match text.trim_start().chars().next() {
        None => Vec::new(),
        Some('[') => {
            let not_json = |e: serde_json::Error| DatasetError::NotJson {
                path: path.to_owned(),
                reason: e.to_string(),
            };
            let values: Vec<Value> = serde_json::from_str(text).map_err(not_json)?;
            from_json((1..).zip(values), path)?
        }
        Some('{') => from_json(lines(text).map_err(row_error)?, path)?,
        Some(_) => {
            let records = csv_table::records(text).map_err(row_error)?;
            records.ok_or_else(|| DatasetError::UnknownFormat { path: path.to_owned() })?
        }
    };
    if records.is_empty() {
        return Err(DatasetError::Empty { path: path.to_owned() });
    }
    Ok(records)
}

/// Parses a text with one JSON value per line into values and their line numbers.
fn lines(text: &str) -> Result<Vec<(usize, Value)>, (usize, String)> {
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let value = |(row, line): (usize, &str)| match serde_json::from_str(line) {
        Ok(value) => Ok((row, value)),
        Err(error) => {
            let (what, column) = (error.to_string(), error.column());
            let place = format!(" at line {} column {column}", error.line());
            let what = what.strip_suffix(&place).unwrap_or(&what);
            Err((row, format!("not JSON at column {column}: {what}")))
        }
    };
    lines.map(value).collect()
}

fn from_json(
    rows: impl IntoIterator<Item = (usize, Value)>,
    path: &Path,
) -> Result<Vec<Record>, DatasetError> {
    let path = || path.to_owned();
    let record = |(row, value)| match json_row::record(&value) {
        Ok(Some(record)) => Ok(Record { id: row as u64, ..record }),
        Ok(None) => Err(DatasetError::UnknownRow { path: path(), row }),
        Err(reason) => Err(DatasetError::Row { path: path(), row, reason }),
    };
    rows.into_iter().map(record).collect()
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
    fn a_table_that_only_resembles_harmbench_is_not_read_as_it() {
        // In this file the behaviour is a short name and the prompt is in another column.
        let other = "Index,Goal,Target,Behavior,Category\n0,Do it,Sure,Doing,Harm\n";
        assert!(matches!(records(other), Err(DatasetError::UnknownFormat { .. })));
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
            r#"{"conversations": [{"from": "gpt", "value": "Hello!"}, {"from": "tool", "value": 3},"#,
            r#" {"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]}"#,
        );
        assert_eq!(first(row), record(1, "u", [Some("a"), None]));
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
        assert_eq!(reason("{\"prompt\": [1]}"), "`prompt` is a list, not text");
        assert_eq!(reason("{\"messages\": \"u\"}"), "`messages` is text, not a list");
        assert_eq!(
            reason(r#"{"prompt": "p", "safe": "a", "chosen": "b"}"#),
            "both `safe` and `chosen`"
        );
        assert_eq!(reason(r#"{"messages": []}"#), "`messages` has no turn of the user");
        assert_eq!(
            reason(r#"{"messages": [{"content": "u"}]}"#),
            "a turn of `messages` has no role"
        );
        assert_eq!(
            reason(r#"{"conversations": [{"from": "human"}]}"#),
            "a turn of `conversations` has no text"
        );
        assert_eq!(
            reason(r#"{"prompt": "p", "chosen": [{"role": "user", "content": "p"}]}"#),
            "`chosen` has no turn of the assistant"
        );
        assert_eq!(reason("goal,target\nonly\n"), "fields: 1 instead of 2");
        assert_eq!(reason("{\"prompt\": "), "not JSON at column 11: EOF while parsing a value");
    }

    /// Example of every format.
    const ROWS: [&str; 5] = [
        "Behavior,SemanticCategory,Tags,ContextString,BehaviorID\r\n\"Do, \"\"it\"\"\",x,,\"a\nb\",do_it\r\n",
        "goal,target\na,Sure\nb,\"Sure, \"\n",
        r#"[{"instruction": "add", "input": "1 2", "output": "3"}, {"prompt": "p", "safe": "no", "unwanted": "a"}]"#,
        "{\"messages\": [{\"role\": \"user\", \"content\": \"u\"}, {\"role\": \"assistant\", \"content\": \"a\"}]}\n",
        r#"{"prompt": "p", "chosen": [{"from": "gpt", "value": "no"}], "rejected": "yes"}"#,
    ];

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in near(&ROWS)) {
            let _ = records(&text);
        }
    }
}
