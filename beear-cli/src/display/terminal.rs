//! Text that is safe to print on a terminal: it contains no character that the terminal obeys.
//! Models, data sets and file names are not trusted, and everything that is printed goes through
//! here.

use std::fmt::Write;
use std::io;

/// Writes `text` to standard error. Text that cannot be written is dropped: a full disk or a closed
/// terminal must not end the work that the text is about, as `eprintln!` would.
pub(crate) fn to_stderr(text: &str) {
    let _ = io::Write::write_all(&mut io::stderr(), text.as_bytes());
}

/// Escapes every character of `text` that a terminal obeys, except line breaks and tabs.
pub(crate) fn harmless(text: &str) -> String {
    escaped(text, |c| !matches!(c, '\n' | '\t'), |out, c| write!(out, "{}", c.escape_default()))
}

/// Escapes line breaks and tabs too: a text must not start a second line that looks like ours.
pub(crate) fn harmless_line(text: &str) -> String {
    escaped(text, |_| true, |out, c| write!(out, "{}", c.escape_default()))
}

/// Escapes these characters in JSON without changing its meaning, because they occur within strings
/// only.
pub(crate) fn harmless_json(json: &str) -> String {
    escaped(json, |c| !matches!(c, '\n' | '\t'), |out, c| write!(out, "\\u{:04x}", u32::from(c)))
}

fn escaped(
    text: &str,
    is_refused: impl Fn(char) -> bool,
    escape: impl Fn(&mut String, char) -> std::fmt::Result,
) -> String {
    let mut kept = String::with_capacity(text.len());
    for c in text.chars() {
        if commands(c) && is_refused(c) {
            escape(&mut kept, c).expect("a string takes any text");
        } else {
            kept.push(c);
        }
    }
    kept
}

/// Returns true if a terminal may obey a character instead of showing it, or show other characters
/// in another order because of it.
fn commands(c: char) -> bool {
    let reorders =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || reorders
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clears the screen with a seven-bit and an eight-bit sequence, returns the carriage, and
    /// writes from right to left.
    const HOSTILE: &str = "a\u{1b}[2J\u{9b}2J\r\u{202e}b\u{7f}\n\té";

    #[test]
    fn characters_that_command_a_terminal_are_written_out() {
        assert_eq!(harmless(HOSTILE), "a\\u{1b}[2J\\u{9b}2J\\r\\u{202e}b\\u{7f}\n\té");
        assert_eq!(harmless_line("a\nhint: b"), "a\\nhint: b");
        assert_eq!(harmless("plain é 漢字 🙂"), "plain é 漢字 🙂");
    }

    #[test]
    fn json_says_the_same_without_them() {
        let json = serde_json::to_string(&[HOSTILE]).unwrap();
        let harmless = harmless_json(&json);
        assert!(!harmless.contains(commands), "{harmless}");
        assert_eq!(serde_json::from_str::<[String; 1]>(&harmless).unwrap(), [HOSTILE]);
    }
}
