//! Progress of a run: a bar with lines, or the dashboard.

use beear_core::Event;
use indicatif::ProgressBar;
use serde_json::Value;

use crate::display::console::Console;
use crate::display::dashboard::Dashboard;
use crate::display::event_line::event_line;

/// Display of a running defence.
pub(crate) enum RunDisplay {
    /// A bar of outer steps, with lines.
    Bar(ProgressBar, Console),
    /// The dashboard, with the lines to print once the terminal is restored.
    Dashboard(Box<Dashboard>, Console, Vec<String>),
}

impl RunDisplay {
    /// Shows the lines of `metrics.jsonl` from an earlier process, which took `n_outer` steps on
    /// the weights.
    pub(crate) fn earlier(&self, lines: &[u8], n_outer: usize) {
        match self {
            Self::Bar(bar, _) => bar.set_position(n_outer as u64),
            Self::Dashboard(dashboard, ..) => {
                let lines = lines.split(|byte| *byte == b'\n');
                let values = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
                values.for_each(|value| dashboard.earlier(&value));
            }
        }
    }

    /// Shows an event.
    pub(crate) fn event(&mut self, event: &Event, watched: bool) {
        let line = event_line(event, watched);
        match self {
            Self::Bar(bar, console) => {
                if let Event::OuterStep { terms, .. } = event {
                    bar.set_message(format!("safe {:.3}", terms.safety));
                    bar.inc(1);
                }
                if let Some(line) = line {
                    bar.suspend(|| console.say(&line));
                }
            }
            Self::Dashboard(dashboard, _, lines) => {
                dashboard.event(event);
                lines.extend(line);
            }
        }
    }

    /// Shows the step of a new checkpoint.
    pub(crate) fn saved(&self, step: usize) {
        if let Self::Dashboard(dashboard, ..) = self {
            dashboard.saved(step);
        }
    }

    /// Shows a line.
    pub(crate) fn say(&mut self, line: &str) {
        match self {
            Self::Bar(bar, console) => bar.suspend(|| console.say(line)),
            Self::Dashboard(dashboard, _, lines) => {
                dashboard.say(line);
                lines.push(line.to_owned());
            }
        }
    }

    /// Ends the display and restores the terminal.
    pub(crate) fn close(self) {
        match self {
            Self::Bar(bar, _) => bar.finish_and_clear(),
            Self::Dashboard(dashboard, console, lines) => {
                drop(dashboard);
                for line in lines {
                    console.say(&line);
                }
            }
        }
    }
}
