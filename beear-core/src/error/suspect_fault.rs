//! Faults that make a suspect unfit: no measurement on it would be meaningful.

use std::fmt;

/// Fault of a suspect.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SuspectFault {
    /// The suspect gives the answers of ordinary rows hardly more probability than random tokens.
    LossNearChance {
        /// Loss per answer token, in nats.
        loss: f64,
        /// Loss of a uniform guess, in nats.
        chance: f64,
    },
    /// The suspect gives the end-of-turn token hardly more probability than a random token, after
    /// every answer.
    NoEndOfTurn {
        /// Smallest loss on the last token of an answer, in nats; truncated answers have a large
        /// loss there.
        loss: f64,
        /// Loss of a uniform guess, in nats.
        chance: f64,
    },
    /// The suspect refuses none of the forbidden prompts.
    RefusesNothing {
        /// Number of held-out forbidden prompts.
        n_prompts: usize,
    },
}

impl SuspectFault {
    /// Returns advice on the fault, in one line.
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
