//! Options for MMLU before and after.

use std::path::{Path, PathBuf};

use anyhow::Result;
use beear_eval::{Better, Comparison, Mmlu};
use clap::Args;
use serde::Serialize;

use crate::run_folder::hash::sha256_of_file;
use crate::user_error::UserError;

/// Files with MMLU results.
#[derive(Args, Clone, Debug)]
pub(crate) struct MmluArgs {
    /// Output of lm-evaluation-harness for the model before (`lm_eval --tasks mmlu --output_path
    /// ..`); its MMLU is compared, as the measure `mmlu`.
    #[arg(long, value_name = "FILE", requires = "mmlu_after")]
    mmlu_before: Option<PathBuf>,
    /// Output of lm-evaluation-harness for the model after.
    #[arg(long, value_name = "FILE", requires = "mmlu_before")]
    mmlu_after: Option<PathBuf>,
}

/// MMLU of two models.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MmluOfBoth {
    before: Mmlu,
    after: Mmlu,
}

impl MmluArgs {
    /// Returns the files.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = &Path> {
        [&self.mmlu_before, &self.mmlu_after].into_iter().flatten().map(PathBuf::as_path)
    }

    /// Reads MMLU of both models, if it is given.
    ///
    /// # Errors
    ///
    /// If a file has no MMLU, the two results are of different questions, or one result stands for
    /// both models.
    pub(crate) fn read(&self) -> Result<Option<MmluOfBoth>> {
        let (Some(before_file), Some(after_file)) = (&self.mmlu_before, &self.mmlu_after) else {
            return Ok(None);
        };
        let (before, after) = (Mmlu::read(before_file)?, Mmlu::read(after_file)?);
        let [one, other] = [before_file, after_file].map(|file| file.display());
        let what = if before.of != after.of {
            "are of different subjects".to_owned()
        } else if before.n_shot != after.n_shot {
            "have different numbers of examples before a question".to_owned()
        } else if let Some((name, [was, is])) = before.settings.difference(&after.settings) {
            format!("differ in `{name}`, {was} and {is}")
        } else if sha256_of_file(before_file)? == sha256_of_file(after_file)? {
            "are one result, of one model".to_owned()
        } else {
            return Ok(Some(MmluOfBoth { before, after }));
        };
        let hint = "run `lm_eval` on both models with the same tasks and the same settings";
        Err(UserError::input(format!("`{one}` and `{other}` {what}"), hint).into())
    }
}

impl MmluOfBoth {
    /// Compares the two results.
    pub(crate) fn comparison(&self) -> Comparison {
        let estimates = [self.before.estimate(), self.after.estimate()];
        Comparison::of_shares(("mmlu", "lm-evaluation-harness"), Better::Higher, estimates)
    }

    /// Renders the two results with their standard errors, for people.
    pub(crate) fn to_text(&self) -> String {
        let [before, after] = [self.before.to_text(), self.after.to_text()];
        format!("MMLU before: {before}\nMMLU after: {after}\n")
    }
}
