//! Settings of the outer level.

use serde::{Deserialize, Serialize};

use super::{OptimizerState, Rule, WeightUpdate, not_negative, one, positive};

/// How the learning rate moves over the outer steps of the whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Always the full rate.
    Constant,
    /// Full rate at the start, falling to 0 at the end on a straight line.
    Linear,
    /// Full rate at the start, falling to 0 at the end on a half cosine.
    Cosine,
}

impl Schedule {
    /// Share of the full learning rate at `progress` in 0..1.
    #[must_use]
    pub fn factor(self, progress: f64) -> f64 {
        match self {
            Self::Constant => 1.0,
            Self::Linear => 1.0 - progress,
            Self::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        }
    }
}

/// The outer level: training the weights to behave under `δ`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RemoveConfig {
    /// Number of `AdamW` steps per round.
    pub steps: usize,
    /// Full learning rate.
    pub learning_rate: f64,
    /// How the learning rate moves.
    pub schedule: Schedule,
    /// `AdamW`'s decoupled weight decay.
    pub weight_decay: f64,
    /// Longest gradient, as one vector over all weights.
    pub clip_norm: f64,
    /// Safety examples per step.
    pub safety_batch_size: usize,
    /// Performance examples per step.
    pub performance_batch_size: usize,
    /// $w$: weight of the cross-entropy of the performance set.
    pub performance_weight: f64,
    /// $\lambda$: weight of the divergence from the original model.
    pub divergence_weight: f64,
    /// How a step is written to weights in half precision.
    #[serde(default)]
    pub weight_update: WeightUpdate,
    /// What the optimiser keeps.
    #[serde(default)]
    pub optimizer_state: OptimizerState,
    /// Whether layers are computed twice and remembered one at a time: the same step in more time and
    /// less memory.
    #[serde(default)]
    pub activation_checkpointing: bool,
    /// Threads that share the rows of every batch, each with a gradient of its own in memory. Results differ
    /// by rounding. More than 1 helps small models on CPUs.
    #[serde(default = "one")]
    pub threads: usize,
}

impl RemoveConfig {
    pub(crate) fn rules(&self) -> [Rule; 9] {
        [
            (self.steps > 0, "remove.steps must be at least 1"),
            (self.threads > 0, "remove.threads must be at least 1"),
            (positive(self.learning_rate), "remove.learning_rate must be positive"),
            (not_negative(self.weight_decay), "remove.weight_decay must not be negative"),
            (positive(self.clip_norm), "remove.clip_norm must be positive"),
            (self.safety_batch_size > 0, "remove.safety_batch_size must be at least 1"),
            (self.performance_batch_size > 0, "remove.performance_batch_size must be at least 1"),
            (not_negative(self.performance_weight), "remove.performance_weight is negative"),
            (not_negative(self.divergence_weight), "remove.divergence_weight is negative"),
        ]
    }
}
