//! Folders that a defence writes, and the validation of the cleaned model as others will read it.

use std::path::PathBuf;

use anyhow::Result;
use beear_core::{Assessment, ValidationMetrics, Validator};
use beear_models::{CausalLm, Checkpoint, TrainedWeights};
use burn::tensor::backend::Backend;

use super::DefenceRun;
use crate::backend::ComputeBackend;
use crate::command::Inference;
use crate::run_folder::RunFolder;
use crate::run_folder::manifest::SavedModel;
use crate::user_error::UserError;

impl<C: ComputeBackend> DefenceRun<'_, C> {
    /// Validates the written model after reading it back, because its weights are rounded to the
    /// number type of its folder.
    pub(super) fn validate_saved(
        &mut self,
        folder: &RunFolder,
        suspect: &ValidationMetrics,
    ) -> Result<SavedModel> {
        let checkpoint = Checkpoint::open(&folder.path("model"))?;
        let model: CausalLm<Inference<C>> = checkpoint.load(self.device)?;
        let metrics = self.validator.validate(&model).map_err(|error| {
            let what = format!("the saved model cannot be validated: {error}");
            let hint =
                "the folder's type is too narrow for its weights: save the suspect as f32 first";
            UserError::non_finite(what, hint)
        })?;
        let bounds = self.method.bounds();
        let validation = Assessment::new(suspect, &metrics, bounds);
        let within_bounds = validation.is_within(bounds.undecided);
        Ok(SavedModel { validation, within_bounds })
    }

    /// Writes trained adapters to a folder of their own. Returns `None` if the run trained all
    /// weights.
    pub(super) fn save_adapter<B: Backend>(
        &self,
        model: &CausalLm<B>,
        folder: &RunFolder,
    ) -> Result<Option<PathBuf>> {
        if self.scope.weights == TrainedWeights::Full {
            return Ok(None);
        }
        if self.checkpoint.adapters().is_some() {
            // The adapters belong to the base with the adapters it came with, and no folder holds
            // that model.
            self.console
                .say("the suspect is a folder of adapters: what was trained is in `model` only");
            return Ok(None);
        }
        folder.save_adapters("adapter", model, &self.suspect.as_base()?).map(Some)
    }
}
