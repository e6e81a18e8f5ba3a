//! `manifest.json`: the inputs, the settings and the results of a run, written from its beginning
//! on.

mod unchanged;

use std::path::Path;

use anyhow::{Context, Result};
use beear_core::{
    Assessment, Defence, Error as CoreError, RoundRecord, ValidationSummary, Verdict,
};
use serde::Serialize;
use serde_json::{Map, Value, json};

pub(crate) use self::unchanged::{ROWS, SETTINGS};
use crate::backend::ComputeBackend;
use crate::defence::bounds_text::those;
use crate::model::Model;
use crate::model::loaded::TextSide;
use crate::recipe::{Recipe, SMALLER_STEPS};
use crate::run_folder::atomic_file::write_atomically;
use crate::run_folder::hash::sha256_of_inputs;
use crate::run_folder::job::Job;
use crate::run_folder::metrics::unmeasured;
use crate::run_folder::{LAST_GOOD, RunFolder, TRACKED};
use crate::user_error::UserError;

const MANIFEST: &str = "manifest.json";

/// The manifest of a run.
#[derive(Clone, Debug)]
pub(crate) struct Manifest(Value);

impl Manifest {
    /// Creates a manifest with everything that is known before the first step, except the
    /// [inputs](Self::add_inputs).
    ///
    /// # Errors
    ///
    /// If a path of the job cannot be made absolute.
    pub(crate) fn begin<C: ComputeBackend>(
        (job, model): (&Job, &Model),
        recipe: &Recipe,
        (method, text): (&Defence, &TextSide),
    ) -> Result<Self> {
        Ok(Self(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "status": "running",
            "backend": C::NAME,
            "method": recipe.method_name()?,
            "seed": method.seed(),
            "model": model,
            "job": job.absolute()?,
            "keywords": recipe.keywords,
            "held_out": recipe.held_out,
            "watched": recipe.watches(),
            "prompt_format": text.format.text(),
            "prompt_format_sha256": text.format.sha256(),
            "workers": job.workers,
        })))
    }

    /// Adds the hashes of the run's inputs, and the origin of its model.
    ///
    /// # Errors
    ///
    /// If an input cannot be read.
    pub(crate) fn add_inputs(&mut self, job: &Job, model: &Model) -> Result<()> {
        self.add("sha256", json!(job.hashes(model)?));
        if let Some(origins) = model.origins() {
            self.add("hub", origins);
        }
        Ok(())
    }

    /// Reads the manifest of an earlier process.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub(crate) fn read(folder: &RunFolder) -> Result<Self> {
        let path = folder.path(MANIFEST);
        if !path.exists() {
            let what = format!("`{}` holds no defence that has begun", folder.path("").display());
            return Err(UserError::input(what, "start it anew, with --force").into());
        }
        let text =
            beear_input::read(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(Self(serde_json::from_slice(&text)?))
    }

    /// Returns the job of a run that can be resumed.
    ///
    /// # Errors
    ///
    /// If the run has failed, is not a defence, or was begun by another version.
    pub(crate) fn job(&self) -> Result<Job> {
        let changed = |what: &str| UserError::input(what, "start the run anew");
        if self.0["status"] == "failed" {
            let what = "the run has failed, and would again";
            return Err(UserError::arguments(what, SMALLER_STEPS).into());
        }
        if self.0["version"] != env!("CARGO_PKG_VERSION") {
            return Err(changed("the run was begun by another version of beear").into());
        }
        let Ok(job) = serde_json::from_value::<Job>(self.0["job"].clone()) else {
            let what = "the run is no defence that can be gone on with";
            return Err(UserError::input(what, "name a folder of `defend`").into());
        };
        Ok(job)
    }

    /// Returns the backend of the run.
    pub(crate) fn backend(&self) -> Option<&str> {
        self.0["backend"].as_str()
    }

    /// Returns true if the run has left its model.
    pub(crate) fn is_done(&self) -> bool {
        self.0["status"] == "done"
    }

    /// Returns true if the run has failed and left no weights.
    pub(crate) fn has_failed_without_weights(&self, folder: &RunFolder) -> bool {
        self.0["status"] == "failed" && !folder.path(LAST_GOOD).exists()
    }

    /// Removes what a kill at the very end has left beside a finished run: checkpoints, unless they
    /// are to be kept, and an older run.
    ///
    /// # Errors
    ///
    /// If something cannot be removed.
    pub(crate) fn remove_leftovers(&self, folder: &RunFolder) -> Result<()> {
        folder.has_result()?;
        match serde_json::from_value::<Job>(self.0["job"].clone()) {
            Ok(job) => job.remove_old_checkpoints(folder),
            Err(_) => Ok(()),
        }
    }

    /// Checks that the saved model is within the bounds, as far as rows were held out.
    ///
    /// # Errors
    ///
    /// If it is not. The error tells which bounds, by how much and on how many rows.
    pub(crate) fn within_bounds(&self) -> Result<()> {
        let saved = &self.0["saved"];
        if saved["within_bounds"] != false {
            return Ok(());
        }
        let validation: Assessment = serde_json::from_value(saved["validation"].clone())?;
        let broken = those(&validation, Verdict::Broken);
        let (broken, hint) = if broken.is_empty() {
            let hint = "hold out more rows, or set `method.bounds.undecided = \"keep\"`";
            (those(&validation, Verdict::Undecided), hint)
        } else {
            let hint = "raise `method.remove.divergence_weight`, or bring more performance rows";
            (broken, hint)
        };
        let what = format!("the cleaned model is out of bounds: {}", broken.join("; "));
        Err(UserError::out_of_bounds(what, hint).into())
    }

    /// Adds a fact.
    pub(crate) fn add(&mut self, key: &str, value: Value) {
        self.0[key] = value;
    }

    /// Returns the whole manifest.
    pub(crate) fn value(&self) -> &Value {
        &self.0
    }

    /// Writes the manifest in place of the previous one.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub(crate) fn write(&self, folder: &RunFolder) -> Result<()> {
        write_atomically(&folder.path(MANIFEST), format!("{:#}\n", self.0).as_bytes())
    }

    /// Records that the method has failed, and the reason.
    ///
    /// # Errors
    ///
    /// If the manifest cannot be written.
    pub(crate) fn fail(&mut self, folder: &RunFolder, error: &CoreError) -> Result<()> {
        self.add("status", json!("failed"));
        self.add("error", json!(error.to_string()));
        self.write(folder)
    }

    /// Adds the results of the run, and writes the manifest.
    ///
    /// # Errors
    ///
    /// If an output cannot be read, or the manifest cannot be written.
    pub(crate) fn end(
        &mut self,
        folder: &RunFolder,
        recipe: &Recipe,
        ending: &Ending<'_>,
    ) -> Result<()> {
        let rounds = ending.rounds.iter().map(|round| {
            let round = json!(round);
            if recipe.watches() { round } else { unmeasured(round) }
        });
        self.add("rounds", rounds.collect());
        self.add("kept_round", json!(ending.kept_round));
        self.add("initial", json!(recipe.watches().then_some(ending.initial)));
        self.add("saved", json!(recipe.watches().then_some(ending.saved)));
        self.add("adapter", json!(ending.adapter));
        self.add("status", json!("done"));
        self.add("seconds", json!(ending.seconds));
        self.add("peak_memory", json!(ending.peak_memory));
        self.add_outputs(folder)?;
        self.write(folder)
    }
}

/// Results of a defence in addition to its files.
pub(crate) struct Ending<'a> {
    /// Records of all rounds.
    pub(crate) rounds: &'a [RoundRecord],
    /// Round whose weights were saved.
    pub(crate) kept_round: usize,
    /// Summary of the suspect on the held-out rows.
    pub(crate) initial: ValidationSummary,
    /// Validation of the model that was read back from its folder.
    pub(crate) saved: SavedModel,
    /// Folder of the adapters, if they were written.
    pub(crate) adapter: Option<&'a Path>,
    /// Seconds of work of all processes.
    pub(crate) seconds: f64,
    /// Peak memory of the last process in bytes.
    pub(crate) peak_memory: Option<u64>,
}

/// Validation of the model that was read back from the folder it was saved in.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct SavedModel {
    /// Comparison of its held-out rows with the suspect's.
    pub(crate) validation: Assessment,
    /// True if the model is within the bounds.
    pub(crate) within_bounds: bool,
}

/// Returns the hashes of the files of the cleaned model, and of the files beside it.
fn outputs(folder: &RunFolder) -> Result<Map<String, Value>> {
    let mut hashes = Map::new();
    for part in ["model", "adapter"] {
        let path = folder.path(part);
        if path.exists() {
            let files = sha256_of_inputs(Some(&Model::in_folder(&path)), &[])?.into_iter();
            let own = files.filter(|(name, _)| !name.starts_with("base/"));
            hashes.extend(own.map(|(name, hash)| (format!("{part}/{name}"), hash)));
        }
    }
    let beside = [SETTINGS, "delta.safetensors", "metrics.jsonl", ROWS];
    for name in beside.into_iter().chain([TRACKED]) {
        let path = folder.path(name);
        if path.exists() {
            hashes.extend(sha256_of_inputs(None, &[(name, &path)])?);
        }
    }
    Ok(hashes)
}
