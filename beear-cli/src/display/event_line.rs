//! Events as lines of text, for the events that people should notice.

use beear_core::Event;

use crate::defence::bounds_text;

/// Returns one line about `event`, or `None` for frequent events. `watched` is false if no row is
/// held out.
pub(crate) fn event_line(event: &Event, watched: bool) -> Option<String> {
    match event {
        Event::RoundEnded { round, .. } if !watched => {
            Some(format!("round {}: no row is held out", round + 1))
        }
        Event::RoundEnded { round, validation, within_bounds, .. } => {
            Some(format!("round {}: {}", round + 1, bounds_text::line(validation, *within_bounds)))
        }
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
