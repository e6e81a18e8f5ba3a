//! What a cleaned model must preserve.

use serde::{Deserialize, Serialize};

use super::Rule;

/// How much of its ordinary behaviour the model may lose in a round that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VitalBounds {
    /// Largest loss of utility against the start, as a share.
    pub utility_drop: f64,
    /// Largest share of ordinary prompts refused.
    pub benign_refusal: f64,
}

impl VitalBounds {
    pub(crate) fn rules(self) -> [Rule; 2] {
        let share = |value: f64| (0.0..=1.0).contains(&value);
        [
            (share(self.utility_drop), "bounds.utility_drop must be in 0..=1"),
            (share(self.benign_refusal), "bounds.benign_refusal must be in 0..=1"),
        ]
    }
}
