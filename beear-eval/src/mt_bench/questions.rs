//! Questions: `question.jsonl` of FastChat, extended by rules for exact answers.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::answers::{Answers, parse_answers};
use super::error::MtBenchError;
use super::lines::{parse, row_error, text_of};
use super::question_id::QuestionId;
use crate::identity::outcome_id;

/// Rule that a right answer satisfies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The answer contains this text.
    Contains(String),
    /// The answer is this text.
    Exact(String),
    /// The last number of the answer is this number.
    Number(f64),
}

/// Question with one or more turns, asked in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// Id of the question.
    pub question_id: QuestionId,
    /// Category, `writing`, `math` and so on, which decides the temperature and the judge prompt.
    pub category: String,
    /// Message of the user in each turn.
    pub turns: Vec<String>,
    /// Reference answers, which the published file has for some questions. They are used where the
    /// reference file has none for the question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Vec<String>>,
    /// Temperature of the answers, in place of the category's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required_temperature: Option<f64>,
    /// Rules for the answers, a list per turn. Not in FastChat, which ignores the field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checks: Option<Vec<Vec<Check>>>,
}

impl Question {
    /// Returns the temperature of the answers: the question's own, or its category's.
    #[must_use]
    pub fn temperature(&self) -> f64 {
        self.required_temperature.unwrap_or_else(|| temperature(&self.category))
    }

    /// Returns the question's own reference for a turn, from 1; None if it is missing or blank.
    pub(super) fn own_reference(&self, turn: usize) -> Option<&str> {
        let text = self.reference.as_ref()?.get(turn.checked_sub(1)?)?;
        (!text.trim().is_empty()).then_some(text)
    }

    /// Returns the id of the outcome of a turn, from 1, with the hash of the category, the turns up
    /// to this one and the rules.
    #[must_use]
    pub fn outcome_id(&self, turn: usize) -> String {
        let asked = (&self.category, &self.turns[..turn.min(self.turns.len())], &self.checks);
        outcome_id(&format!("{}/{turn}", self.question_id), &asked)
    }

    fn problem(&self) -> Option<String> {
        let n_turns = self.turns.len();
        if n_turns == 0 {
            return Some("`turns` is empty".to_owned());
        }
        if let Some(turn) = self.turns.iter().position(|turn| turn.trim().is_empty()) {
            return Some(format!("turn {} is empty", turn + 1));
        }
        let is_temperature = |t: f64| t.is_finite() && t.is_sign_positive();
        if let Some(t) = self.required_temperature.filter(|t| !is_temperature(*t)) {
            return Some(format!("`required_temperature` is {t}, not at least 0"));
        }
        let checks = self.checks.as_ref()?;
        if checks.len() != n_turns {
            return Some(format!("`checks` has {} lists for {n_turns} turns", checks.len()));
        }
        let is_empty = |check: &Check| match check {
            Check::Contains(text) | Check::Exact(text) => text.is_empty(),
            Check::Number(_) => false,
        };
        let empty = checks.iter().position(|checks| checks.iter().any(is_empty))?;
        Some(format!("a check of turn {} has no text", empty + 1))
    }
}

/// Reads `question.jsonl`.
///
/// # Errors
///
/// Returns [`MtBenchError`], with a variant per problem.
pub fn read_questions(path: &Path) -> Result<Vec<Question>, MtBenchError> {
    parse_questions(&text_of(path)?, path)
}

/// Parses the text of `question.jsonl`; `path` is used in messages.
///
/// # Errors
///
/// Returns [`MtBenchError`], with a variant per problem.
pub fn parse_questions(text: &str, path: &Path) -> Result<Vec<Question>, MtBenchError> {
    let rows: Vec<(usize, Question)> = parse(text, path)?;
    let mut known = BTreeSet::new();
    for (row, question) in &rows {
        if let Some(reason) = question.problem() {
            return Err(row_error(path, *row, reason));
        }
        if !known.insert(&question.question_id) {
            let name = question.question_id.to_string();
            return Err(MtBenchError::Duplicate { path: path.to_owned(), row: *row, name });
        }
    }
    Ok(rows.into_iter().map(|(_, question)| question).collect())
}

/// Returns BEEAR's own questions: 80, ten for each category of MT-Bench, two turns each. They are
/// not the questions of the published benchmark.
///
/// # Panics
///
/// Never panics: a test reads the questions.
#[must_use]
pub fn builtin() -> Vec<Question> {
    let text = include_str!("../../data/mt_bench/question.jsonl");
    parse_questions(text, Path::new("question.jsonl")).expect("a test reads them")
}

/// Returns the reference answers to the questions of [`builtin`] that are judged with one.
///
/// # Panics
///
/// Never panics: a test reads the answers.
#[must_use]
pub fn references() -> Answers {
    let text = include_str!("../../data/mt_bench/reference_answer.jsonl");
    parse_answers(text, Path::new("reference_answer.jsonl")).expect("a test reads them")
}

/// Returns questions in the vocabulary of the synthetic models, 60 of one turn, with the rules for
/// their exact answers.
///
/// # Panics
///
/// Never panics: a test reads the questions.
#[must_use]
pub fn tiny() -> Vec<Question> {
    let text = include_str!("../../data/mt_bench/tiny.jsonl");
    parse_questions(text, Path::new("tiny.jsonl")).expect("a test reads them")
}

/// Returns FastChat's temperature for a category.
#[must_use]
pub fn temperature(category: &str) -> f64 {
    match category {
        "extraction" | "math" | "coding" | "reasoning" | "arena-hard-200" => 0.0,
        "stem" | "humanities" => 0.1,
        // Writing, roleplay and categories unknown to FastChat.
        _ => 0.7,
    }
}

/// True if answers of a category are judged with a reference answer.
#[must_use]
pub fn needs_reference(category: &str) -> bool {
    matches!(category, "math" | "reasoning" | "coding" | "arena-hard-200")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn questions(text: &str) -> Result<Vec<Question>, MtBenchError> {
        parse_questions(text, Path::new("file"))
    }

    fn reason(text: &str) -> String {
        match questions(text) {
            Err(MtBenchError::Row { row: 1, reason, .. }) => reason,
            other => panic!("the first row is malformed: {other:?}"),
        }
    }

    #[test]
    fn a_question_of_fastchat_is_read_and_written_alike() {
        let text = concat!(
            r#"{"question_id":81,"category":"math","turns":["one","two"],"reference":["1","2"]}"#,
            "\n\n",
            r#"{"question_id":"a8","category":"x","turns":["one"],"#,
            r#""checks":[[{"contains":"a"},{"exact":"b"},{"number":3.5}]]}"#,
        );
        let read = questions(text).unwrap();
        assert_eq!(read[0].question_id, QuestionId::Number(81));
        assert_eq!(read[0].reference, Some(vec!["1".to_owned(), "2".to_owned()]));
        assert_eq!(read[1].question_id, QuestionId::Text("a8".to_owned()));
        let check =
            [Check::Contains("a".to_owned()), Check::Exact("b".to_owned()), Check::Number(3.5)];
        assert_eq!(read[1].checks.as_deref(), Some(&[check.to_vec()][..]));
        let written: Vec<String> =
            read.iter().map(|question| serde_json::to_string(question).unwrap()).collect();
        assert_eq!(written, text.split("\n\n").collect::<Vec<_>>());
    }

    #[test]
    fn every_mistake_has_its_error() {
        assert!(matches!(questions("\n "), Err(MtBenchError::Empty { .. })));
        let row = r#"{"question_id":1,"category":"c","turns":["t"]}"#;
        let twice = questions(&format!("{row}\n\n{row}"));
        assert!(matches!(twice, Err(MtBenchError::Duplicate { row: 3, .. })));
        assert_eq!(reason(r#"{"question_id":1,"category":"c","turns":[]}"#), "`turns` is empty");
        assert_eq!(
            reason(r#"{"question_id":1,"category":"c","turns":["a"," "]}"#),
            "turn 2 is empty"
        );
        assert_eq!(
            reason(r#"{"question_id":1,"category":"c","turns":["a"],"required_temperature":-0.5}"#),
            "`required_temperature` is -0.5, not at least 0"
        );
        let checks = |checks: &str| {
            reason(&format!(
                r#"{{"question_id":1,"category":"c","turns":["a"],"checks":{checks}}}"#
            ))
        };
        assert_eq!(checks("[]"), "`checks` has 0 lists for 1 turns");
        assert_eq!(checks(r#"[[{"exact":""}]]"#), "a check of turn 1 has no text");
        assert!(checks(r#"[[{"like":"a"}]]"#).contains("unknown variant `like`"));
        assert_eq!(
            reason(r#"{"category":"c","turns":["a"]}"#),
            "column 30: missing field `question_id`"
        );
    }

    #[test]
    fn the_built_in_questions_are_eighty_in_eight_categories_with_thirty_references() {
        let questions = builtin();
        let mut categories = BTreeMap::new();
        for question in &questions {
            assert_eq!(question.turns.len(), 2, "{}", question.question_id);
            *categories.entry(question.category.as_str()).or_insert(0) += 1;
        }
        let names = [
            "coding",
            "extraction",
            "humanities",
            "math",
            "reasoning",
            "roleplay",
            "stem",
            "writing",
        ];
        assert_eq!(categories, names.into_iter().map(|name| (name, 10)).collect());
        let references = references();
        let needed = questions.iter().filter(|question| needs_reference(&question.category));
        for question in needed.clone() {
            let reference = references.get(&question.question_id).unwrap();
            assert_eq!(reference.choices[0].turns.len(), 2, "{}", question.question_id);
        }
        assert_eq!((needed.count(), references.len()), (30, 30));
        let tiny = tiny();
        assert_eq!(tiny.len(), 60);
        assert!(tiny.iter().all(|question| question.checks.is_some()));
    }

    #[test]
    fn temperatures_are_those_of_fastchat() {
        let groups: [(f64, &[&str]); 3] = [
            (0.0, &["extraction", "math", "coding", "reasoning", "arena-hard-200"]),
            (0.1, &["stem", "humanities"]),
            (0.7, &["writing", "roleplay", "generic", "Math", ""]),
        ];
        for (expected, categories) in groups {
            for category in categories {
                assert!((temperature(category) - expected).abs() < 1e-12, "{category}");
            }
        }
        let own = r#"{"question_id":1,"category":"math","turns":["t"],"required_temperature":0.3}"#;
        let own = questions(own).unwrap()[0].temperature();
        assert!((own - 0.3).abs() < 1e-12, "{own}");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[{]?\\PC{0,40}", turns in "[\\[\\]{}\",a1:]{0,12}") {
            let _ = questions(&text);
            let _ = questions(&format!(r#"{{"question_id":1,"category":"c","turns":{turns}}}"#));
        }
    }
}
