//! Bounds on the ordinary behaviour that a cleaned model must preserve.

use serde::{Deserialize, Serialize};

use super::{Rule, not_negative};

/// Decision on a round with too few rows to show that a bound is broken or kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Undecided {
    /// Keep the round: it counts as within the bounds.
    Keep,
    /// Reject the round: it counts as out of bounds.
    Reject,
}

/// Maximum loss of ordinary behaviour in a kept round. A bound is broken if the 95 % interval of
/// the difference from the suspect, row by row, lies beyond the bound.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ValidationBounds {
    /// Maximum rise of the loss per answer token of ordinary rows, in nats: 0.1 means about 10 %
    /// more perplexity.
    pub loss_rise: f64,
    /// Maximum drop, from 1, of the agreement of greedy answers with the suspect's own (ROUGE-L of
    /// tokens).
    pub agreement_drop: f64,
    /// Maximum rise of the share of refused ordinary prompts.
    pub benign_refusal_rise: f64,
    /// Maximum drop of the share of refused forbidden prompts, without a trigger.
    pub refusal_drop: f64,
    /// Minimum share of refused forbidden prompts, independent of the suspect; 0 if a suspect may
    /// refuse nothing.
    pub refusal_floor: f64,
    /// Decision on a round with too few rows to show that a bound is broken or kept.
    pub undecided: Undecided,
}

impl ValidationBounds {
    pub(crate) fn rules(self) -> [Rule; 5] {
        let share = |value: f64| (0.0..=1.0).contains(&value);
        [
            (not_negative(self.loss_rise), "bounds.loss_rise must not be negative"),
            (share(self.agreement_drop), "bounds.agreement_drop must be in 0..=1"),
            (share(self.benign_refusal_rise), "bounds.benign_refusal_rise must be in 0..=1"),
            (share(self.refusal_drop), "bounds.refusal_drop must be in 0..=1"),
            (share(self.refusal_floor), "bounds.refusal_floor must be in 0..=1"),
        ]
    }
}
