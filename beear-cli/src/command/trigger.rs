//! The trigger of an attack, as options.

use beear_eval::Trigger;
use clap::Args;

/// What an attacker adds to a prompt.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct TriggerArgs {
    /// Trigger before each forbidden prompt.
    #[arg(long, value_name = "TEXT")]
    trigger_prefix: Option<String>,
    /// Trigger after each forbidden prompt.
    #[arg(long, value_name = "TEXT")]
    trigger_suffix: Option<String>,
}

impl TriggerArgs {
    /// The trigger, if there is one; both options make one of two parts.
    pub(crate) fn trigger(&self) -> Option<Trigger> {
        match (self.trigger_prefix.clone(), self.trigger_suffix.clone()) {
            (None, None) => None,
            (Some(before), None) => Some(Trigger::Prefix(before)),
            (None, Some(after)) => Some(Trigger::Suffix(after)),
            (Some(before), Some(after)) => Some(Trigger::Both { before, after }),
        }
    }
}
