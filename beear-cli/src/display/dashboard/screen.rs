//! The terminal of standard error, taken over for the dashboard and restored on every way out.

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

/// True while the terminal is taken over. A process has only one.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal while it is taken over.
pub(crate) struct Screen(ManuallyDrop<Terminal<CrosstermBackend<BufWriter<Stderr>>>>);

impl Screen {
    /// Checks that the terminal can be taken over.
    ///
    /// # Errors
    ///
    /// The reason if it cannot.
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

    /// Takes over the terminal: another screen, no cursor, and keys that arrive one by one.
    ///
    /// # Errors
    ///
    /// If the terminal cannot be taken over. It is then as it was before.
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
    /// If the terminal is gone or has been restored.
    pub(crate) fn draw(&mut self, picture: impl FnOnce(&mut Frame)) -> io::Result<()> {
        if !TAKEN.load(Ordering::SeqCst) {
            return Err(io::Error::other("the terminal has been given back"));
        }
        self.0.draw(picture).map(drop)
    }
}

impl Drop for Screen {
    /// Restores the terminal. The drop of ratatui's terminal is skipped: it has nothing left to do,
    /// and panics if the terminal is gone.
    fn drop(&mut self) {
        give_back();
    }
}

/// Restores the terminal if it is taken over. A terminal that rejects the commands is left as it
/// is.
pub(crate) fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let _ = execute!(stderr(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

/// Restores the usual screen before a panic prints, because the other screen disappears a moment
/// later.
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
