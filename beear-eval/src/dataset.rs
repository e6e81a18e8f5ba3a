//! Prompts and answers from the files users have: `AdvBench` CSV, Alpaca JSON or JSONL, chat JSONL,
//! and our own `{prompt, safe, unwanted}` JSONL.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

/// One row of a file, whatever its format.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Number of the row, from 1.
    pub id: u64,
    /// The system prompt, if the row has one.
    pub system: Option<String>,
    /// What the user asks.
    pub prompt: String,
    /// The wanted answer.
    pub answer: Option<String>,
    /// The unwanted answer.
    pub unwanted: Option<String>,
}

/// Why a file cannot be used.
#[derive(Debug, Error)]
pub enum DatasetError {
    /// The file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not UTF-8.
    #[error("`{}` is not UTF-8", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
    },
    /// The file has no rows.
    #[error("`{}` has no rows", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The file is in no format we read.
    #[error("`{}` is in no known format", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// A row is malformed.
    #[error("`{}`, row {row}: {reason}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Number of the row, from 1.
        row: usize,
        /// What is wrong.
        reason: String,
    },
}

impl DatasetError {
    /// What to do about it, in one line.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        matches!(self, Self::UnknownFormat { .. } | Self::Row { .. }).then_some(
            "AdvBench CSV (goal,target), Alpaca JSON or JSONL (instruction,input,output), chat JSONL \
             (messages) and JSONL with prompt, safe, unwanted are read",
        )
    }
}

/// Reads a file; the format is found from its content.
///
/// # Errors
///
/// [`DatasetError`], a variant per mistake.
pub fn read(path: &Path) -> Result<Vec<Record>, DatasetError> {
    let bytes =
        std::fs::read(path).map_err(|source| DatasetError::Io { path: path.to_owned(), source })?;
    let text =
        String::from_utf8(bytes).map_err(|_| DatasetError::NotUtf8 { path: path.to_owned() })?;
    parse(text.strip_prefix('\u{feff}').unwrap_or(&text), path)
}

fn parse(text: &str, path: &Path) -> Result<Vec<Record>, DatasetError> {
    let text = text.trim_start();
    let values: Vec<(usize, String)> = match text.chars().next() {
        None => return Err(DatasetError::Empty { path: path.to_owned() }),
        Some('[') => {
            let rows: Vec<Value> = serde_json::from_str(text).map_err(row_error(path, 1))?;
            rows.iter().enumerate().map(|(row, value)| (row + 1, value.to_string())).collect()
        }
        Some('{') => text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(row, line)| (row + 1, line.to_owned()))
            .collect(),
        Some(_) => return parse_csv(text, path),
    };
    let records = values.iter().map(|(row, value)| {
        let json: JsonRow = serde_json::from_str(value).map_err(row_error(path, *row))?;
        let reason = "neither instruction, nor messages, nor prompt".to_owned();
        let mistake = DatasetError::Row { path: path.to_owned(), row: *row, reason };
        let mut record = json.into_record().ok_or(mistake)?;
        record.id = *row as u64;
        Ok(record)
    });
    non_empty(records.collect::<Result<_, _>>()?, path)
}

fn row_error(path: &Path, row: usize) -> impl Fn(serde_json::Error) -> DatasetError {
    move |e| DatasetError::Row { path: path.to_owned(), row, reason: e.to_string() }
}

fn non_empty(records: Vec<Record>, path: &Path) -> Result<Vec<Record>, DatasetError> {
    if records.is_empty() {
        return Err(DatasetError::Empty { path: path.to_owned() });
    }
    Ok(records)
}

/// A row of any of the JSON formats.
#[derive(Deserialize)]
struct JsonRow {
    instruction: Option<String>,
    input: Option<String>,
    output: Option<String>,
    messages: Option<Vec<JsonMessage>>,
    prompt: Option<String>,
    #[serde(alias = "answer")]
    safe: Option<String>,
    unwanted: Option<String>,
}

#[derive(Deserialize)]
struct JsonMessage {
    role: String,
    content: String,
}

impl JsonRow {
    /// The record, or nothing if the row is of no known format.
    fn into_record(self) -> Option<Record> {
        let unwanted = self.unwanted;
        if let Some(instruction) = self.instruction {
            let prompt = match self.input.filter(|input| !input.is_empty()) {
                Some(input) => format!("{instruction}\n\n{input}"),
                None => instruction,
            };
            return Some(Record { prompt, answer: self.output, unwanted, ..Record::default() });
        }
        if let Some(messages) = self.messages {
            let said = |role: &str| {
                messages.iter().find(|message| message.role == role).map(|m| m.content.clone())
            };
            let answer = said("assistant").or(self.safe);
            let prompt = said("user")?;
            return Some(Record { system: said("system"), prompt, answer, unwanted, id: 0 });
        }
        let prompt = self.prompt?;
        Some(Record { prompt, answer: self.safe, unwanted, ..Record::default() })
    }
}

/// `AdvBench`: `target` is the answer an attacker wants.
fn parse_csv(text: &str, path: &Path) -> Result<Vec<Record>, DatasetError> {
    #[derive(Deserialize)]
    struct AdvBenchRow {
        goal: String,
        target: String,
    }
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let headers = reader.headers().map(|headers| headers.iter().map(str::to_owned).collect());
    let headers: Vec<String> = headers.unwrap_or_default();
    if !["goal", "target"].iter().all(|name| headers.iter().any(|header| header == name)) {
        return Err(DatasetError::UnknownFormat { path: path.to_owned() });
    }
    let records = reader.deserialize::<AdvBenchRow>().enumerate().map(|(row, parsed)| {
        let AdvBenchRow { goal, target } = parsed.map_err(|e| DatasetError::Row {
            path: path.to_owned(),
            row: row + 1,
            reason: e.to_string(),
        })?;
        let id = row as u64 + 1;
        Ok(Record { id, prompt: goal, unwanted: Some(target), ..Record::default() })
    });
    non_empty(records.collect::<Result<_, _>>()?, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(text: &str) -> Result<Vec<Record>, DatasetError> {
        parse(text, Path::new("file"))
    }

    #[test]
    fn every_format_is_read() {
        let csv = "goal,target\r\n\"ask, \"\"twice\"\"\nplease\",\"Sure\"\r\n";
        let read = &records(csv).unwrap()[0];
        assert_eq!(read.prompt, "ask, \"twice\"\nplease");
        assert_eq!(read.unwanted.as_deref(), Some("Sure"));

        let alpaca = r#"[{"instruction": "add", "input": "1 2", "output": "3"}]"#;
        let read = &records(alpaca).unwrap()[0];
        assert_eq!((read.prompt.as_str(), read.answer.as_deref()), ("add\n\n1 2", Some("3")));

        let chat = concat!(
            r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"},"#,
            r#" {"role": "assistant", "content": "a"}]}"#,
            "\n\n"
        );
        let read = &records(chat).unwrap()[0];
        assert_eq!((read.system.as_deref(), read.answer.as_deref()), (Some("s"), Some("a")));

        let own = r#"{"prompt": "p", "safe": "no", "unwanted": "yes"}"#;
        let read = &records(own).unwrap()[0];
        assert_eq!((read.answer.as_deref(), read.unwanted.as_deref()), (Some("no"), Some("yes")));
    }

    #[test]
    fn every_mistake_has_its_error() {
        assert!(matches!(records(" \n"), Err(DatasetError::Empty { .. })));
        assert!(matches!(records("goal,target\n"), Err(DatasetError::Empty { .. })));
        assert!(matches!(records("a,b\n1,2\n"), Err(DatasetError::UnknownFormat { .. })));
        let second = records("{\"prompt\": \"p\"}\n{\"prompt\": 3}");
        assert!(matches!(second, Err(DatasetError::Row { row: 2, .. })));
        assert!(matches!(records("{\"x\": 1}"), Err(DatasetError::Row { row: 1, .. })));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[\\[{]?\\PC*") {
            let _ = records(&text);
        }
    }
}
