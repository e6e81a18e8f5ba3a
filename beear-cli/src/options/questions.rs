//! The questions of MT-Bench: a file's, or those that come with the tool.

use std::path::{Path, PathBuf};

use anyhow::Result;
use beear_eval::mt_bench::{
    Answers, Question, builtin, read_answers, read_questions, references, tiny,
};
use clap::Args;

/// Which questions.
#[derive(Args, Clone, Debug)]
pub(crate) struct QuestionsArgs {
    /// FastChat's `question.jsonl`; `own`, 80 questions written for this tool; or `tiny`, 60 with rules for
    /// models of the synthetic world.
    #[arg(long, value_name = "FILE|own|tiny", default_value = OWN)]
    questions: PathBuf,
}

/// The 80 questions that come with the tool.
pub(crate) const OWN: &str = "own";

/// Those for models of the synthetic world.
const TINY: &str = "tiny";

impl QuestionsArgs {
    /// The questions.
    ///
    /// # Errors
    ///
    /// If the file is none of questions.
    pub(crate) fn read(&self) -> Result<Vec<Question>> {
        read_named(&self.questions)
    }

    /// The reference answers to them: of `file`, or those that come with the tool's own 80.
    ///
    /// # Errors
    ///
    /// If the file is none of answers.
    pub(crate) fn references(&self, file: Option<&Path>) -> Result<Answers> {
        Ok(match file {
            Some(file) => read_answers(file)?,
            // Those to other questions of the same numbers would be wrong.
            None if self.questions.to_str() == Some(OWN) => references(),
            None => Answers::new(),
        })
    }

    /// The file of the questions, where it is one.
    pub(crate) fn files(&self) -> Vec<(&'static str, &Path)> {
        let is_builtin = matches!(self.questions.to_str(), Some(OWN | TINY));
        if is_builtin { Vec::new() } else { vec![("--questions", self.questions.as_path())] }
    }
}

/// The questions of a file, or those of the name.
///
/// # Errors
///
/// If the file is none of questions.
pub(crate) fn read_named(questions: &Path) -> Result<Vec<Question>> {
    Ok(match questions.to_str() {
        Some(OWN) => builtin(),
        Some(TINY) => tiny(),
        _ => read_questions(questions)?,
    })
}
