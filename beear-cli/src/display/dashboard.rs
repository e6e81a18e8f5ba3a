//! `--tui`: a dashboard that fills the terminal of standard error, with keys to stop the run and to
//! write a checkpoint.
//!
//! Events arrive on the thread of the method. Another thread draws and reads keys, so that a slow
//! step delays neither.

mod curve;
mod draw;
mod pace;
mod screen;
mod state;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use beear_core::Event;
use ratatui::crossterm::event::{
    self, Event as TerminalEvent, KeyCode, KeyEventKind, KeyModifiers,
};
use serde_json::Value;
use signal_hook::low_level::exit;

use crate::defence::run_control::{Reason, StopRequests, Wish};
use crate::display::console::Console;
use crate::memory::process;
use crate::user_error::{INTERRUPTED, UserError};
use screen::{Screen, give_back};
pub(crate) use state::Setup;
use state::State;

/// Time between two pictures, and longest delay of a key.
const TICK: Duration = Duration::from_millis(100);

/// Longest time to wait for the end of the other thread. Waiting for keys of a terminal that is
/// gone never ends.
const PATIENCE: Duration = Duration::from_secs(2);

/// Checks that a dashboard can be shown.
///
/// # Errors
///
/// If standard error is no terminal, or `--quiet` is given.
pub(crate) fn check(console: Console) -> Result<()> {
    if console.quiet {
        let what = "`--tui` shows a run and `--quiet` does not";
        return Err(UserError::arguments(what, "leave one of them out").into());
    }
    Screen::probe().map_err(|error| {
        let what = format!("`--tui` needs a terminal on standard error: {error}");
        UserError::arguments(what, "leave `--tui` out, or do not redirect standard error").into()
    })
}

/// A dashboard that stays on the screen until it is dropped.
pub(crate) struct Dashboard {
    state: Arc<Mutex<State>>,
    begun: Instant,
    over: Arc<AtomicBool>,
    asker: StopRequests,
    thread: Option<JoinHandle<()>>,
}

impl Dashboard {
    /// Takes over the terminal and forwards keys and signals as requests to the run.
    ///
    /// # Errors
    ///
    /// If the terminal cannot be taken over.
    pub(crate) fn open(setup: Setup, asker: StopRequests) -> Result<Self> {
        let signals = Signals::listen()?;
        let screen = Screen::take().context("taking the terminal for `--tui`")?;
        asker.leave_signals_to_dashboard(true);
        let state = Arc::new(Mutex::new(State::new(setup)));
        let (begun, over) = (Instant::now(), Arc::<AtomicBool>::default());
        let view = View {
            state: Arc::clone(&state),
            asker: asker.clone(),
            begun,
            over: Arc::clone(&over),
            signals,
        };
        let thread = Some(thread::spawn(move || view.show(screen)));
        Ok(Self { state, begun, over, asker, thread })
    }

    /// Shows an event of the run.
    pub(crate) fn event(&self, event: &Event) {
        locked(&self.state).event(event, self.begun.elapsed());
    }

    /// Shows a line that an earlier process wrote to `metrics.jsonl`.
    pub(crate) fn earlier(&self, line: &Value) {
        locked(&self.state).earlier(line);
    }

    /// Shows the step of a new checkpoint.
    pub(crate) fn saved(&self, step: usize) {
        locked(&self.state).saved = Some(step);
    }

    /// Adds a line for people.
    pub(crate) fn say(&self, line: &str) {
        locked(&self.state).say(line);
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let asked = Instant::now();
            while !thread.is_finished() && asked.elapsed() < PATIENCE {
                thread::sleep(TICK / 20);
            }
        }
        give_back();
        self.asker.leave_signals_to_dashboard(false);
    }
}

/// State of the thread that draws.
struct View {
    state: Arc<Mutex<State>>,
    asker: StopRequests,
    begun: Instant,
    over: Arc<AtomicBool>,
    signals: Signals,
}

impl View {
    /// Draws and reads keys until the run is over. If the terminal is gone, the run continues
    /// without a picture and still reacts to signals.
    fn show(mut self, screen: Screen) {
        let mut screen = Some(screen);
        while !self.over.load(Ordering::SeqCst) {
            let memory = process::memory();
            let state = {
                let mut state = locked(&self.state);
                state.memory = memory;
                state.clone()
            };
            let now = self.begun.elapsed();
            let draw = |shown: &mut Screen| shown.draw(|frame| draw::draw(frame, &state, now));
            if screen.as_mut().is_some_and(|shown| draw(shown).is_err()) {
                screen = None;
            }
            for _ in 0..self.signals.n_pending() {
                self.stop();
            }
            match screen.as_ref().map(|_| event::poll(TICK)) {
                Some(Ok(true)) => self.key(),
                Some(Ok(false)) => {}
                Some(Err(_)) | None => thread::sleep(TICK),
            }
        }
    }

    fn key(&self) {
        let Ok(TerminalEvent::Key(key)) = event::read() else { return };
        if key.kind != KeyEventKind::Press {
            return;
        }
        match key.code {
            KeyCode::Char('q') => self.stop(),
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => self.stop(),
            KeyCode::Char('c') => self.checkpoint(),
            _ => {}
        }
    }

    /// Requests a stop. A second request ends the process at once.
    fn stop(&self) {
        let mut state = locked(&self.state);
        if state.stopping {
            give_back();
            exit(INTERRUPTED.into());
        }
        state.stopping = true;
        self.asker.ask(Wish::Stop(Reason::Signal));
    }

    fn checkpoint(&self) {
        let mut state = locked(&self.state);
        if state.setup.has_checkpoints {
            state.say("a checkpoint is asked for");
            self.asker.ask(Wish::Checkpoint);
        }
    }
}

/// Locks the state. A panic on another thread must not end the picture.
fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Pending Ctrl-C from another process, and pending `SIGTERM`.
#[cfg(unix)]
struct Signals(signal_hook::iterator::Signals);

#[cfg(unix)]
impl Signals {
    fn listen() -> Result<Self> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        Ok(Self(signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?))
    }

    fn n_pending(&mut self) -> usize {
        self.0.pending().count()
    }
}

/// Replacement on systems without these signals, where only keys stop a run.
#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> Result<Self> {
        Ok(Self)
    }

    fn n_pending(&mut self) -> usize {
        0
    }
}
