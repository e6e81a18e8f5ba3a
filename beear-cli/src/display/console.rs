//! What people see: progress on stderr, results on stdout.

use std::io::{ErrorKind, IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

use crate::display::terminal::{harmless, harmless_json, to_stderr};
use crate::memory::bytes;

/// What was tried when standard output could not be written.
pub(crate) const WRITING_STDOUT: &str = "writing to standard output";

/// How to talk to the user.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Console {
    /// Results as JSON.
    pub(crate) json: bool,
    /// No progress.
    pub(crate) quiet: bool,
    /// What is a result here is talk: it is part of another's result.
    pub(crate) is_part: bool,
}

impl Console {
    /// The same for a command within another.
    pub(crate) fn of_a_part(self) -> Self {
        Self { is_part: true, ..self }
    }

    /// One line about what happens now.
    pub(crate) fn say(self, line: &str) {
        if !self.quiet {
            to_stderr(&format!("{}\n", harmless(line)));
        }
    }

    /// A bar of `n` steps; plain lines at its ends where stderr is no terminal.
    #[must_use]
    pub(crate) fn bar(self, name: &str, n: usize) -> ProgressBar {
        let template = "{prefix:28} {bar:30} {pos}/{len} {eta} {msg}";
        self.bar_of((name, n as u64), template, || format!("{n} steps"))
    }

    /// A bar of `n` bytes, in the same way.
    #[must_use]
    pub(crate) fn byte_bar(self, name: &str, n: u64) -> ProgressBar {
        let template = "{prefix:28} {bar:30} {binary_bytes}/{binary_total_bytes} {eta} {msg}";
        self.bar_of((name, n), template, || bytes::show(n))
    }

    fn bar_of(
        self,
        (name, n): (&str, u64),
        template: &str,
        amount: impl Fn() -> String,
    ) -> ProgressBar {
        if self.quiet || !std::io::stderr().is_terminal() {
            self.say(&format!("{name}: {}", amount()));
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template(template);
        let bar = ProgressBar::new(n).with_prefix(harmless(name));
        bar.enable_steady_tick(Duration::from_millis(200));
        bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    }

    /// Prints a result: `text` for people, `value` with `--json`; a part of another result on standard error, for
    /// people.
    ///
    /// # Errors
    ///
    /// If standard output cannot be written; a reader that has gone away is no error.
    pub(crate) fn result(self, text: &str, value: &impl serde::Serialize) -> Result<()> {
        if self.is_part {
            self.say(text.trim_end());
            return Ok(());
        }
        let text = if self.json {
            harmless_json(&serde_json::to_string(value)?)
        } else {
            harmless(text.trim_end())
        };
        match writeln!(std::io::stdout(), "{text}") {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            written => written.context(WRITING_STDOUT),
        }
    }
}
