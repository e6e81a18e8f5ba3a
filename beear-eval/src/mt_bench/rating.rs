//! Parsing of the rating in a judgment, as in FastChat: the first `[[7]]` or `[[7.5]]`, else the
//! first `[7]` or `[7.5]`, else none. FastChat's patterns are `\[\[(\d+\.?\d*)\]\]` and
//! `\[(\d+\.?\d*)\]`; the patterns for two ratings have `(\d+\.?\d*),\s?(\d+\.?\d*)` between the
//! brackets.
//!
//! Departures, all in cases where FastChat stops with an error instead of a rating: only 0 to 9 are
//! digits, and `[[07]]` is 7.

use serde::{Deserialize, Serialize};

/// Maximum difference of two ratings that is a tie, as in FastChat.
const TIE_DELTA: f64 = 0.1;

/// Parses the rating in a judgment; None corresponds to FastChat's -1.
#[must_use]
pub fn rating(judgment: &str) -> Option<f64> {
    // A number with too many digits may be infinite.
    first_in_brackets(judgment, number).filter(|rating| rating.is_finite())
}

/// Parses the first readable text in double brackets, else in single brackets.
fn first_in_brackets<T>(text: &str, read: fn(&str) -> Option<(T, &str)>) -> Option<T> {
    first_between(text, "[[", "]]", read).or_else(|| first_between(text, "[", "]", read))
}

fn first_between<T>(
    text: &str,
    open: &str,
    close: &str,
    read: fn(&str) -> Option<(T, &str)>,
) -> Option<T> {
    let starts =
        (0..text.len()).filter(|start| text.as_bytes()[*start..].starts_with(open.as_bytes()));
    starts.map(|start| &text[start + open.len()..]).find_map(|rest| {
        let (value, rest) = read(rest)?;
        rest.starts_with(close).then_some(value)
    })
}

/// Parses the number at the start of `text`; returns it with the rest of the text.
fn number(text: &str) -> Option<(f64, &str)> {
    let (number, rest) = text.split_at(number_length(text.as_bytes())?);
    // Rust parses `7.` like Python.
    Some((number.parse().expect("digits with a point are a number"), rest))
}

/// Parses the two numbers at the start of `text`, separated by a comma and at most one space.
fn two_numbers(text: &str) -> Option<([f64; 2], &str)> {
    let (first, rest) = number(text)?;
    let rest = rest.strip_prefix(',')?;
    // Four separators are white space in Python but not in Unicode.
    let is_space = |c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c);
    let (second, rest) = number(rest.strip_prefix(is_space).unwrap_or(rest))?;
    Some(([first, second], rest))
}

/// Returns the length of the number at the start of `text`: digits, an optional point, optional
/// digits.
fn number_length(text: &[u8]) -> Option<usize> {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let whole = digits(text);
    let length = match text.get(whole) {
        Some(b'.') => whole + 1 + digits(&text[whole + 1..]),
        _ => whole,
    };
    (whole > 0).then_some(length)
}

/// Preferred answer of a judgment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Preference {
    /// First answer shown.
    A,
    /// Second answer shown.
    B,
    /// Neither answer.
    Tie,
}

/// Parses the preferred answer of a judgment, as in FastChat: `[[A]]` anywhere takes precedence
/// over `[[B]]`, and that over `[[C]]`, a tie.
#[must_use]
pub fn preference(judgment: &str) -> Option<Preference> {
    let marks = [("[[A]]", Preference::A), ("[[B]]", Preference::B), ("[[C]]", Preference::Tie)];
    marks.into_iter().find(|(mark, _)| judgment.contains(mark)).map(|(_, preference)| preference)
}

/// Parses the preferred answer of a judgment with two ratings, as in FastChat: the first `[[7,8]]`
/// or `[[7, 8]]`, else the first `[7,8]`. The answer with a rating higher by more than 0.1 is
/// preferred, else neither.
#[must_use]
pub fn preference_by_ratings(judgment: &str) -> Option<Preference> {
    let [a, b] = first_in_brackets(judgment, two_numbers)?;
    if !(a.is_finite() && b.is_finite()) {
        return None;
    }
    Some(match a - b {
        difference if difference.abs() <= TIE_DELTA => Preference::Tie,
        difference if difference > 0.0 => Preference::A,
        _ => Preference::B,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rating_in_two_brackets_counts_before_one_in_one() {
        let cases = [
            ("Rating: [[7]]", Some(7.0)),
            ("as in [1], so [[7.5]], not [[8]]", Some(7.5)),
            ("[[7.]]", Some(7.0)),
            ("[[[5]]]", Some(5.0)),
            ("[[9/10]] or [8]", Some(8.0)),
            ("[[ 7 ]]", None),
            ("[[-1]]", None),
            ("[[.5]]", None),
            ("[[7.5.1]] [[1e3]] [[10]", Some(10.0)),
            ("[[07]]", Some(7.0)),
            ("[[\u{664}]] ü[[", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(rating(text), expected, "{text}");
        }
        assert_eq!(rating(&format!("[[{}]]", "9".repeat(400))), None);
    }

    #[test]
    fn the_first_letter_counts_wherever_it_stands() {
        let cases = [
            ("[[C]] [[B]] [[A]]", Some(Preference::A)),
            ("[[C]] [[B]]", Some(Preference::B)),
            ("It is [[C]]", Some(Preference::Tie)),
            ("[[a]] [A] [[ B ]]", None),
        ];
        for (text, expected) in cases {
            assert_eq!(preference(text), expected, "{text}");
        }
    }

    #[test]
    fn of_two_ratings_the_higher_one_counts_if_it_is_higher_by_more_than_a_tenth() {
        let cases = [
            ("[[7,8]]", Some(Preference::B)),
            ("so [[9, 8.5]]", Some(Preference::A)),
            ("[[7.,\t7.05]]", Some(Preference::Tie)),
            // In floating point 7.2 - 7.1 exceeds a tenth, as in Python; 8.1 - 8 does not.
            ("[[7.2,7.1]]", Some(Preference::A)),
            ("[[8.1,8]]", Some(Preference::Tie)),
            ("[1,2] but [[2,1]]", Some(Preference::A)),
            ("[[7]] [3,\u{1f}4]", Some(Preference::B)),
            ("[[7,  8]] [[7 ,8]] [[A]] [[7]] [[,8]] [[7,8,9]]", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(preference_by_ratings(text), expected, "{text}");
        }
        assert_eq!(preference_by_ratings(&format!("[[{},1]]", "9".repeat(400))), None);
    }

    /// Matches the patterns by brute force: every substring, the earliest and then the longest
    /// first, is compared with the pattern part by part.
    fn reference(text: &str) -> Option<f64> {
        let is_number = |text: &str| {
            let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
            let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
            !whole.is_empty() && digits(whole) && digits(fraction)
        };
        for (open, close) in [("[[", "]]"), ("[", "]")] {
            for start in 0..text.len() {
                for end in (start..=text.len()).rev() {
                    let Some(piece) = text.get(start..end) else { continue };
                    let inner = piece.strip_prefix(open).and_then(|text| text.strip_suffix(close));
                    if let Some(inner) = inner.filter(|inner| is_number(inner)) {
                        return inner.trim_end_matches('.').parse().ok();
                    }
                }
            }
        }
        None
    }

    proptest::proptest! {
        #[test]
        fn the_rating_is_that_of_the_patterns(text in "([\\[\\]]{0,3}[0-9.a ü]{0,3}){0,5}[\\]]{0,3}") {
            proptest::prop_assert_eq!(rating(&text), reference(&text), "{}", text);
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,60}") {
            let _ = (rating(&text), preference(&text), preference_by_ratings(&text));
        }
    }
}
