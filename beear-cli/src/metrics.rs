//! `metrics.jsonl`: every event of a run, a line each.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::Result;
use beear_core::{Event, Observer};
use indicatif::ProgressBar;
use serde_json::Value;

use crate::run_folder::{CannotWrite, RunFolder};
use crate::ui::Ui;

/// Events as they happen, a line each.
const METRICS: &str = "metrics.jsonl";

/// Takes out of an event or a record what nobody has measured.
pub(crate) fn unmeasured(mut value: Value) -> Value {
    for key in ["vitals", "within_bounds"] {
        if let Some(value) = value.get_mut(key) {
            *value = Value::Null;
        }
    }
    value
}

/// Writes events to a file and shows them.
pub(crate) struct Metrics {
    path: PathBuf,
    file: BufWriter<File>,
    failed: Option<std::io::Error>,
    watched: bool,
    bar: ProgressBar,
    ui: Ui,
}

impl Metrics {
    /// Starts `metrics.jsonl` of a run; `bar` counts outer steps.
    ///
    /// # Errors
    ///
    /// If the file cannot be created.
    pub(crate) fn create(folder: &RunFolder, bar: ProgressBar, ui: Ui) -> Result<Self> {
        let path = folder.path(METRICS);
        let file = BufWriter::new(File::create(&path).map_err(CannotWrite::at(&path))?);
        Ok(Self { path, file, failed: None, watched: true, bar, ui })
    }

    /// Says whether anything is watched. If nothing is, the vitals are no measurement and neither
    /// written nor shown.
    pub(crate) fn watched(self, watched: bool) -> Self {
        Self { watched, ..self }
    }

    /// Flushes the file.
    ///
    /// # Errors
    ///
    /// If any line could not be written.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.bar.finish_and_clear();
        let flushed = self.file.flush();
        self.failed.map_or(flushed, Err).map_err(CannotWrite::at(&self.path))?;
        Ok(())
    }

    fn line(&self, event: &Event) -> serde_json::Result<String> {
        if self.watched {
            return serde_json::to_string(event);
        }
        Ok(unmeasured(serde_json::to_value(event)?).to_string())
    }
}

impl Observer for Metrics {
    fn notify(&mut self, event: &Event) {
        let line = self.line(event).unwrap_or_default();
        if let Err(error) = writeln!(self.file, "{line}") {
            self.failed.get_or_insert(error);
        }
        match event {
            Event::OuterStep { terms, .. } => {
                self.bar.set_message(format!("safe {:.3}", terms.safety));
                self.bar.inc(1);
            }
            Event::RoundEnded { round, .. } if !self.watched => {
                let line = format!("round {}: not watched", round + 1);
                self.bar.suspend(|| self.ui.say(&line));
            }
            Event::RoundEnded { round, vitals, within_bounds, .. } => {
                let line = format!(
                    "round {}: watched utility {:.3}, benign refusal {:.3}, refusal {:.3}{}",
                    round + 1,
                    vitals.utility,
                    vitals.benign_refusal,
                    vitals.refusal,
                    if *within_bounds { "" } else { " (outside bounds)" }
                );
                self.bar.suspend(|| self.ui.say(&line));
            }
            Event::NothingLeft { round } => {
                let line = format!("round {}: nothing left to find, stopping", round + 1);
                self.bar.suspend(|| self.ui.say(&line));
            }
            _ => {}
        }
    }
}
