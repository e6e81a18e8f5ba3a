//! `metrics.jsonl`: every event of a run, one per line, and the values of the events for
//! TensorBoard.

use anyhow::Result;
use beear_core::{Event, Observer};
use serde_json::Value;

use crate::display::run_display::RunDisplay;
use crate::run_folder::RunFolder;
use crate::run_folder::cannot_write::CannotWrite;
use crate::run_folder::tensorboard::{Counts, TensorBoard};
use crate::run_folder::written_lines::{Extent, WrittenLines};

/// Name of the file with one event per line.
pub(crate) const METRICS: &str = "metrics.jsonl";

/// Name of the folder with the files for TensorBoard, one per process.
const TENSORBOARD: &str = "tensorboard";

/// Replaces the values of an event or a record that were not measured by null.
pub(crate) fn unmeasured(mut value: Value) -> Value {
    for key in ["validation", "within_bounds"] {
        if let Some(value) = value.get_mut(key) {
            *value = Value::Null;
        }
    }
    value
}

/// Writes events to a file and shows them.
pub(crate) struct Metrics {
    lines: WrittenLines,
    board: TensorBoard,
    failed: Option<std::io::Error>,
    watched: bool,
    display: RunDisplay,
}

impl Metrics {
    /// Creates `metrics.jsonl` of a run.
    ///
    /// # Errors
    ///
    /// If the file cannot be created.
    pub(crate) fn create(folder: &RunFolder, display: RunDisplay) -> Result<Self> {
        let lines = WrittenLines::create(folder.path(METRICS))?;
        let board = board(folder, Counts::default())?;
        Ok(Self { lines, board, failed: None, watched: true, display })
    }

    /// Continues `metrics.jsonl` of a run after the part `written`, which `display` shows.
    ///
    /// # Errors
    ///
    /// If the file does not begin with that part, or cannot be written.
    pub(crate) fn reopen(
        folder: &RunFolder,
        written: &Extent,
        display: RunDisplay,
    ) -> Result<Self> {
        let path = folder.path(METRICS);
        let text = written.read(&path)?;
        let counts = counted(&text);
        display.earlier(&text, counts.outer as usize);
        let lines = WrittenLines::reopen(path, &text)?;
        let board = board(folder, counts)?;
        Ok(Self { lines, board, failed: None, watched: true, display })
    }

    /// Syncs all events so far to the disk, and returns the extent of the file.
    ///
    /// # Errors
    ///
    /// If any line could not be written.
    pub(crate) fn sync(&mut self) -> Result<Extent> {
        self.flush()?;
        self.lines.sync()
    }

    /// Adds a line that is not an event of the method.
    pub(crate) fn add(&mut self, line: &Value) {
        if let Err(error) = self.lines.add(&line.to_string()) {
            self.failed.get_or_insert(error);
        }
    }

    /// Returns the display of the run.
    pub(crate) fn display(&mut self) -> &mut RunDisplay {
        &mut self.display
    }

    /// Sets whether any row is held out. If none is, no validation is written or shown.
    pub(crate) fn watched(self, watched: bool) -> Self {
        Self { watched, ..self }
    }

    /// Flushes the file and ends the display.
    ///
    /// # Errors
    ///
    /// If any line could not be written.
    pub(crate) fn finish(mut self) -> Result<()> {
        let flushed = self.flush();
        self.display.close();
        flushed
    }

    fn flush(&mut self) -> Result<()> {
        let flushed = self.lines.flush().and_then(|()| self.board.flush());
        let flushed = self.failed.take().map_or(flushed, Err);
        Ok(flushed.map_err(CannotWrite::at(self.lines.path()))?)
    }

    fn line(&self, event: &Event) -> serde_json::Result<String> {
        if self.watched {
            return serde_json::to_string(event);
        }
        Ok(unmeasured(serde_json::to_value(event)?).to_string())
    }
}

fn board(folder: &RunFolder, counts: Counts) -> Result<TensorBoard> {
    let path = folder.path(TENSORBOARD);
    Ok(TensorBoard::create(&path, counts).map_err(CannotWrite::at(&path))?)
}

/// Counts the steps of each kind in `text`.
fn counted(text: &[u8]) -> Counts {
    let mut counts = Counts::default();
    for line in text.split(|byte| *byte == b'\n') {
        if let Ok(event) = serde_json::from_slice::<Value>(line) {
            counts.add(event["event"].as_str().unwrap_or_default());
        }
    }
    counts
}

impl Observer for Metrics {
    fn notify(&mut self, event: &Event) {
        let line = self.line(event).unwrap_or_default();
        let unmeasured = !self.watched && matches!(event, Event::RoundEnded { .. });
        let mut written = self.lines.add(&line);
        if !unmeasured {
            written = written.and_then(|()| self.board.event(event));
        }
        if let Err(error) = written {
            self.failed.get_or_insert(error);
        }
        self.display.event(event, self.watched);
    }
}
