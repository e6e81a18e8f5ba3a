//! Errors of the benchmark's files and of answers.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::question_id::QuestionId;

/// Error of reading the benchmark's files or of obtaining an answer.
#[derive(Debug, Error)]
pub enum MtBenchError {
    /// A file cannot be read or written.
    #[error("cannot read or write `{}`", path.display())]
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
    /// Two questions, or two prompts, have the same name.
    #[error("`{}`, row {row}: a second `{name}`", path.display())]
    Duplicate {
        /// Path of the file.
        path: PathBuf,
        /// Number of the second row, from 1.
        row: usize,
        /// Duplicate name.
        name: String,
    },
    /// A model has no answer to a judged turn.
    #[error("model `{model}` has no answer to turn {turn} of question {question}")]
    MissingAnswer {
        /// Name of the model.
        model: String,
        /// Id of the question.
        question: QuestionId,
        /// Number of the turn, from 1.
        turn: usize,
    },
    /// A question of a category that is judged against a reference has none.
    #[error("question {question} of category `{category}` has no reference for turn {turn}")]
    MissingReference {
        /// Id of the question.
        question: QuestionId,
        /// Category of the question.
        category: String,
        /// Number of the turn, from 1.
        turn: usize,
    },
    /// A model to be judged has no answers.
    #[error("there are no answers of model `{model}`")]
    UnknownModel {
        /// Name of the model.
        model: String,
    },
    /// A judge prompt is missing.
    #[error("there is no judge prompt `{name}`")]
    UnknownPrompt {
        /// Name of the judge prompt.
        name: String,
    },
    /// A judge prompt has the wrong type.
    #[error("judge prompt `{name}` is of type `{found}`, not `{expected}`")]
    PromptType {
        /// Name of the judge prompt.
        name: String,
        /// Required type.
        expected: &'static str,
        /// Type of the prompt.
        found: &'static str,
    },
    /// A template has a placeholder for which there is no text.
    #[error("judge prompt `{name}` has `{{{placeholder}}}`, for which there is no text")]
    NoText {
        /// Name of the judge prompt.
        name: String,
        /// Placeholder without text.
        placeholder: &'static str,
    },
    /// A model cannot answer.
    #[error("the model cannot answer: {reason}")]
    Model {
        /// Error message of the model.
        reason: String,
    },
}

impl MtBenchError {
    pub(super) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    /// Returns a one-line suggestion for fixing the error.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Io { .. } => "check the path, the permissions and the space on the disk",
            Self::NotUtf8 { .. } => "save the file as UTF-8",
            Self::Empty { .. } => "bring at least one row",
            Self::Row { .. } => "correct the row or leave it out",
            Self::Duplicate { .. } => "leave one of the two out",
            Self::MissingAnswer { .. } | Self::UnknownModel { .. } => {
                "generate the answers first, to every question, or name the --questions that were answered"
            }
            Self::MissingReference { .. } => {
                "math, reasoning and coding are judged against reference answers: bring them"
            }
            Self::UnknownPrompt { .. } => {
                "FastChat's names are used: `single-v1`, `pair-v2` and so on"
            }
            Self::PromptType { .. } => {
                "`single` prompts rate an answer, `pairwise` ones compare two"
            }
            Self::NoText { .. } => {
                "one turn has question, answer and ref_answer_1; two have question_1, answer_1 and so on"
            }
            Self::Model { .. } => return None,
        })
    }
}
