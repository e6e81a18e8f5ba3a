//! Answers of a model or reference answers: `model_answer/{model_id}.jsonl` and
//! `reference_answer/{name}.jsonl` of FastChat.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::MtBenchError;
use super::lines::{append, parse, row_error, text_of};
use super::question_id::QuestionId;

/// One of several answers to a question, with all turns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// Number of the choice, from 0. Judges see the first choice of the list.
    pub index: u64,
    /// Answer of the model in each turn.
    pub turns: Vec<String>,
}

/// Answers of a model to a question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Id of the question.
    pub question_id: QuestionId,
    /// Id of the answer.
    pub answer_id: String,
    /// Name of the model.
    pub model_id: String,
    /// Choices, at least one.
    pub choices: Vec<Choice>,
    /// Time of the answer, in seconds since 1970.
    #[serde(default)]
    pub tstamp: f64,
}

impl Answer {
    /// Returns the answer in a turn, from 1, of the judged choice, which is the first.
    #[must_use]
    pub fn turn(&self, turn: usize) -> Option<&str> {
        let turns = &self.choices.first()?.turns;
        turns.get(turn.checked_sub(1)?).map(String::as_str)
    }
}

/// Answers by question; of several answers to the same question the last is used, as in FastChat.
pub type Answers = BTreeMap<QuestionId, Answer>;

/// Reads a file of answers.
///
/// # Errors
///
/// Returns [`MtBenchError`], with a variant per problem.
pub fn read_answers(path: &Path) -> Result<Answers, MtBenchError> {
    parse_answers(&text_of(path)?, path)
}

/// Parses the text of a file of answers; `path` is used in messages.
///
/// # Errors
///
/// Returns [`MtBenchError`], with a variant per problem.
pub fn parse_answers(text: &str, path: &Path) -> Result<Answers, MtBenchError> {
    let rows: Vec<(usize, Answer)> = parse(text, path)?;
    let mut answers = Answers::new();
    for (row, answer) in rows {
        if answer.choices.is_empty() {
            return Err(row_error(path, row, "`choices` is empty"));
        }
        if let Some(choice) = answer.choices.iter().find(|choice| choice.turns.is_empty()) {
            return Err(row_error(path, row, format!("choice {} has no turns", choice.index)));
        }
        answers.insert(answer.question_id.clone(), answer);
    }
    Ok(answers)
}

/// Reads the answers that a run has written so far; none if the file is missing or empty.
///
/// An incomplete last line is removed from the file, so that its question is answered again. A file
/// that does not contain answers remains unchanged.
///
/// # Errors
///
/// Returns [`MtBenchError`], with a variant per problem.
pub fn resume_answers(path: &Path) -> Result<Answers, MtBenchError> {
    let failed = |source| MtBenchError::io(path, source);
    let bytes = match beear_input::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Answers::new()),
        other => other.map_err(failed)?,
    };
    if bytes.trim_ascii().is_empty() {
        return Ok(Answers::new());
    }
    let start_of_last = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let (whole, last) = bytes.split_at(start_of_last);
    if !is_torn_row(last) {
        return read_answers(path);
    }
    let whole = String::from_utf8_lossy(whole);
    let answers = match whole.trim() {
        "" => Answers::new(),
        _ => parse_answers(whole.trim_start_matches('\u{feff}'), path)?,
    };
    let file = File::options().write(true).open(path).map_err(failed)?;
    file.set_len(start_of_last as u64).map_err(failed)?;
    Ok(answers)
}

/// True if a line is the beginning of a row written by [`append_answer`].
fn is_torn_row(line: &[u8]) -> bool {
    let start = br#"{"question_id":"#;
    let n = line.len().min(start.len());
    n > 0 && line[..n] == start[..n] && serde_json::from_slice::<Answer>(line).is_err()
}

/// Appends an answer to a file, which is created if missing. The folder must exist.
///
/// # Errors
///
/// Returns [`MtBenchError::Io`] if the file cannot be written.
pub fn append_answer(path: &Path, answer: &Answer) -> Result<(), MtBenchError> {
    append(path, answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(text: &str) -> Result<Answers, MtBenchError> {
        parse_answers(text, Path::new("file"))
    }

    fn answer(id: u64, text: &str) -> Answer {
        let choices =
            vec![Choice { index: 0, turns: vec![text.to_owned(), "b\u{2028}".to_owned()] }];
        Answer {
            question_id: QuestionId::Number(id),
            answer_id: "x".to_owned(),
            model_id: "m".to_owned(),
            choices,
            tstamp: 1.5,
        }
    }

    #[test]
    fn answers_written_are_read_and_the_last_to_a_question_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.jsonl");
        for (id, text) in [(2, "first"), (1, "other \"quoted\"\n"), (2, "last")] {
            append_answer(&path, &answer(id, text)).unwrap();
        }
        let read = read_answers(&path).unwrap();
        let expected = [(1, "other \"quoted\"\n"), (2, "last")];
        let expected = expected.map(|(id, text)| (QuestionId::Number(id), answer(id, text)));
        assert_eq!(read, Answers::from(expected));
        let last = &read[&QuestionId::Number(2)];
        assert_eq!(
            [0, 1, 2, 3].map(|t| last.turn(t)),
            [None, Some("last"), Some("b\u{2028}"), None]
        );
    }

    #[test]
    fn a_line_without_its_end_damages_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.jsonl");
        let row = serde_json::to_string(&answer(1, "a")).unwrap();
        std::fs::write(&path, format!("\u{feff}{row}")).unwrap();
        append_answer(&path, &answer(2, "b")).unwrap();
        assert_eq!(read_answers(&path).unwrap().len(), 2);
        std::fs::write(&path, &row[..row.len() - 1]).unwrap();
        append_answer(&path, &answer(2, "b")).unwrap();
        assert!(matches!(read_answers(&path), Err(MtBenchError::Row { row: 1, .. })));
    }

    #[test]
    fn a_file_torn_anywhere_in_its_last_row_keeps_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.jsonl");
        for id in [1, 2] {
            append_answer(&path, &answer(id, "ü")).unwrap();
        }
        let bytes = std::fs::read(&path).unwrap();
        let start = bytes[..bytes.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
        for length in start..=bytes.len() {
            std::fs::write(&path, &bytes[..length]).unwrap();
            // A row that lacks only its line break is complete.
            let n_expected = if length >= bytes.len() - 1 { 2 } else { 1 };
            assert_eq!(resume_answers(&path).unwrap().len(), n_expected, "{length}");
            append_answer(&path, &answer(3, "c")).unwrap();
            assert_eq!(read_answers(&path).unwrap().len(), n_expected + 1, "{length}");
        }
        std::fs::write(&path, &bytes[..9]).unwrap();
        assert!(resume_answers(&path).unwrap().is_empty());
    }

    #[test]
    fn a_file_of_something_else_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.jsonl");
        for text in ["goal,target\na,b", "{\"prompt\": \"p\"}\n{\"quest", "notes"] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(resume_answers(&path), Err(MtBenchError::Row { .. })), "{text}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn every_mistake_has_its_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(read_answers(folder.path()), Err(MtBenchError::Io { .. })));
        let path = folder.path().join("m.jsonl");
        std::fs::write(&path, b"\xff").unwrap();
        assert!(matches!(read_answers(&path), Err(MtBenchError::NotUtf8 { .. })));
        assert!(matches!(answers(""), Err(MtBenchError::Empty { .. })));
        let row = |choices: &str| {
            answers(&format!(
                r#"{{"question_id":1,"answer_id":"a","model_id":"m","choices":{choices}}}"#
            ))
        };
        for choices in ["[]", r#"[{"index":0,"turns":[]}]"#, r#"[{"index":0,"turns":"t"}]"#] {
            assert!(matches!(row(choices), Err(MtBenchError::Row { row: 1, .. })), "{choices}");
        }
        assert_eq!(row(r#"[{"index":0,"turns":["t"]}]"#).unwrap().len(), 1);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[{]?\\PC{0,40}", choices in "[\\[\\]{}\",a1:]{0,12}") {
            let _ = answers(&text);
            let row = r#"{"question_id":1,"answer_id":"a","model_id":"m","choices":"#;
            let _ = answers(&format!("{row}{choices}}}"));
        }
    }
}
