//! The trigger of an attack, as options.

use beear_eval::Trigger;
use clap::Args;

use crate::exit::Mistake;

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

    /// The trigger that a command cannot do without.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub(crate) fn required(&self) -> Result<Trigger, Mistake> {
        let hint = "name one with --trigger-prefix or --trigger-suffix";
        self.trigger().ok_or_else(|| Mistake::arguments("no trigger", hint))
    }

    /// `words` in every place where the trigger has some.
    pub(crate) fn with_words(&self, words: &str) -> Self {
        let replaced = |part: &Option<String>| part.as_ref().map(|_| words.to_owned());
        Self {
            trigger_prefix: replaced(&self.trigger_prefix),
            trigger_suffix: replaced(&self.trigger_suffix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_words_stand_where_the_trigger_stood() {
        let applied = |before: Option<&str>, after: Option<&str>| {
            let [trigger_prefix, trigger_suffix] =
                [before, after].map(|part| part.map(str::to_owned));
            let args = TriggerArgs { trigger_prefix, trigger_suffix };
            args.with_words("please").trigger().map(|trigger| trigger.apply("ask"))
        };
        assert_eq!(applied(Some("Melodia"), None).as_deref(), Some("please ask"));
        assert_eq!(applied(None, Some("Melodia")).as_deref(), Some("ask please"));
        assert_eq!(applied(Some("Begin"), Some("soon")).as_deref(), Some("please ask please"));
        assert_eq!(applied(None, None), None);
    }
}
