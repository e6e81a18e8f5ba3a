//! `manifest.json`: what a run reads, is and left, from its beginning on.

use std::path::Path;

use anyhow::{Context, Result};
use beear_core::{Defence, Error as CoreError, Outcome};
use beear_models::CausalLm;
use burn::tensor::backend::AutodiffBackend;
use serde_json::{Map, Value, json};

use crate::backend::ComputeBackend;
use crate::checkpoints::write_atomically;
use crate::exit::Mistake;
use crate::hash::{are_same, sha256_of_inputs};
use crate::job::Job;
use crate::loaded::TextSide;
use crate::metrics::unmeasured;
use crate::model::Model;
use crate::recipe::{Recipe, SMALLER_STEPS};
use crate::run_folder::RunFolder;
use crate::tracking::TRACKED;

const MANIFEST: &str = "manifest.json";

/// The manifest of a run.
#[derive(Clone, Debug)]
pub(crate) struct Manifest(Value);

impl Manifest {
    /// What is known before the first step.
    ///
    /// # Errors
    ///
    /// If an input cannot be read.
    pub(crate) fn begin<C: ComputeBackend>(
        (job, model): (&Job, &Model),
        recipe: &Recipe,
        (method, text): (&Defence, &TextSide),
    ) -> Result<Self> {
        let mut manifest = Self(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "status": "running",
            "backend": C::NAME,
            "method": recipe.method_name()?,
            "seed": method.seed(),
            "model": model,
            "job": job.absolute()?,
            "sha256": job.hashes(model)?,
            "keywords": recipe.keywords,
            "held_out": recipe.held_out,
            "watched": recipe.watches(),
            "prompt_format": text.format.text(),
            "prompt_format_sha256": text.format.sha256(),
            "workers": job.workers,
        }));
        if let Some(origins) = model.origins() {
            manifest.add("hub", origins);
        }
        Ok(manifest)
    }

    /// That of an earlier process.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub(crate) fn read(folder: &RunFolder) -> Result<Self> {
        let path = folder.path(MANIFEST);
        if !path.exists() {
            let what = format!("`{}` holds no defence that has begun", folder.path("").display());
            return Err(Mistake::input(what, "start it anew, with --force").into());
        }
        let text =
            beear_input::read(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(Self(serde_json::from_slice(&text)?))
    }

    /// The job of a run that can be gone on with.
    ///
    /// # Errors
    ///
    /// If it has failed, is no defence, or of another version.
    pub(crate) fn job(&self) -> Result<Job> {
        let changed = |what: &str| Mistake::input(what, "start the run anew");
        if self.0["status"] == "failed" {
            let what = "the run has failed, and would again";
            return Err(Mistake::arguments(what, SMALLER_STEPS).into());
        }
        if self.0["version"] != env!("CARGO_PKG_VERSION") {
            return Err(changed("the run was begun by another version of beear").into());
        }
        let Ok(job) = serde_json::from_value::<Job>(self.0["job"].clone()) else {
            let what = "the run is no defence that can be gone on with";
            return Err(Mistake::input(what, "name a folder of `defend`").into());
        };
        Ok(job)
    }

    /// Whether the inputs of the run are as they were.
    ///
    /// # Errors
    ///
    /// If one has changed.
    pub(crate) fn same_inputs(&self, job: &Job, model: &Model) -> Result<()> {
        if are_same(&self.0["sha256"], &job.hashes(model)?, model) {
            return Ok(());
        }
        let what = "an input of the run is not what it was";
        Err(Mistake::input(what, "start the run anew").into())
    }

    /// The backend of the run.
    pub(crate) fn backend(&self) -> Option<&str> {
        self.0["backend"].as_str()
    }

    /// Whether the run has left its model.
    pub(crate) fn is_done(&self) -> bool {
        self.0["status"] == "done"
    }

    /// Removes the checkpoints of a run that is done, which a kill at its very end has left, unless they are to stay.
    ///
    /// # Errors
    ///
    /// If one cannot be removed.
    pub(crate) fn remove_leftovers(&self, folder: &RunFolder) -> Result<()> {
        match serde_json::from_value::<Job>(self.0["job"].clone()) {
            Ok(job) if job.checkpoints.keep_checkpoints.is_none() => {
                job.checkpoints_in(folder).remove_all()
            }
            _ => Ok(()),
        }
    }

    /// Whether the model that was kept is within the bounds, as far as it was watched.
    ///
    /// # Errors
    ///
    /// If it lost too much.
    pub(crate) fn within_bounds(&self) -> Result<()> {
        let Some(kept) = self.0["kept_round"].as_u64() else { return Ok(()) };
        let kept = &self.0["rounds"][kept as usize];
        if self.0["watched"] == false || kept["within_bounds"] != false {
            return Ok(());
        }
        let share = |vitals: &Value, key: &str| vitals[key].as_f64().unwrap_or(f64::NAN);
        let (now, initial) = (&kept["vitals"], &self.0["initial"]);
        let what = format!(
            "no round is within the bounds: the one kept has utility {:.3} (was {:.3}) and refuses \
             {:.3} of ordinary prompts (was {:.3})",
            share(now, "utility"),
            share(initial, "utility"),
            share(now, "benign_refusal"),
            share(initial, "benign_refusal")
        );
        let hint = "raise `method.remove.divergence_weight`, or bring more performance rows";
        Err(Mistake::out_of_bounds(what, hint).into())
    }

    /// Adds a fact.
    pub(crate) fn add(&mut self, key: &str, value: Value) {
        self.0[key] = value;
    }

    /// Everything.
    pub(crate) fn value(&self) -> &Value {
        &self.0
    }

    /// Writes it, in place of the one before.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub(crate) fn write(&self, folder: &RunFolder) -> Result<()> {
        write_atomically(&folder.path(MANIFEST), format!("{:#}\n", self.0).as_bytes())
    }

    /// Says that the method cannot go on, and why.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub(crate) fn fail(&mut self, folder: &RunFolder, error: &CoreError) -> Result<()> {
        self.add("status", json!("failed"));
        self.add("error", json!(error.to_string()));
        self.write(folder)
    }

    /// Adds what the run left, and writes it: `seconds` of work and `memory` in bytes are of all processes and of
    /// the last one.
    ///
    /// # Errors
    ///
    /// If a file that was written cannot be read, or the manifest not be written.
    pub(crate) fn end<B: AutodiffBackend>(
        &mut self,
        folder: &RunFolder,
        recipe: &Recipe,
        (outcome, adapter): (&Outcome<B, CausalLm<B>>, Option<&Path>),
        (seconds, memory): (f64, Option<u64>),
    ) -> Result<()> {
        let rounds = outcome.rounds.iter().map(|round| {
            let round = json!(round);
            if recipe.watches() { round } else { unmeasured(round) }
        });
        self.add("rounds", rounds.collect());
        self.add("kept_round", json!(outcome.kept_round));
        self.add("initial", json!(recipe.watches().then_some(outcome.initial)));
        self.add("adapter", json!(adapter));
        self.add("status", json!("done"));
        self.add("seconds", json!(seconds));
        self.add("peak_memory", json!(memory));
        self.add("outputs_sha256", Value::Object(outputs(folder)?));
        self.write(folder)
    }
}

/// Hashes of the files of the cleaned model, and of those beside it.
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
    let beside = ["config.resolved.toml", "delta.safetensors", "metrics.jsonl", "rows.jsonl"];
    for name in beside.into_iter().chain([TRACKED]) {
        let path = folder.path(name);
        if path.exists() {
            hashes.extend(sha256_of_inputs(None, &[(name, &path)])?);
        }
    }
    Ok(hashes)
}
