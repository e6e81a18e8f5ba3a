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

/// Listens.
pub(crate) struct Wishes {
    asker: Asker,
    file: PathBuf,
    deadline: Option<Instant>,
}

/// Asks from another thread.
#[derive(Clone, Default)]
pub(crate) struct Asker {
    stop: Arc<AtomicBool>,
    checkpoint: Arc<AtomicBool>,
    /// Whether a signal ends the process at once.
    ends: Arc<AtomicBool>,
}

impl Asker {
    /// Asks for something.
    pub(crate) fn ask(&self, wish: Wish) {
        match wish {
            Wish::Checkpoint => self.checkpoint.store(true, Ordering::SeqCst),
            Wish::Stop(_) => self.stop.store(true, Ordering::SeqCst),
        }
    }

    /// As long as a dashboard is shown, it hears signals and gives the terminal back before the process ends.
    pub(crate) fn leave_signals_to_dashboard(&self, shown: bool) {
        self.ends.store(!shown, Ordering::SeqCst);
    }
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
        let stop = Arc::<AtomicBool>::default();
        let asker = Asker { ends: Arc::clone(&stop), stop, ..Asker::default() };
        for signal in [SIGINT, SIGTERM] {
            // In this order: the second sees what the first has set.
            flag::register_conditional_shutdown(signal, INTERRUPTED.into(), asker.ends.clone())?;
            flag::register(signal, asker.stop.clone())?;
        }
        #[cfg(unix)]
        flag::register(signal_hook::consts::SIGUSR1, asker.checkpoint.clone())?;
        let deadline = max_time.and_then(|max_time| Instant::now().checked_add(max_time));
        Ok(Self { asker, file: folder.join(CHECKPOINT_NOW), deadline })
    }

    /// The same for a run with a dashboard, which hears signals itself while it is shown.
    ///
    /// # Errors
    ///
    /// If the system takes no handler.
    pub(crate) fn behind_dashboard(folder: &Path, max_time: Option<Duration>) -> Result<Self> {
        let asker = Asker::default();
        asker.leave_signals_to_dashboard(false);
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_shutdown(signal, INTERRUPTED.into(), asker.ends.clone())?;
        }
        #[cfg(unix)]
        flag::register(signal_hook::consts::SIGUSR1, asker.checkpoint.clone())?;
        let deadline = max_time.and_then(|max_time| Instant::now().checked_add(max_time));
        Ok(Self { asker, file: folder.join(CHECKPOINT_NOW), deadline })
    }

    /// What asks from another thread.
    pub(crate) fn asker(&self) -> Asker {
        self.asker.clone()
    }

    /// The wish of the moment.
    pub(crate) fn now(&self) -> Option<Wish> {
        if self.asker.stop.load(Ordering::Relaxed) {
            return Some(Wish::Stop(Reason::Signal));
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Some(Wish::Stop(Reason::TimeIsUp));
        }
        let asked = self.asker.checkpoint.swap(false, Ordering::Relaxed) || self.file.exists();
        asked.then_some(Wish::Checkpoint)
    }

    /// Says that a checkpoint is written.
    pub(crate) fn fulfilled(&self) {
        let _ = fs::remove_file(&self.file);
    }
}
