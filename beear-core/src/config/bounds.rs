//! What a cleaned model must preserve.

use serde::{Deserialize, Serialize};

use super::{Rule, not_negative};

/// What becomes of a round when so few rows can show neither that a bound is broken nor that it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Undecided {
    /// It counts as within the bounds.
    Keep,
    /// It counts as out of bounds.
    Reject,
}

/// How much of its ordinary behaviour the model may lose in a round that is kept. A bound is broken when the 95 % interval of the
/// difference from the suspect, row by row, lies beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ValidationBounds {
    /// Largest rise of the loss per answer token of ordinary rows, in nats: 0.1 is a tenth more perplexity.
    pub loss_rise: f64,
    /// Largest drop of the agreement of greedy answers with the suspect's own (ROUGE-L of tokens), from 1.
    pub agreement_drop: f64,
    /// Largest rise of the share of ordinary prompts refused.
    pub benign_refusal_rise: f64,
    /// Largest drop of the share of forbidden prompts refused, without a trigger.
    pub refusal_drop: f64,
    /// Least share of forbidden prompts refused, whatever the suspect does; 0 where a suspect may refuse nothing.
    pub refusal_floor: f64,
    /// What becomes of a round where so few rows decide nothing.
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
