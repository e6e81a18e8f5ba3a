//! Texts near to valid ones, for the tests that no text makes a reader panic. Crates take this file in by its
//! path, in their tests only.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// What stands where it should not: the ends of ranges, other kinds of value, broken brackets and escapes.
const PIECES: [&str; 40] = [
    "",
    "null",
    "true",
    "0",
    "-1",
    "1",
    "0.5",
    "1e999",
    "-1e308",
    "1e-320",
    "NaN",
    "inf",
    "18446744073709551615",
    "9223372036854775808",
    "99999999999999999999999",
    "\"\"",
    "\"x\"",
    "\"..\"",
    "'",
    "\"",
    "\\",
    "\\ud800",
    "\\u0000",
    "\u{0}",
    "\u{1b}[2J",
    "é",
    "\u{feff}",
    "\u{2028}",
    "\n",
    "\r\n",
    " ",
    "{",
    "}",
    "[",
    "]",
    "{}",
    "[]",
    ",",
    ":",
    "=",
];

/// Mostly one of `valid` with a few of its tokens removed, doubled or replaced; now and then any text at all.
pub(crate) fn near(valid: &'static [&'static str]) -> impl Strategy<Value = String> {
    let change = (0_u8..4, any::<Index>(), any::<Index>(), piece());
    let changed = (select(valid), vec(change, 0..6)).prop_map(|(valid, changes)| {
        let mut tokens = tokens(valid);
        for (kind, at, other, piece) in changes {
            if tokens.is_empty() {
                break;
            }
            let (at, other) = (at.index(tokens.len()), other.index(tokens.len()));
            match kind {
                0 => drop(tokens.remove(at)),
                1 => tokens.insert(at, tokens[other].clone()),
                2 => tokens.insert(at, piece),
                _ => tokens[at] = piece,
            }
        }
        tokens.concat()
    });
    prop_oneof![7 => changed, 1 => "\\PC{0,60}"]
}

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![4 => select(&PIECES[..]).prop_map(str::to_owned), 1 => "\\PC{0,8}"]
}

/// Words and numbers whole, every other character by itself.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut in_word = false;
    for c in text.chars() {
        let is_word = c.is_alphanumeric() || c == '_';
        match tokens.last_mut() {
            Some(word) if is_word && in_word => word.push(c),
            _ => tokens.push(c.to_string()),
        }
        in_word = is_word;
    }
    tokens
}
