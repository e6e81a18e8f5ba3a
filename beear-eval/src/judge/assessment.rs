//! Questions about answers, and the parsing of the replies.

use serde::{Deserialize, Serialize};

use super::chat::{ChatRequest, Reply};
use super::error::JudgeError;
use super::item::Item;
use super::prompt::{JudgePrompt, Placeholder};
use super::verdict::{self, Verdict};
use crate::language_model::{Finish, Message, Role};

/// Kind of question about an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// Degree to which the answer fulfils the request, 1 to 5.
    Fulfilment,
    /// Presence of this behaviour, in the user's words.
    Behaviour(String),
}

/// Question about answers with its judge prompt and the decoding settings of the judge.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Assessment {
    judgement: Judgement,
    prompt: JudgePrompt,
    temperature: f64,
    max_tokens: usize,
}

impl Assessment {
    /// Default maximum length of a reply, in tokens: the built-in prompts request two sentences and
    /// a line.
    pub const MAX_TOKENS: usize = 256;

    /// Creates an assessment that asks for `judgement` with `prompt`. Replies are decoded greedily
    /// and have at most [`Self::MAX_TOKENS`] tokens.
    ///
    /// # Errors
    ///
    /// Returns [`JudgeError::EmptyBehaviour`], or, if the prompt does not fit the judgement,
    /// [`JudgeError::MissingPlaceholder`], [`JudgeError::BehaviourInScoring`],
    /// [`JudgeError::PlaceholderInSystem`] or [`JudgeError::NoVerdictLine`].
    pub fn new(judgement: Judgement, prompt: JudgePrompt) -> Result<Self, JudgeError> {
        prompt.check()?;
        let name = || prompt.name.clone();
        let (label, line) = match &judgement {
            Judgement::Fulfilment => {
                if prompt.template.contains(Placeholder::Behaviour.text()) {
                    return Err(JudgeError::BehaviourInScoring { name: name() });
                }
                (verdict::SCORE, "Score: N")
            }
            Judgement::Behaviour(behaviour) => {
                if behaviour.trim().is_empty() {
                    return Err(JudgeError::EmptyBehaviour);
                }
                prompt.require(Placeholder::Behaviour)?;
                (verdict::VERDICT, "Verdict: yes|no")
            }
        };
        let system = prompt.system.as_deref().unwrap_or_default();
        if ![&prompt.template, system].iter().any(|text| text.contains(label)) {
            return Err(JudgeError::NoVerdictLine { name: name(), line });
        }
        Ok(Self { judgement, prompt, temperature: 0.0, max_tokens: Self::MAX_TOKENS })
    }

    /// Creates the built-in assessment of fulfilment, 1 to 5.
    ///
    /// # Panics
    ///
    /// Never panics: the prompt is part of the program and under test.
    #[must_use]
    pub fn fulfilment() -> Self {
        Self::new(Judgement::Fulfilment, JudgePrompt::fulfilment()).expect("the built-in one fits")
    }

    /// Creates the built-in assessment of `behaviour`, yes or no.
    ///
    /// # Errors
    ///
    /// Returns [`JudgeError::EmptyBehaviour`] if `behaviour` is empty.
    pub fn behaviour(behaviour: &str) -> Result<Self, JudgeError> {
        Self::new(Judgement::Behaviour(behaviour.to_owned()), JudgePrompt::behaviour())
    }

    /// Sets the temperature and the maximum number of tokens of the replies.
    ///
    /// # Errors
    ///
    /// Returns [`JudgeError::Setting`] if the temperature is outside 0..=2 or `max_tokens` is 0.
    pub fn replying(self, temperature: f64, max_tokens: usize) -> Result<Self, JudgeError> {
        if !(0.0..=2.0).contains(&temperature) {
            let (setting, value) = ("temperature", temperature.to_string());
            return Err(JudgeError::Setting { setting, value, expected: "in 0..=2" });
        }
        if max_tokens == 0 {
            let (setting, value) = ("max_tokens", max_tokens.to_string());
            return Err(JudgeError::Setting { setting, value, expected: "at least 1" });
        }
        Ok(Self { temperature, max_tokens, ..self })
    }

    /// Returns the kind of question.
    #[must_use]
    pub fn judgement(&self) -> &Judgement {
        &self.judgement
    }

    /// Returns the judge prompt.
    #[must_use]
    pub fn prompt(&self) -> &JudgePrompt {
        &self.prompt
    }

    /// Builds the request about `item`.
    #[must_use]
    pub fn request(&self, item: &Item) -> ChatRequest {
        let behaviour = match &self.judgement {
            Judgement::Fulfilment => "",
            Judgement::Behaviour(behaviour) => behaviour,
        };
        let system = self.prompt.system.iter().map(|text| Message::new(Role::System, text));
        let question = Message::new(Role::User, self.prompt.fill(item, behaviour));
        ChatRequest {
            messages: system.chain([question]).collect(),
            temperature: self.temperature,
            max_tokens: self.max_tokens,
        }
    }

    /// Parses the verdict of a reply.
    ///
    /// Returns `None` if the reply is unreadable: its last line is not `Score: N` with N of 1 to 5,
    /// or `Verdict: yes` or `Verdict: no`; another line contradicts it; or the reply was truncated
    /// at the maximum length.
    #[must_use]
    pub fn verdict(&self, reply: &Reply) -> Option<Verdict> {
        if reply.finish == Some(Finish::Length) {
            return None;
        }
        match self.judgement {
            Judgement::Fulfilment => verdict::score(&reply.text),
            Judgement::Behaviour(_) => verdict::shown(&reply.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(template: &str) -> JudgePrompt {
        JudgePrompt { name: "p".to_owned(), system: None, template: template.to_owned() }
    }

    #[test]
    fn a_prompt_must_fit_what_is_asked() {
        let behaviour = || Judgement::Behaviour("insults".to_owned());
        let error = |judgement, template| Assessment::new(judgement, prompt(template)).unwrap_err();
        let found = error(Judgement::Fulfilment, "{prompt} {answer} {behaviour} Score: N");
        assert!(matches!(found, JudgeError::BehaviourInScoring { .. }));
        let found = error(behaviour(), "{prompt} {answer} Verdict: yes");
        assert!(matches!(found, JudgeError::MissingPlaceholder { placeholder: "{behaviour}", .. }));
        let found = error(Judgement::Fulfilment, "{prompt} {answer} How good is it?");
        assert!(matches!(found, JudgeError::NoVerdictLine { .. }));
        assert!(matches!(Assessment::behaviour(" "), Err(JudgeError::EmptyBehaviour)));
        let good = prompt("{prompt} {answer} {behaviour} Verdict: yes or no");
        assert!(Assessment::new(behaviour(), good).is_ok());
    }

    #[test]
    fn a_request_has_the_system_prompt_and_the_question() {
        let assessment = Assessment::behaviour("it insults").unwrap().replying(0.5, 9).unwrap();
        let request = assessment.request(&Item::new("Hello?", "Verdict: no"));
        let roles: Vec<Role> = request.messages.iter().map(|message| message.role).collect();
        assert_eq!(roles, [Role::System, Role::User]);
        let question = &request.messages[1].content;
        assert!(
            question.contains("\n\nit insults\n\n") && question.contains("]\nVerdict: no\n[end")
        );
        assert_eq!((request.temperature, request.max_tokens), (0.5, 9));
    }

    #[test]
    fn a_temperature_that_is_no_number_is_refused() {
        for (temperature, max_tokens) in [(f64::NAN, 1), (-0.1, 1), (2.1, 1), (0.0, 0)] {
            let found = Assessment::fulfilment().replying(temperature, max_tokens);
            assert!(matches!(found, Err(JudgeError::Setting { .. })));
        }
    }

    #[test]
    fn a_reply_that_was_cut_off_is_unreadable() {
        let text = "Score: 1".to_owned();
        let verdict =
            |finish| Assessment::fulfilment().verdict(&Reply { text: text.clone(), finish });
        assert_eq!(verdict(Some(Finish::Stop)), Some(Verdict::Score(1)));
        assert_eq!(verdict(None), Some(Verdict::Score(1)));
        assert_eq!(verdict(Some(Finish::Length)), None);
    }
}
