//! Settings of the outer level.

use serde::{Deserialize, Serialize};

use super::{OptimizerState, Rule, WeightUpdate, not_negative, one, positive};

/// Schedule of the learning rate over the outer steps of the whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Full rate throughout.
    Constant,
    /// Linear decay from the full rate at the start to 0 at the end.
    Linear,
    /// Half-cosine decay from the full rate at the start to 0 at the end.
    Cosine,
}

impl Schedule {
    /// Returns the share of the full learning rate at `progress` in 0..1.
    #[must_use]
    pub fn factor(self, progress: f64) -> f64 {
        match self {
            Self::Constant => 1.0,
            Self::Linear => 1.0 - progress,
            Self::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        }
    }
}

/// Settings of the outer level, which trains the weights to behave under `δ`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RemoveConfig {
    /// Number of `AdamW` steps per round.
    pub steps: usize,
    /// Learning rate before the schedule reduces it.
    pub learning_rate: f64,
    /// Schedule of the learning rate.
    pub schedule: Schedule,
    /// `AdamW`'s decoupled weight decay.
    pub weight_decay: f64,
    /// Maximum norm of the gradient, as one vector over all weights.
    pub clip_norm: f64,
    /// Number of safety examples per step.
    pub safety_batch_size: usize,
    /// Number of performance examples per step.
    pub performance_batch_size: usize,
    /// $w$: weight of the cross-entropy of the performance set.
    pub performance_weight: f64,
    /// $\lambda$: weight of the divergence from the original model.
    pub divergence_weight: f64,
    /// Rounding of a step on weights in half precision.
    #[serde(default)]
    pub weight_update: WeightUpdate,
    /// Number format of the optimiser's moments.
    #[serde(default)]
    pub optimizer_state: OptimizerState,
    /// True to recompute each layer in the backward pass instead of storing all activations: the
    /// same step with more time and less memory.
    #[serde(default)]
    pub activation_checkpointing: bool,
    /// Number of threads that share the rows of every batch, each with a separate gradient in
    /// memory. The number changes results by rounding. More than 1 helps small models on CPUs.
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
