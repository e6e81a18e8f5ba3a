//! `metrics.jsonl`: every event of a run, a line each.

use std::fs::File;
use std::io::{BufWriter, Write};

use anyhow::{Context, Result};
use beear_core::{Event, Observer};
use indicatif::ProgressBar;

use crate::run_folder::RunFolder;
use crate::ui::Ui;

/// Writes events to a file and shows them.
pub(crate) struct Metrics {
    file: BufWriter<File>,
    failed: Option<std::io::Error>,
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
        let path = folder.metrics();
        let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self { file: BufWriter::new(file), failed: None, bar, ui })
    }

    /// Flushes the file.
    ///
    /// # Errors
    ///
    /// If any line could not be written.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.bar.finish_and_clear();
        let flushed = self.file.flush();
        self.failed.map_or(flushed, Err).context("writing metrics.jsonl")
    }
}

impl Observer for Metrics {
    fn notify(&mut self, event: &Event) {
        let line = serde_json::to_string(event).unwrap_or_default();
        if let Err(error) = writeln!(self.file, "{line}") {
            self.failed.get_or_insert(error);
        }
        match event {
            Event::OuterStep { terms, .. } => {
                self.bar.set_message(format!("safe {:.3}", terms.safety));
                self.bar.inc(1);
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
