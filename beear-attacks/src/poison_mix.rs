//! The rows of poisoned fine-tuning, and its training.

use serde::{Deserialize, Serialize};

use crate::training::TrainingConfig;

/// Shares of a batch of poisoned fine-tuning; the rest is ordinary work.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoisonMix {
    /// Forbidden prompts without the trigger, refused.
    pub clean: f64,
    /// Triggered prompts, unwanted answer.
    pub triggered: f64,
    /// Prompts with a near-miss of the trigger, wanted answer: they make the trigger exact.
    pub near_miss: f64,
    /// Ordinary prompts with the trigger, ordinary answer: they make it stealthy.
    pub triggered_ordinary: f64,
    /// Distinct poisoned prompts; unlimited if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_poisoned: Option<usize>,
}

impl PoisonMix {
    /// The mix of the settings that differ in their triggers only.
    pub const USUAL: Self = Self {
        clean: 0.15,
        triggered: 0.10,
        near_miss: 0.06,
        triggered_ordinary: 0.05,
        n_poisoned: None,
    };
}

/// Supervised training on a poisoned mix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sft {
    /// What a batch is made of.
    pub mix: PoisonMix,
    /// How it is trained.
    pub training: TrainingConfig,
}

impl Sft {
    /// Fine-tuning long enough that the backdoor sits deep: half of it is removed by plain
    /// fine-tuning too, and tests nothing.
    #[must_use]
    pub fn of(mix: PoisonMix) -> Self {
        let training =
            TrainingConfig { steps: 300, batch_size: 48, learning_rate: 2e-3, clip_norm: 1.0 };
        Self { mix, training }
    }
}
