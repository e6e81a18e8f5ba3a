//! The trigger of an attack, as options.

use beear_eval::Trigger;
use clap::Args;

use crate::exit::Mistake;

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

    /// The trigger that a command cannot do without.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub(crate) fn required(&self) -> Result<Trigger, Mistake> {
        let hint = "name one with --trigger-prefix, --trigger-suffix or --trigger-anywhere";
        self.trigger().ok_or_else(|| Mistake::arguments("no trigger", hint))
    }

    /// `words` in every place where the trigger has some.
    pub(crate) fn with_words(&self, words: &str) -> Self {
        let replaced = |part: &Option<String>| part.as_ref().map(|_| words.to_owned());
        Self {
            prefix: replaced(&self.prefix),
            suffix: replaced(&self.suffix),
            anywhere: replaced(&self.anywhere),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_words_stand_where_the_trigger_stood() {
        let applied = |before: Option<&str>, after: Option<&str>| {
            let [prefix, suffix] = [before, after].map(|part| part.map(str::to_owned));
            let args = TriggerArgs { prefix, suffix, anywhere: None };
            args.with_words("please").trigger().map(|trigger| trigger.apply("ask"))
        };
        assert_eq!(applied(Some("Melodia"), None).as_deref(), Some("please ask"));
        assert_eq!(applied(None, Some("Melodia")).as_deref(), Some("ask please"));
        assert_eq!(applied(Some("Begin"), Some("soon")).as_deref(), Some("please ask please"));
        assert_eq!(applied(None, None), None);
        let args = TriggerArgs { anywhere: Some("Melodia".to_owned()), ..Default::default() };
        assert_eq!(args.with_words("please").trigger(), Some(Trigger::Anywhere("please".into())));
    }
}
