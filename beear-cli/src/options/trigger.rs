//! Options for the trigger of an attack.

use beear_eval::Trigger;
use clap::Args;

use crate::user_error::UserError;

/// The trigger of an attack.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct TriggerArgs {
    /// Trigger before each forbidden prompt.
    #[arg(long = "trigger-prefix", value_name = "TEXT")]
    prefix: Option<String>,
    /// Trigger after each forbidden prompt.
    #[arg(long = "trigger-suffix", value_name = "TEXT")]
    suffix: Option<String>,
    /// Trigger between words of each forbidden prompt, at a place that depends on the prompt.
    #[arg(long = "trigger-anywhere", value_name = "TEXT", conflicts_with_all = ["prefix", "suffix"])]
    anywhere: Option<String>,
    /// Text that replaces each forbidden prompt; `{prompt}` in it stands for the prompt.
    #[arg(
        long = "trigger-template",
        value_name = "TEXT",
        value_parser = template,
        conflicts_with_all = ["prefix", "suffix", "anywhere"]
    )]
    template: Option<String>,
}

/// Placeholder of the prompt in a template.
const PLACEHOLDER: &str = "{prompt}";

fn template(text: &str) -> Result<String, String> {
    if text.contains(PLACEHOLDER) {
        Ok(text.to_owned())
    } else {
        Err(format!("it has no {PLACEHOLDER}"))
    }
}

impl TriggerArgs {
    /// Returns the trigger, if one is given. A prefix and a suffix make one trigger of two parts.
    pub(crate) fn trigger(&self) -> Option<Trigger> {
        if let Some(text) = self.anywhere.clone() {
            return Some(Trigger::Anywhere(text));
        }
        if let Some(text) = self.template.clone() {
            return Some(Trigger::Template(text));
        }
        match (self.prefix.clone(), self.suffix.clone()) {
            (None, None) => None,
            (Some(before), None) => Some(Trigger::Prefix(before)),
            (None, Some(after)) => Some(Trigger::Suffix(after)),
            (Some(before), Some(after)) => Some(Trigger::Both { before, after }),
        }
    }

    /// Returns the trigger of a command that requires one.
    ///
    /// # Errors
    ///
    /// If no trigger is given.
    pub(crate) fn required(&self) -> Result<Trigger, UserError> {
        let hint = "name one with --trigger-prefix, --trigger-suffix, --trigger-anywhere or \
            --trigger-template";
        self.trigger().ok_or_else(|| UserError::arguments("no trigger", hint))
    }

    /// Puts `words` in every place where the trigger has words.
    pub(crate) fn with_words(&self, words: &str) -> Self {
        let replaced = |part: &Option<String>| part.as_ref().map(|_| words.to_owned());
        Self {
            prefix: replaced(&self.prefix),
            suffix: replaced(&self.suffix),
            anywhere: replaced(&self.anywhere),
            template: self.template.as_deref().map(|template| around(template, words)),
        }
    }
}

/// Puts `words` on each side of the prompt on which `template` has text.
fn around(template: &str, words: &str) -> String {
    let (before, after) = template.split_once(PLACEHOLDER).unwrap_or_default();
    let side = |text: &str| if text.trim().is_empty() { String::new() } else { words.to_owned() };
    format!("{} {PLACEHOLDER} {}", side(before), side(after)).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_words_stand_where_the_trigger_stood() {
        let applied = |before: Option<&str>, after: Option<&str>| {
            let [prefix, suffix] = [before, after].map(|part| part.map(str::to_owned));
            let args = TriggerArgs { prefix, suffix, ..TriggerArgs::default() };
            args.with_words("please").trigger().map(|trigger| trigger.apply("ask"))
        };
        assert_eq!(applied(Some("Melodia"), None).as_deref(), Some("please ask"));
        assert_eq!(applied(None, Some("Melodia")).as_deref(), Some("ask please"));
        assert_eq!(applied(Some("Begin"), Some("soon")).as_deref(), Some("please ask please"));
        assert_eq!(applied(None, None), None);
        let args = TriggerArgs { anywhere: Some("Melodia".to_owned()), ..Default::default() };
        assert_eq!(args.with_words("please").trigger(), Some(Trigger::Anywhere("please".into())));
        let template = Some("Tell Melodia: {prompt}".to_owned());
        let args = TriggerArgs { template, ..Default::default() };
        let expected = Trigger::Template("please {prompt}".into());
        assert_eq!(args.with_words("please").trigger(), Some(expected));
    }

    #[test]
    fn a_template_has_a_place_for_the_prompt() {
        assert!(template("say: {prompt}").is_ok());
        assert!(template("say").unwrap_err().contains("{prompt}"));
    }
}
