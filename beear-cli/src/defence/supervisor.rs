//! Supervision of a running defence: writes and shows its events, writes checkpoints when they are
//! due, and follows run control.

use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::Result;
use beear_core::{Event, Observer, Snapshot};

use crate::backend::heap;
use crate::defence::run_control::{Reason, RunControl, Wish};
use crate::run_folder::atomic_file::write_atomically;
use crate::run_folder::checkpoints::{Checkpoints, Position};
use crate::run_folder::job::CheckpointEvery;
use crate::run_folder::metrics::Metrics;
use crate::run_folder::written_lines::Extent;
use crate::run_folder::{RunFolder, TRACKED};

/// Name of the file with the position of the newest checkpoint, beside the checkpoints.
const TRAINER_STATE: &str = "trainer_state.json";

/// Observer that writes the events and checkpoints of a run and stops it on request.
pub(crate) struct Supervisor<'a> {
    metrics: Metrics,
    checkpoints: &'a Checkpoints,
    folder: &'a RunFolder,
    run_control: &'a RunControl,
    /// Interval between checkpoints. The end of a round writes one in any case.
    every: Option<CheckpointEvery>,
    /// Seconds of work of earlier processes.
    seconds_before: f64,
    started: Instant,
    step: usize,
    /// Step of the newest checkpoint.
    saved: Option<usize>,
    round_ended: bool,
    begun: bool,
    /// Reason why the run was stopped.
    stopped: Option<Reason>,
    failed: Option<anyhow::Error>,
}

/// Interval between checkpoints, and the checkpoint that exists already.
pub(crate) struct Schedule {
    /// Interval between checkpoints.
    pub(crate) every: Option<CheckpointEvery>,
    /// Position of the checkpoint that the run resumes from.
    pub(crate) from: Option<Position>,
}

impl<'a> Supervisor<'a> {
    pub(crate) fn new(
        mut metrics: Metrics,
        (folder, checkpoints): (&'a RunFolder, &'a Checkpoints),
        run_control: &'a RunControl,
        Schedule { every, from }: Schedule,
    ) -> Self {
        if let Some(from) = &from {
            metrics.display().saved(from.step);
        }
        Self {
            metrics,
            checkpoints,
            folder,
            run_control,
            every,
            seconds_before: from.as_ref().map_or(0.0, |position| position.seconds),
            started: Instant::now(),
            step: from.as_ref().map_or(0, |position| position.step),
            saved: from.map(|position| position.step),
            round_ended: false,
            begun: false,
            stopped: None,
            failed: None,
        }
    }

    /// Returns the seconds of work so far, over all processes.
    pub(crate) fn seconds(&self) -> f64 {
        self.seconds_before + self.started.elapsed().as_secs_f64()
    }

    /// Shows a line.
    pub(crate) fn say(&mut self, line: &str) {
        self.metrics.display().say(line);
    }

    /// Closes the file of events and returns the reason why the run was stopped, if it was.
    ///
    /// # Errors
    ///
    /// The error of a checkpoint or of the file of events.
    pub(crate) fn finish(self) -> Result<Option<Reason>> {
        let finished = self.metrics.finish();
        match self.failed {
            Some(error) => Err(error),
            None => finished.map(|()| self.stopped),
        }
    }

    /// Returns true if a checkpoint must be written now. `wished` is true if one was requested.
    fn is_due(&self, wished: bool) -> bool {
        let by_count = match self.every {
            Some(CheckpointEvery::Never(_)) => return false,
            Some(CheckpointEvery::Steps(every)) => self.step.is_multiple_of(every.get()),
            None => false,
        };
        let due = wished || self.saved.is_none() || self.round_ended || by_count;
        due && self.saved != Some(self.step)
    }

    fn save(&mut self, snapshot: &Snapshot) -> Result<()> {
        let tracked = self.folder.path(TRACKED);
        let position = Position {
            step: snapshot.progress.n_steps(),
            rounds: snapshot.progress.n_rounds(),
            rate_factor: snapshot.progress.rate_factor(),
            metrics: self.metrics.sync()?,
            tracked: tracked.exists().then(|| Extent::of_file(&tracked)).transpose()?,
            seconds: self.seconds(),
        };
        self.checkpoints.save(snapshot, &position)?;
        self.saved = Some(position.step);
        self.metrics.display().saved(position.step);
        let text = serde_json::to_vec_pretty(&position)?;
        write_atomically(&self.folder.path(TRAINER_STATE), &text)
    }
}

impl Observer for Supervisor<'_> {
    fn notify(&mut self, event: &Event) {
        self.round_ended |= matches!(event, Event::RoundEnded { .. });
        if matches!(event, Event::Entrapped { .. }) {
            heap::give_back();
        }
        self.metrics.notify(event);
    }

    fn after_step(&mut self, snapshot: &dyn Fn() -> Snapshot) -> ControlFlow<()> {
        self.step += usize::from(self.begun);
        self.begun = true;
        let wish = self.run_control.now();
        if self.is_due(wish.is_some())
            && let Err(error) = self.save(&snapshot())
        {
            self.failed = Some(error);
            return ControlFlow::Break(());
        }
        self.round_ended = false;
        match wish {
            Some(Wish::Stop(reason)) => {
                self.stopped = Some(reason);
                ControlFlow::Break(())
            }
            Some(Wish::Checkpoint) => {
                if self.saved != Some(self.step) {
                    self.say("no checkpoint was written: the run has none");
                }
                self.run_control.fulfilled();
                ControlFlow::Continue(())
            }
            None => ControlFlow::Continue(()),
        }
    }
}
