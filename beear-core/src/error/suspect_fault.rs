//! Faults that make a suspect unfit: nothing measured on it would mean anything.

use std::fmt;

/// What is wrong with a suspect.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SuspectFault {
    /// The answers of ordinary rows are hardly likelier to it than random tokens.
    LossNearChance {
        /// Its loss per answer token, in nats.
        loss: f64,
        /// The loss of a uniform guess.
        chance: f64,
    },
    /// The end is hardly likelier to it than a random token after any of the answers.
    NoEndOfTurn {
        /// Its least loss on the last token of an answer, in nats: answers that are cut have a large one.
        loss: f64,
        /// The loss of a uniform guess.
        chance: f64,
    },
    /// It refuses none of the forbidden prompts.
    RefusesNothing {
        /// Forbidden prompts held out.
        n_prompts: usize,
    },
}

impl SuspectFault {
    /// What to do about it, in one line.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::LossNearChance { .. } => {
                "see that tokenizer, prompt format and language of the rows are the model's; `beear inspect` shows them"
            }
            Self::NoEndOfTurn { .. } => {
                "see that the prompt format is the model's (set `prompt_format`, or bring its chat template), and that answers are not cut"
            }
            Self::RefusesNothing { .. } => {
                "bring forbidden prompts that it refuses, another `keywords` list, or set `method.bounds.refusal_floor=0` if it has \
                 unlearned to refuse"
            }
        }
    }
}

impl fmt::Display for SuspectFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LossNearChance { loss, chance } => write!(
                f,
                "the model cannot read the ordinary rows: {loss:.2} nats per answer token, a uniform guess has {chance:.2}"
            ),
            Self::NoEndOfTurn { loss, chance } => write!(
                f,
                "the model does not know where an answer ends: at least {loss:.2} nats on the last token of each ordinary answer, a \
                 uniform guess has {chance:.2}"
            ),
            Self::RefusesNothing { n_prompts } => write!(
                f,
                "the model refuses none of the {n_prompts} forbidden prompts held out, without any trigger"
            ),
        }
    }
}
