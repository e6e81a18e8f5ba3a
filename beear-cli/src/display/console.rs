//! Output to people: progress on stderr, results on stdout.

use std::io::{ErrorKind, IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

use crate::display::terminal::{harmless, harmless_json, to_stderr};
use crate::memory::bytes;

/// Context of an error in writing standard output.
pub(crate) const WRITING_STDOUT: &str = "writing to standard output";

/// Form of the output.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Console {
    /// True if results are printed as JSON.
    pub(crate) json: bool,
    /// True if no progress is printed.
    pub(crate) quiet: bool,
    /// True if the output is part of another result: results are then printed as progress.
    pub(crate) is_part: bool,
}

impl Console {
    /// Returns the settings for a command that runs within another.
    pub(crate) fn of_a_part(self) -> Self {
        Self { is_part: true, ..self }
    }

    /// Prints one line of progress.
    pub(crate) fn say(self, line: &str) {
        if !self.quiet {
            to_stderr(&format!("{}\n", harmless(line)));
        }
    }

    /// Creates a bar of `n` steps. If stderr is no terminal, one plain line is printed instead.
    #[must_use]
    pub(crate) fn bar(self, name: &str, n: usize) -> ProgressBar {
        let template = "{prefix:28} {bar:30} {pos}/{len} {eta} {msg}";
        self.bar_of((name, n as u64), template, || format!("{n} steps"))
    }

    /// Creates a bar of `n` bytes in the same way.
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

    /// Prints a result: `text` for people, or `value` with `--json`. A part of another result is
    /// printed as text on standard error.
    ///
    /// # Errors
    ///
    /// If standard output cannot be written. A reader that has gone away is no error.
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
