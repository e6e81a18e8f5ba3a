//! Detection of suspects that cannot read their rows: no measurement on them would be meaningful.

use super::ValidationMetrics;
use crate::config::ValidationBounds;
use crate::error::SuspectFault;

/// Maximum loss as a share of the loss of a uniform guess, $\ln V$. A perplexity of $V^{3/4}$, 3
/// 300 of 49 152 tokens, is ten times that of text in a language that the model has hardly seen.
const CHANCE: f64 = 0.75;

/// Returns the first fault of a suspect with a vocabulary of `vocab_size` tokens; `None` if there
/// is no fault.
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
        // One complete answer among truncated ones is enough.
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
