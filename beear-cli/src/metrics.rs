//! `metrics.jsonl`: every event of a run, a line each; beside it what of that TensorBoard shows.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use beear_core::{Event, Observer};
use serde_json::Value;

use crate::exit::Mistake;
use crate::run_display::RunDisplay;
use crate::run_folder::{CannotWrite, RunFolder};
use crate::tensorboard::{Counts, TensorBoard};

/// Events as they happen, a line each.
const METRICS: &str = "metrics.jsonl";

/// Folder of the files for TensorBoard, one a process.
const TENSORBOARD: &str = "tensorboard";

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
    board: TensorBoard,
    failed: Option<std::io::Error>,
    watched: bool,
    display: RunDisplay,
}

impl Metrics {
    /// Starts `metrics.jsonl` of a run.
    ///
    /// # Errors
    ///
    /// If the file cannot be created.
    pub(crate) fn create(folder: &RunFolder, display: RunDisplay) -> Result<Self> {
        let path = folder.path(METRICS);
        let file = BufWriter::new(File::create(&path).map_err(CannotWrite::at(&path))?);
        let board = board(folder, Counts::default())?;
        Ok(Self { path, file, board, failed: None, watched: true, display })
    }

    /// Goes on with the first `bytes` bytes of the `metrics.jsonl` of a run, which `display` shows.
    ///
    /// # Errors
    ///
    /// If the file has fewer, or cannot be written.
    pub(crate) fn reopen(folder: &RunFolder, bytes: u64, display: RunDisplay) -> Result<Self> {
        let path = folder.path(METRICS);
        let mut text =
            beear_input::read(&path).with_context(|| format!("reading {}", path.display()))?;
        if (text.len() as u64) < bytes {
            let what = format!("`{}` is shorter than it was", path.display());
            return Err(Mistake::input(what, "start the run anew").into());
        }
        text.truncate(bytes as usize);
        let counts = counted(&text);
        display.earlier(&text, counts.outer as usize);
        let reopen = || -> std::io::Result<File> {
            let mut file = OpenOptions::new().append(true).open(&path)?;
            file.set_len(bytes)?;
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        };
        let file = BufWriter::new(reopen().map_err(CannotWrite::at(&path))?);
        let board = board(folder, counts)?;
        Ok(Self { path, file, board, failed: None, watched: true, display })
    }

    /// Writes all events so far through to the disk, and returns how many bytes they are.
    ///
    /// # Errors
    ///
    /// If any line could not be written.
    pub(crate) fn sync(&mut self) -> Result<u64> {
        let flushed = self.file.flush().and_then(|()| self.board.flush());
        self.failed.take().map_or(flushed, Err).map_err(CannotWrite::at(&self.path))?;
        let file = self.file.get_ref();
        let length = file.sync_all().and_then(|()| Ok(file.metadata()?.len()));
        Ok(length.map_err(CannotWrite::at(&self.path))?)
    }

    /// Adds a line that is no event of the method.
    pub(crate) fn add(&mut self, line: &Value) {
        if let Err(error) = writeln!(self.file, "{line}") {
            self.failed.get_or_insert(error);
        }
    }

    /// What people see of the run.
    pub(crate) fn display(&mut self) -> &mut RunDisplay {
        &mut self.display
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
        self.display.close();
        let flushed = self.file.flush().and_then(|()| self.board.flush());
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

fn board(folder: &RunFolder, counts: Counts) -> Result<TensorBoard> {
    let path = folder.path(TENSORBOARD);
    Ok(TensorBoard::create(&path, counts).map_err(CannotWrite::at(&path))?)
}

/// How many steps of each kind `text` tells of.
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
        let mut written = writeln!(self.file, "{line}");
        if !unmeasured {
            written = written.and_then(|()| self.board.event(event));
        }
        if let Err(error) = written {
            self.failed.get_or_insert(error);
        }
        self.display.event(event, self.watched);
    }
}
