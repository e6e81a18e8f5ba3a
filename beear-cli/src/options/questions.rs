//! Questions of MT-Bench: those of a file, or those that come with the tool.

use std::path::{Path, PathBuf};

use anyhow::Result;
use beear_eval::mt_bench::{
    Answers, Question, builtin, read_answers, read_questions, references, tiny,
};
use clap::Args;

/// The choice of questions.
#[derive(Args, Clone, Debug)]
pub(crate) struct QuestionsArgs {
    /// FastChat's `question.jsonl`; `own`, 80 questions written for this tool; or `tiny`, 60 with
    /// rules for models of the synthetic world.
    #[arg(long, value_name = "FILE|own|tiny", default_value = OWN)]
    questions: PathBuf,
}

/// The 80 questions that come with the tool.
pub(crate) const OWN: &str = "own";

/// The questions for models of the synthetic world.
const TINY: &str = "tiny";

impl QuestionsArgs {
    /// Reads the questions.
    ///
    /// # Errors
    ///
    /// If the file holds no questions.
    pub(crate) fn read(&self) -> Result<Vec<Question>> {
        read_named(&self.questions)
    }

    /// Reads the reference answers of `file`. Without a file, returns those of the tool's own 80
    /// questions, or none for other questions.
    ///
    /// # Errors
    ///
    /// If the file holds no answers.
    pub(crate) fn references(&self, file: Option<&Path>) -> Result<Answers> {
        Ok(match file {
            Some(file) => read_answers(file)?,
            // The built-in references would be wrong for other questions with the same numbers.
            None if self.questions.to_str() == Some(OWN) => references(),
            None => Answers::new(),
        })
    }

    /// Returns the file of the questions, unless they come with the tool.
    pub(crate) fn files(&self) -> Vec<(&'static str, &Path)> {
        let is_builtin = matches!(self.questions.to_str(), Some(OWN | TINY));
        if is_builtin { Vec::new() } else { vec![("--questions", self.questions.as_path())] }
    }
}

/// Reads the questions of a file, or the built-in ones of that name.
///
/// # Errors
///
/// If the file holds no questions.
pub(crate) fn read_named(questions: &Path) -> Result<Vec<Question>> {
    Ok(match questions.to_str() {
        Some(OWN) => builtin(),
        Some(TINY) => tiny(),
        _ => read_questions(questions)?,
    })
}
