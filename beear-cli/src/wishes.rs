//! What is asked of a run from outside: to stop, by a signal or when its time is up, and to write a checkpoint now.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// A file in the folder of a run; whoever makes it asks for a checkpoint, and it is gone once that is written.
const CHECKPOINT_NOW: &str = "checkpoint-now";

/// Exit code of a process that was asked to stop, as shells have it for an interruption.
pub(crate) const INTERRUPTED: u8 = 130;

/// Why a run stops before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// By Ctrl-C or `SIGTERM`.
    Signal,
    /// `--max-time` is over.
    TimeIsUp,
}

/// Something that is asked of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// To write a checkpoint and go on.
    Checkpoint,
    /// To write a checkpoint and stop.
    Stop(Reason),
}

/// Listens; by default to nothing.
#[derive(Default)]
pub(crate) struct Wishes {
    stop: Arc<AtomicBool>,
    checkpoint: Arc<AtomicBool>,
    file: PathBuf,
    deadline: Option<Instant>,
}

impl Wishes {
    /// Listens to signals, and to the file `checkpoint-now` in `folder`; `max_time` counts from now.
    ///
    /// The first Ctrl-C or `SIGTERM` is a wish; the second ends the process at once. `SIGUSR1` asks for a
    /// checkpoint.
    ///
    /// # Errors
    ///
    /// If the system takes no handler.
    pub(crate) fn listen(folder: &Path, max_time: Option<Duration>) -> Result<Self> {
        let (stop, checkpoint) = (Arc::default(), Arc::default());
        for signal in [SIGINT, SIGTERM] {
            // In this order: the second sees what the first has set.
            flag::register_conditional_shutdown(signal, INTERRUPTED.into(), Arc::clone(&stop))?;
            flag::register(signal, Arc::clone(&stop))?;
        }
        #[cfg(unix)]
        flag::register(signal_hook::consts::SIGUSR1, Arc::clone(&checkpoint))?;
        let deadline = max_time.and_then(|max_time| Instant::now().checked_add(max_time));
        Ok(Self { stop, checkpoint, file: folder.join(CHECKPOINT_NOW), deadline })
    }

    /// The wish of the moment.
    pub(crate) fn now(&self) -> Option<Wish> {
        if self.stop.load(Ordering::Relaxed) {
            return Some(Wish::Stop(Reason::Signal));
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Some(Wish::Stop(Reason::TimeIsUp));
        }
        let asked = self.checkpoint.swap(false, Ordering::Relaxed) || self.file.exists();
        asked.then_some(Wish::Checkpoint)
    }

    /// Says that a checkpoint is written.
    pub(crate) fn fulfilled(&self) {
        let _ = fs::remove_file(&self.file);
    }
}
