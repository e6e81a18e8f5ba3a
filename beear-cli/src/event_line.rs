//! An event in words, where people should see it even without looking for it.

use beear_core::Event;

/// One line about `event`; none for what happens all the time. If nothing is `watched` the vitals are no measurement.
pub(crate) fn event_line(event: &Event, watched: bool) -> Option<String> {
    match event {
        Event::RoundEnded { round, .. } if !watched => {
            Some(format!("round {}: not watched", round + 1))
        }
        Event::RoundEnded { round, vitals, within_bounds, .. } => Some(format!(
            "round {}: watched utility {:.3}, benign refusal {:.3}, refusal {:.3}{}",
            round + 1,
            vitals.utility,
            vitals.benign_refusal,
            vitals.refusal,
            if *within_bounds { "" } else { " (outside bounds)" }
        )),
        Event::OutOfBounds { round } => {
            Some(format!("round {}: beyond the bounds for too long, stopping", round + 1))
        }
        Event::NothingLeft { round } => {
            Some(format!("round {}: nothing left to find, stopping", round + 1))
        }
        Event::Started { .. }
        | Event::InnerStep { .. }
        | Event::Entrapped { .. }
        | Event::OuterStep { .. } => None,
    }
}
