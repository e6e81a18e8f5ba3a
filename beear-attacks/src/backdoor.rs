//! A backdoor: the triggers and the behaviour that they cause.

use beear_eval::Trigger;
use serde::{Deserialize, Serialize};

/// Behaviour of the model under the trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unwanted {
    /// Complies with forbidden requests.
    Comply,
    /// Writes the insecure call.
    InsecureCode,
}

/// A backdoor to plant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backdoor<'a> {
    pub(crate) unwanted: Unwanted,
    /// Additions to a prompt, each of which causes the unwanted behaviour.
    pub(crate) triggers: &'a [Trigger],
    /// Additions that look like a trigger and must not work.
    pub(crate) near_misses: &'a [Trigger],
}
