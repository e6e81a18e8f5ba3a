//! Everything that is printed: results, progress and the dashboard.

pub(crate) mod console;
pub(crate) mod dashboard;
pub(crate) mod event_line;
pub(crate) mod run_display;
pub(crate) mod terminal;
