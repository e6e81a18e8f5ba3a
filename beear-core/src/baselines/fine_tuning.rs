//! Plain safety fine-tuning: the control that every defence has to beat.
//!
//! $$\mathcal{L}(\theta) = \mathrm{CE}(y_s \mid x) + w\, \mathrm{CE}(y_p \mid x_p)$$
//!
//! BEEAR's outer level without a perturbation, on the same rows.

use serde::{Deserialize, Serialize};

use crate::config::{BilevelConfig, RemoveConfig, ValidationBounds, judge};
use crate::decoder::DecoderSize;
use crate::error::Error;

/// Settings of plain safety fine-tuning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FineTuningConfig {
    /// Training of the weights; `steps` is the number of steps of the whole run.
    pub remove: RemoveConfig,
    /// Bounds on the ordinary behaviour that the model must preserve.
    pub bounds: ValidationBounds,
    /// Seed of all randomness.
    pub seed: u64,
}

impl FineTuningConfig {
    /// Returns the control of [`BilevelConfig::robust`].
    #[must_use]
    pub fn new(size: DecoderSize) -> Self {
        Self::control_of(&BilevelConfig::robust(size))
    }

    /// Returns the control of `config`: as many steps on the weights as `config` takes in all its
    /// rounds, on as many rows, at the same learning rate, and without divergence. It shows the
    /// effect of the same budget without perturbations.
    #[must_use]
    pub fn control_of(config: &BilevelConfig) -> Self {
        let steps = config.rounds * config.remove.steps;
        let remove = RemoveConfig { steps, divergence_weight: 0.0, ..config.remove.clone() };
        Self { remove, bounds: config.bounds, seed: config.seed }
    }

    /// Validates every value.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] with every problem found.
    pub fn validate(&self) -> Result<(), Error> {
        judge(self.remove.rules().into_iter().chain(self.bounds.rules()))
    }
}
