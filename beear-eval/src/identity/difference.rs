//! Differences between two identities, as sentences, and the parts of an identity in words.

use std::fmt;

use super::{AnswerSource, DecodingSettings, Identity, JudgeIdentity, PromptSet, Scorer};
use crate::trigger::Trigger;

/// Number of hexadecimal digits of a hash in messages.
const SHOWN_DIGITS: usize = 12;

/// Difference between two identities in one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Name of the part, in the plural.
    pub part: String,
    /// Value before.
    pub before: String,
    /// Value after.
    pub after: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { part, before, after } = self;
        write!(f, "their {part} differ, {before} and {after}")
    }
}

impl Identity {
    /// Returns all differences that make `self`, before, and `after` incomparable. Models may
    /// differ.
    #[must_use]
    pub fn differences(&self, after: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        let mut add = |part: &str, [before, after]: [String; 2], is_same: bool| {
            if !is_same {
                found.push(Difference { part: part.to_owned(), before, after });
            }
        };
        let both = |of: &dyn Fn(&Self) -> String| [of(self), of(after)];
        let same_trigger = self.trigger == after.trigger;
        add("triggers", both(&|it| trigger_text(it.trigger.as_ref())), same_trigger);
        for arm in arms(self, after) {
            // The trigger is a part of these prompts, and its own difference is already listed.
            if arm == TRIGGERED && !same_trigger {
                continue;
            }
            let [was, is] = [self, after].map(|it| it.prompts.iter().find(|set| set.arm == arm));
            let part = format!("prompts ({arm})");
            add(&part, [was, is].map(|set| set.map_or_else(none, prompts_text)), was == is);
        }
        for (part, [was, is]) in decoding_parts(&self.decoding, &after.decoding) {
            let is_same = was == is;
            add(part, [was, is], is_same);
        }
        let judges = both(&|it| listed(&sorted(&it.scorers)));
        add("keyword lists and judges", judges, have_same_scorers(self, after));
        let format = |it: &Self| it.prompt_format.as_ref().map(|format| format.sha256.clone());
        let (was, is) = (format(self), format(after));
        add("prompt formats", both(&format_text), was == is);
        found
    }

    /// Describes in words the parts that two evaluations must share.
    #[must_use]
    pub fn in_words(&self) -> Vec<(&'static str, String)> {
        vec![
            ("prompts", listed(&self.prompts.iter().map(set_text).collect::<Vec<_>>())),
            ("trigger", trigger_text(self.trigger.as_ref())),
            ("decoding", decoding_text(&self.decoding)),
            ("judged by", listed(&sorted(&self.scorers))),
            ("prompt format", format_text(self)),
        ]
    }
}

/// Name of the arm whose prompts contain the trigger.
const TRIGGERED: &str = "triggered";

/// Returns the arms of both identities without duplicates, in order.
fn arms<'a>(before: &'a Identity, after: &'a Identity) -> Vec<&'a str> {
    let mut arms: Vec<&str> = before.prompts.iter().map(|set| set.arm.as_str()).collect();
    for set in &after.prompts {
        if !arms.contains(&set.arm.as_str()) {
            arms.push(&set.arm);
        }
    }
    arms
}

/// True if the scorers are equal, in any order.
fn have_same_scorers(before: &Identity, after: &Identity) -> bool {
    let holds_all = |one: &Identity, other: &Identity| {
        one.scorers.iter().all(|scorer| other.scorers.contains(scorer))
    };
    holds_all(before, after) && holds_all(after, before)
}

fn none() -> String {
    "none".to_owned()
}

fn listed(texts: &[String]) -> String {
    if texts.is_empty() { none() } else { texts.join(", ") }
}

fn short(hash: &str) -> &str {
    hash.get(..SHOWN_DIGITS).unwrap_or(hash)
}

fn trigger_text(trigger: Option<&Trigger>) -> String {
    trigger.map_or_else(none, ToString::to_string)
}

fn prompts_text(set: &PromptSet) -> String {
    format!("{} of SHA-256 {}", set.n, short(&set.sha256))
}

fn set_text(set: &PromptSet) -> String {
    format!("{}: {}", set.arm, prompts_text(set))
}

fn format_text(identity: &Identity) -> String {
    let text = |hash: &String| format!("SHA-256 {}", short(hash));
    let hash = identity.prompt_format.as_ref().map(|format| &format.sha256);
    hash.map_or_else(|| "unknown".to_owned(), text)
}

/// Returns the decoding settings of both identities, part by part if both are of generated answers.
fn decoding_parts(was: &AnswerSource, is: &AnswerSource) -> Vec<(&'static str, [String; 2])> {
    match (was, is) {
        (AnswerSource::Generated(was), AnswerSource::Generated(is)) => {
            let count = |was: usize, is: usize| [was, is].map(|count| count.to_string());
            vec![
                ("longest answers in tokens", count(was.max_new_tokens, is.max_new_tokens)),
                ("temperatures", [was, is].map(temperature_text)),
                ("seeds", [was, is].map(|settings| settings.seed.to_string())),
                ("stop tokens", [was, is].map(|settings| format!("{:?}", settings.stop))),
                ("numbers of answers to a prompt", count(was.n_answers, is.n_answers)),
            ]
        }
        _ => vec![("sources of answers", [was, is].map(decoding_text))],
    }
}

fn temperature_text(settings: &DecodingSettings) -> String {
    let texts: Vec<String> = settings.temperature.iter().map(f64::to_string).collect();
    listed(&texts)
}

fn decoding_text(source: &AnswerSource) -> String {
    let settings = match source {
        AnswerSource::Given => {
            return "given answers, of which the model says the likelihood".into();
        }
        AnswerSource::Unknown => return "answers of another program, its settings unknown".into(),
        AnswerSource::Generated(settings) => settings,
    };
    let DecodingSettings { max_new_tokens, greedy, seed, n_answers, .. } = settings;
    let choice = if *greedy {
        "greedy".to_owned()
    } else {
        format!("temperature {}, seed {seed}", temperature_text(settings))
    };
    let answers = if *n_answers == 1 { String::new() } else { format!(", {n_answers} answers") };
    format!("{choice}, at most {max_new_tokens} tokens{answers}")
}

/// Describes the scorers in alphabetical order, which is independent of the order of the options.
fn sorted(scorers: &[Scorer]) -> Vec<String> {
    let mut texts: Vec<String> = scorers.iter().map(scorer_text).collect();
    texts.sort();
    texts
}

fn scorer_text(scorer: &Scorer) -> String {
    match scorer {
        Scorer::Keywords { name, sha256 } => format!("keywords {name} ({})", short(sha256)),
        Scorer::Rules { name, sha256 } => format!("rules {name} ({})", short(sha256)),
        Scorer::Analyser { name } => format!("analyser {name}"),
        Scorer::Judge(judge) => judge_text(judge),
    }
}

fn judge_text(judge: &JudgeIdentity) -> String {
    let JudgeIdentity { model, checkpoint, prompt, prompt_sha256, temperature, max_tokens } = judge;
    let weights =
        checkpoint.as_deref().map_or_else(String::new, |hash| format!(" ({})", short(hash)));
    format!(
        "judge {model}{weights} with prompt {prompt} ({}), temperature {temperature}, at most {max_tokens} tokens",
        short(prompt_sha256)
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::identity;
    use super::super::{FormatIdentity, ModelIdentity};
    use super::*;
    use crate::language_model::Decoding;
    use crate::scorer::RefusalKeywords;

    /// Returns the sentences about an identity modified by `change`.
    fn sentences(change: impl Fn(&mut Identity)) -> Vec<String> {
        let mut other = identity();
        change(&mut other);
        identity().differences(&other).iter().map(ToString::to_string).collect()
    }

    fn decoding(change: impl Fn(&mut DecodingSettings)) -> Vec<String> {
        sentences(|identity| {
            let mut settings = DecodingSettings::of(&Decoding::greedy(200), &[2]);
            change(&mut settings);
            identity.decoding = AnswerSource::Generated(settings);
        })
    }

    #[test]
    fn every_part_but_the_model_must_be_shared_and_is_named_with_both_values() {
        assert_eq!(sentences(|_| ()), [""; 0]);
        let other_model = ModelIdentity { name: "other".into(), sha256: [].into() };
        assert_eq!(sentences(|identity| identity.models = vec![other_model.clone()]), [""; 0]);

        let hello = Some(Trigger::Suffix("hello".to_owned()));
        let found = sentences(|identity| {
            identity.trigger.clone_from(&hello);
            identity.prompts[0] = PromptSet::of("triggered", ["other"]);
        });
        assert_eq!(found, ["their triggers differ, suffix `SUDO` and suffix `hello`"]);
        let found = sentences(|identity| {
            identity.trigger = None;
            identity.prompts.remove(0);
        });
        assert_eq!(found, ["their triggers differ, suffix `SUDO` and none"]);

        let found = sentences(|it| it.prompts[1] = PromptSet::of("untriggered", ["a", "b"]));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("their prompts (untriggered) differ, 1 of SHA-256 "));
        assert!(found[0].contains(" and 2 of SHA-256 "), "{}", found[0]);

        let list = RefusalKeywords::builtin("beear-29").unwrap();
        let found = sentences(|identity| identity.scorers = vec![Scorer::from(&list)]);
        assert!(found[0].starts_with("their keyword lists and judges differ, keywords gcg-7 ("));
        let mut changed = RefusalKeywords::builtin("gcg-7").unwrap();
        changed.keywords.pop();
        let found = sentences(|identity| identity.scorers = vec![Scorer::from(&changed)]);
        assert_eq!(found.len(), 1, "the same name, another list");

        let format = FormatIdentity { text: "[INST]".into(), sha256: "11".into() };
        let found = sentences(|identity| identity.prompt_format = Some(format.clone()));
        assert_eq!(found, ["their prompt formats differ, SHA-256 00 and SHA-256 11"]);
    }

    #[test]
    fn every_setting_of_decoding_must_be_shared() {
        let found = decoding(|settings| settings.max_new_tokens = 50);
        assert_eq!(found, ["their longest answers in tokens differ, 200 and 50"]);
        let found = decoding(|settings| settings.temperature = vec![0.7]);
        assert_eq!(found, ["their temperatures differ, 0 and 0.7"]);
        assert_eq!(decoding(|it| it.seed = 3), ["their seeds differ, 0 and 3"]);
        assert_eq!(decoding(|it| it.stop = vec![]), ["their stop tokens differ, [2] and []"]);
        let found = decoding(|settings| settings.n_answers = 2);
        assert_eq!(found, ["their numbers of answers to a prompt differ, 1 and 2"]);
        let found = sentences(|identity| identity.decoding = AnswerSource::Given);
        assert!(found[0].starts_with("their sources of answers differ, greedy, at most 200"));
    }

    #[test]
    fn the_order_of_keyword_lists_says_nothing() {
        let lists = ["gcg-7", "beear-29"].map(|name| RefusalKeywords::builtin(name).unwrap());
        let with = |order: [usize; 2]| Identity {
            scorers: order.iter().map(|&at| Scorer::from(&lists[at])).collect(),
            ..identity()
        };
        assert_eq!(with([0, 1]).differences(&with([1, 0])), []);
    }

    #[test]
    fn an_identity_is_shown_in_words() {
        let words = identity().in_words();
        let parts: Vec<&str> = words.iter().map(|(part, _)| *part).collect();
        assert_eq!(parts, ["prompts", "trigger", "decoding", "judged by", "prompt format"]);
        assert_eq!(words[1].1, "suffix `SUDO`");
        assert_eq!(words[2].1, "greedy, at most 200 tokens");
        assert!(words[0].1.starts_with("triggered: 1 of SHA-256 "), "{}", words[0].1);
    }
}
