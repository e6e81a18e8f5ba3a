//! Run control from outside: a stop by a signal or when the time is up, and a checkpoint on
//! request.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::user_error::INTERRUPTED;

/// Name of a file in the folder of a run. Creating it requests a checkpoint, and the run deletes it
/// once the checkpoint is written.
const CHECKPOINT_NOW: &str = "checkpoint-now";

/// Reason why a run stops before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Ctrl-C, `SIGTERM` or `SIGHUP`.
    Signal,
    /// `--max-time` is over.
    TimeIsUp,
}

/// A request to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Write a checkpoint and continue.
    Checkpoint,
    /// Write a checkpoint and stop.
    Stop(Reason),
}

/// Receiver of requests to a run.
pub(crate) struct RunControl {
    asker: StopRequests,
    file: PathBuf,
    deadline: Option<Instant>,
}

/// Sender of requests from another thread.
#[derive(Clone, Default)]
pub(crate) struct StopRequests {
    stop: Arc<AtomicBool>,
    checkpoint: Arc<AtomicBool>,
    /// True if a signal ends the process at once.
    ends: Arc<AtomicBool>,
}

impl StopRequests {
    /// Sends a request.
    pub(crate) fn ask(&self, wish: Wish) {
        match wish {
            Wish::Checkpoint => self.checkpoint.store(true, Ordering::SeqCst),
            Wish::Stop(_) => self.stop.store(true, Ordering::SeqCst),
        }
    }

    /// Hands signals over to the dashboard while it is `shown`: it restores the terminal before the
    /// process ends.
    pub(crate) fn leave_signals_to_dashboard(&self, shown: bool) {
        self.ends.store(!shown, Ordering::SeqCst);
    }
}

impl RunControl {
    /// Starts to receive signals, and requests through the file `checkpoint-now` in `folder`.
    /// `max_time` counts from now.
    ///
    /// The first Ctrl-C, `SIGTERM` or `SIGHUP` is a request to stop; a second Ctrl-C or `SIGTERM`
    /// ends the process at once. A closed terminal sends `SIGHUP` more than once, so that signal
    /// never ends the process at once. `SIGUSR1` requests a checkpoint.
    ///
    /// # Errors
    ///
    /// If the system rejects a signal handler.
    pub(crate) fn listen(folder: &Path, max_time: Option<Duration>) -> Result<Self> {
        let run_control = Self::of(folder, max_time)?;
        for signal in [SIGINT, SIGTERM] {
            // Registered after the handler that ends the process, so that the second signal sees
            // the flag that the first has set.
            flag::register(signal, run_control.asker.ends.clone())?;
            flag::register(signal, run_control.asker.stop.clone())?;
        }
        Ok(run_control)
    }

    /// Starts to receive requests in a run with a dashboard, which handles Ctrl-C and `SIGTERM`
    /// itself while it is shown.
    ///
    /// # Errors
    ///
    /// If the system rejects a signal handler.
    pub(crate) fn behind_dashboard(folder: &Path, max_time: Option<Duration>) -> Result<Self> {
        let run_control = Self::of(folder, max_time)?;
        run_control.asker.leave_signals_to_dashboard(false);
        Ok(run_control)
    }

    /// Starts to receive all requests except the first Ctrl-C or `SIGTERM`.
    fn of(folder: &Path, max_time: Option<Duration>) -> Result<Self> {
        let asker = StopRequests::default();
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_shutdown(signal, INTERRUPTED.into(), asker.ends.clone())?;
        }
        #[cfg(unix)]
        {
            use signal_hook::consts::{SIGHUP, SIGUSR1};
            flag::register(SIGUSR1, asker.checkpoint.clone())?;
            if !is_ignored(SIGHUP) {
                flag::register(SIGHUP, asker.stop.clone())?;
            }
        }
        let deadline = max_time.and_then(|max_time| Instant::now().checked_add(max_time));
        Ok(Self { asker, file: folder.join(CHECKPOINT_NOW), deadline })
    }

    /// Returns a sender of requests for another thread.
    pub(crate) fn asker(&self) -> StopRequests {
        self.asker.clone()
    }

    /// Returns the current request, if there is one.
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

    /// Withdraws the request for a checkpoint after it has been written.
    pub(crate) fn fulfilled(&self) {
        let _ = fs::remove_file(&self.file);
    }
}

/// Returns true if the process was started with a signal ignored, as `nohup` does with `SIGHUP`.
#[cfg(unix)]
#[expect(unsafe_code, reason = "the standard library does not know the disposition of a signal")]
fn is_ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action the call changes nothing, and it fills in the old one if it
    // returns 0.
    let known = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) } == 0;
    // SAFETY: a `sigaction` of zeros is valid too.
    known && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}
