//! The terminal of standard error, taken for the dashboard and given back on every way out.

use std::io::{self, BufWriter, IsTerminal, Stderr, stderr};
use std::mem::ManuallyDrop;
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::{Frame, Terminal};

/// Whether the terminal is taken. There is one a process.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal while it is taken.
pub(crate) struct Screen(ManuallyDrop<Terminal<CrosstermBackend<BufWriter<Stderr>>>>);

impl Screen {
    /// Finds out whether the terminal can be taken.
    ///
    /// # Errors
    ///
    /// Why not, if it cannot.
    pub(crate) fn probe() -> io::Result<()> {
        if !stderr().is_terminal() {
            return Err(io::Error::other("standard error is no terminal"));
        }
        if std::env::var_os("TERM").is_some_and(|name| name == "dumb") {
            return Err(io::Error::other("the terminal takes no commands (TERM=dumb)"));
        }
        enable_raw_mode()?;
        disable_raw_mode()
    }

    /// Takes it: another screen, no cursor, and keys that come one by one.
    ///
    /// # Errors
    ///
    /// If it cannot be taken; it is as it was then.
    pub(crate) fn take() -> io::Result<Self> {
        give_back_before_panics();
        TAKEN.store(true, Ordering::SeqCst);
        let taken = enable_raw_mode()
            .and_then(|()| execute!(stderr(), EnterAlternateScreen, Hide))
            .and_then(|()| Terminal::new(CrosstermBackend::new(BufWriter::new(stderr()))));
        if taken.is_err() {
            give_back();
        }
        taken.map(|terminal| Self(ManuallyDrop::new(terminal)))
    }

    /// Draws a frame.
    ///
    /// # Errors
    ///
    /// If the terminal is gone or has been given back.
    pub(crate) fn draw(&mut self, picture: impl FnOnce(&mut Frame)) -> io::Result<()> {
        if !TAKEN.load(Ordering::SeqCst) {
            return Err(io::Error::other("the terminal has been given back"));
        }
        self.0.draw(picture).map(drop)
    }
}

impl Drop for Screen {
    /// Gives the terminal back. What ratatui would do besides is done by that already; where the terminal is gone it would
    /// panic for being unable to say so.
    fn drop(&mut self) {
        give_back();
    }
}

/// Makes the terminal what it was; nothing if it is not taken. Nothing can be done about a terminal that does not obey.
pub(crate) fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let _ = execute!(stderr(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

/// Has whatever a panic prints go to the usual screen: the other one is gone a moment later.
fn give_back_before_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            give_back();
            usual(info);
        }));
    });
}
