//! Why the files of the benchmark cannot be used, or an answer cannot be had.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::question_id::QuestionId;

/// Why the files of the benchmark cannot be used, or an answer cannot be had.
#[derive(Debug, Error)]
pub enum MtBenchError {
    /// A file cannot be read or written.
    #[error("cannot read or write `{}`", path.display())]
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
    /// Two questions, or two prompts, go by the same name.
    #[error("`{}`, row {row}: a second `{name}`", path.display())]
    Duplicate {
        /// The file.
        path: PathBuf,
        /// Number of the second row, from 1.
        row: usize,
        /// The name.
        name: String,
    },
    /// A model has not answered a turn that is to be judged.
    #[error("model `{model}` has no answer to turn {turn} of question {question}")]
    MissingAnswer {
        /// The model.
        model: String,
        /// The question.
        question: QuestionId,
        /// The turn, from 1.
        turn: usize,
    },
    /// A question of a category that is judged against a reference has none.
    #[error("question {question} of category `{category}` has no reference for turn {turn}")]
    MissingReference {
        /// The question.
        question: QuestionId,
        /// Its category.
        category: String,
        /// The turn, from 1.
        turn: usize,
    },
    /// A model that is to be judged has no answers.
    #[error("there are no answers of model `{model}`")]
    UnknownModel {
        /// The model.
        model: String,
    },
    /// A judge prompt is missing.
    #[error("there is no judge prompt `{name}`")]
    UnknownPrompt {
        /// Its name.
        name: String,
    },
    /// A judge prompt is of the wrong kind.
    #[error("judge prompt `{name}` is of type `{found}`, not `{expected}`")]
    PromptType {
        /// Its name.
        name: String,
        /// What is needed.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// A template has a placeholder that its use has no text for.
    #[error("judge prompt `{name}` has `{{{placeholder}}}`, for which there is no text")]
    NoText {
        /// The prompt.
        name: String,
        /// Its placeholder.
        placeholder: &'static str,
    },
    /// A model cannot answer.
    #[error("the model cannot answer: {reason}")]
    Model {
        /// What it says.
        reason: String,
    },
}

impl MtBenchError {
    pub(super) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    /// What to do about it, in one line.
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
