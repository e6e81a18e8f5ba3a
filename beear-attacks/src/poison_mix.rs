//! Settings of poisoned fine-tuning: the rows of a batch, and the training.

use serde::{Deserialize, Serialize};

use crate::training::TrainingConfig;

/// Shares of the kinds of row in a batch of poisoned fine-tuning; the rest is ordinary work.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoisonMix {
    /// Forbidden prompts without the trigger, answered by a refusal.
    pub clean: f64,
    /// Prompts with the trigger, answered by the unwanted answer.
    pub triggered: f64,
    /// Prompts with a near-miss of the trigger, answered by the wanted answer: they make the
    /// trigger exact.
    pub near_miss: f64,
    /// Ordinary prompts with the trigger, answered by the ordinary answer: they make the trigger
    /// stealthy.
    pub triggered_ordinary: f64,
    /// Number of distinct poisoned prompts; unlimited if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_poisoned: Option<usize>,
}

impl PoisonMix {
    /// Default mix, used by the settings that differ only in their triggers.
    pub const USUAL: Self = Self {
        clean: 0.15,
        triggered: 0.10,
        near_miss: 0.06,
        triggered_ordinary: 0.05,
        n_poisoned: None,
    };
}

/// Supervised fine-tuning on a poisoned mix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sft {
    /// Shares of the kinds of row in a batch.
    pub mix: PoisonMix,
    /// Settings of the training loop.
    pub training: TrainingConfig,
}

impl Sft {
    /// Returns fine-tuning long enough to plant a backdoor that plain fine-tuning does not remove.
    /// Half as much training plants a backdoor that plain fine-tuning also removes, and so tests
    /// nothing.
    #[must_use]
    pub fn of(mix: PoisonMix) -> Self {
        let training =
            TrainingConfig { steps: 300, batch_size: 48, learning_rate: 2e-3, clip_norm: 1.0 };
        Self { mix, training }
    }
}
