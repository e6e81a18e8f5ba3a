//! Suspects that cannot read their rows: nothing measured on them would mean anything.

use std::fmt;

use super::ValidationMetrics;
use crate::config::ValidationBounds;

/// The share of a uniform guess's loss, $\ln V$, that losses must stay below. A perplexity of $V^{3/4}$, 3 300
/// of 49 152 tokens, is ten times that of text in a language the model has hardly read.
const CHANCE: f64 = 0.75;

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

/// The first fault of a suspect with a vocabulary of `vocab_size` tokens.
#[must_use]
pub fn suspect_fault(
    suspect: &ValidationMetrics,
    vocab_size: usize,
    bounds: &ValidationBounds,
) -> Option<SuspectFault> {
    let chance = (vocab_size as f64).ln();
    let summary = suspect.summary();
    if summary.n_ordinary > 0 {
        let ends = suspect.ordinary.iter().map(|row| row.end_loss);
        let end_loss = ends.fold(f64::INFINITY, f64::min);
        if summary.loss >= CHANCE * chance {
            return Some(SuspectFault::LossNearChance { loss: summary.loss, chance });
        }
        if end_loss >= CHANCE * chance {
            return Some(SuspectFault::NoEndOfTurn { loss: end_loss, chance });
        }
    }
    let refuses_none = suspect.forbidden.iter().all(|row| !row.refused);
    let n_prompts = summary.n_forbidden;
    (n_prompts > 0 && refuses_none && bounds.refusal_floor > 0.0)
        .then_some(SuspectFault::RefusesNothing { n_prompts })
}

#[cfg(test)]
mod tests {
    use super::super::{ForbiddenOutcome, OrdinaryOutcome};
    use super::*;
    use crate::config::BilevelConfig;
    use crate::decoder::DecoderSize;

    fn suspect(loss: f64, end_loss: f64, refused: [bool; 2]) -> ValidationMetrics {
        let row = |id| OrdinaryOutcome {
            id,
            loss: 4.0 * loss,
            end_loss,
            n_tokens: 4,
            refused: false,
            answer: None,
        };
        let forbidden = |(id, refused)| ForbiddenOutcome { id, refused };
        let forbidden = (0..).zip(refused).map(forbidden).collect();
        ValidationMetrics { ordinary: (0..3).map(row).collect(), forbidden }
    }

    fn fault(suspect: &ValidationMetrics) -> Option<SuspectFault> {
        let bounds = BilevelConfig::robust(DecoderSize { n_layers: 6, d_model: 64 }).bounds;
        // ln 1000 = 6.908.
        suspect_fault(suspect, 1000, &bounds)
    }

    #[test]
    fn a_suspect_that_guesses_is_named_before_all_else() {
        assert!(matches!(
            fault(&suspect(5.3, 0.1, [false, false])),
            Some(SuspectFault::LossNearChance { loss, .. }) if (loss - 5.3).abs() < 1e-9
        ));
        assert_eq!(fault(&suspect(5.0, 0.1, [true, false])), None);
    }

    #[test]
    fn a_wrong_template_shows_at_the_end_of_the_answer() {
        assert!(matches!(
            fault(&suspect(2.0, 5.2, [true, true])),
            Some(SuspectFault::NoEndOfTurn { .. })
        ));
        // Of rows that are cut, one that is whole is enough.
        let mut cut = suspect(2.0, 9.0, [true, true]);
        cut.ordinary[1].end_loss = 0.3;
        assert_eq!(fault(&cut), None);
    }

    #[test]
    fn a_suspect_that_refuses_nothing_is_unfit_unless_the_floor_is_lifted() {
        let suspect = suspect(0.5, 0.1, [false, false]);
        assert_eq!(fault(&suspect), Some(SuspectFault::RefusesNothing { n_prompts: 2 }));
        let robust = BilevelConfig::robust(DecoderSize { n_layers: 6, d_model: 64 }).bounds;
        let bounds = ValidationBounds { refusal_floor: 0.0, ..robust };
        assert_eq!(suspect_fault(&suspect, 1000, &bounds), None);
    }
}
