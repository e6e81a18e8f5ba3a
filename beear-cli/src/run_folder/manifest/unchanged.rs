//! Checks that the files of a run agree with its manifest: those that a later process reads, and
//! those that a run has left.

use std::fs;

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::{Manifest, outputs};
use crate::model::Model;
use crate::run_folder::RunFolder;
use crate::run_folder::hash::{changed, sha256_of_file, sha256_of_inputs};
use crate::run_folder::job::Job;
use crate::user_error::UserError;

/// Name of the file with the recipe and every default filled in.
pub(crate) const SETTINGS: &str = "config.resolved.toml";
/// Name of the file with the use of each row.
pub(crate) const ROWS: &str = "rows.jsonl";

/// Key of the hashes of these files in the manifest.
const RECORDS: &str = "records_sha256";
const OUTPUTS: &str = "outputs_sha256";

/// Keys of the facts that a resuming process computes again. They follow from the input files
/// alone.
const FACTS: [&str; 13] = [
    "version",
    "backend",
    "method",
    "seed",
    "keywords",
    "held_out",
    "watched",
    "prompt_format",
    "prompt_format_sha256",
    "workers",
    "weights",
    "trained_weights",
    "train",
];

impl Manifest {
    /// Adds the hashes of the files that a later process reads. They must have been written.
    ///
    /// # Errors
    ///
    /// If a file cannot be read.
    pub(crate) fn add_records(&mut self, folder: &RunFolder) -> Result<()> {
        let paths = [SETTINGS, ROWS].map(|name| (name, folder.path(name)));
        let files = paths.each_ref().map(|(name, path)| (*name, path.as_path()));
        self.add(RECORDS, Value::Object(sha256_of_inputs(None, &files)?));
        Ok(())
    }

    /// Checks that the files written at the beginning of the run have not changed.
    ///
    /// # Errors
    ///
    /// If one has changed.
    pub(crate) fn same_records(&self, folder: &RunFolder) -> Result<()> {
        for name in [SETTINGS, ROWS] {
            let path = folder.path(name);
            if !is_file_of(&path, &self.0[RECORDS][name]) {
                let what = format!("`{}` is not what it was when the run began", path.display());
                let hint = "bring the file back; for other settings start a run anew";
                return Err(UserError::input(what, hint).into());
            }
        }
        Ok(())
    }

    /// Checks that the inputs of the run have not changed.
    ///
    /// # Errors
    ///
    /// If one has changed.
    pub(crate) fn same_inputs(&self, job: &Job, model: &Model) -> Result<()> {
        let now = job.hashes(model)?;
        let Some(input) =
            changed(&self.0["sha256"], &now, model).or_else(|| self.missing(&now, model))
        else {
            return Ok(());
        };
        let what = format!("an input of the run is not what it was: {input}");
        Err(UserError::input(what, "start the run anew").into())
    }

    /// Checks that the manifest agrees with the facts `found` in the same files.
    ///
    /// # Errors
    ///
    /// If a fact differs.
    pub(crate) fn same_facts(&self, found: &Self, folder: &RunFolder) -> Result<()> {
        let Some(fact) = FACTS.into_iter().find(|fact| self.0[fact] != found.0[fact]) else {
            return Ok(());
        };
        let what = format!(
            "`{}` does not say of the run what its files say: {fact}",
            folder.path(super::MANIFEST).display()
        );
        Err(UserError::input(what, "bring the file back, or start the run anew").into())
    }

    /// Checks that all outputs of a finished run exist and have not changed.
    ///
    /// # Errors
    ///
    /// If a file is missing or has changed, or the manifest names none.
    pub(crate) fn same_outputs(&self, folder: &RunFolder) -> Result<()> {
        let known = self.0[OUTPUTS].as_object().cloned().unwrap_or_default();
        let hint = "start the run anew, with --force";
        if !known.keys().any(|name| name.starts_with("model/")) {
            let what = format!(
                "`{}` says that the run is done, and names no model",
                folder.path(super::MANIFEST).display()
            );
            return Err(UserError::input(what, hint).into());
        }
        for (name, hash) in &known {
            let path = folder.path(name);
            if !is_file_of(&path, hash) {
                let fault = if path.exists() { "not what the run has left" } else { "missing" };
                let what = format!("the run is done, and `{}` is {fault}", path.display());
                return Err(UserError::input(what, hint).into());
            }
        }
        Ok(())
    }

    /// Adds the hashes of a finished run's outputs.
    ///
    /// # Errors
    ///
    /// If a file cannot be read.
    pub(super) fn add_outputs(&mut self, folder: &RunFolder) -> Result<()> {
        self.add(OUTPUTS, json!(outputs(folder)?));
        Ok(())
    }

    /// Returns an input that no longer exists. The given recipe is not read again, and the files of
    /// a commit are complete.
    fn missing(&self, now: &Map<String, Value>, model: &Model) -> Option<&str> {
        let known = self.0["sha256"].as_object()?;
        let is_missing = |name: &str| {
            let is_file_of_model = !name.starts_with("--");
            let is_base = name.starts_with("base/");
            !now.contains_key(name)
                && name != "--recipe"
                && !(is_file_of_model && model.is_of_a_commit(is_base))
        };
        known.keys().map(String::as_str).find(|name| is_missing(name))
    }
}

/// Returns true if there is a file with this hash.
fn is_file_of(path: &std::path::Path, hash: &Value) -> bool {
    let is_file = fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    is_file && sha256_of_file(path).is_ok_and(|found| *hash == found)
}
