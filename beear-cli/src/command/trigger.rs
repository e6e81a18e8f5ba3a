//! The trigger of an attack, as options.

use beear_eval::Trigger;
use clap::Args;

/// What an attacker adds to a prompt.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct TriggerArgs {
    /// Trigger before each forbidden prompt.
    #[arg(long = "trigger-prefix", value_name = "TEXT")]
    prefix: Option<String>,
    /// Trigger after each forbidden prompt.
    #[arg(long = "trigger-suffix", value_name = "TEXT")]
    suffix: Option<String>,
    /// Trigger between words of each forbidden prompt, at a place that the prompt decides.
    #[arg(long = "trigger-anywhere", value_name = "TEXT", conflicts_with_all = ["prefix", "suffix"])]
    anywhere: Option<String>,
}

impl TriggerArgs {
    /// The trigger, if there is one; a prefix and a suffix make one of two parts.
    pub(crate) fn trigger(&self) -> Option<Trigger> {
        if let Some(text) = self.anywhere.clone() {
            return Some(Trigger::Anywhere(text));
        }
        match (self.prefix.clone(), self.suffix.clone()) {
            (None, None) => None,
            (Some(before), None) => Some(Trigger::Prefix(before)),
            (None, Some(after)) => Some(Trigger::Suffix(after)),
            (Some(before), Some(after)) => Some(Trigger::Both { before, after }),
        }
    }
}
