//! The rating in a judgement, as FastChat finds it: the first `[[7]]` or `[[7.5]]`, else the first `[7]`
//! or `[7.5]`, else none. Its patterns are `\[\[(\d+\.?\d*)\]\]` and `\[(\d+\.?\d*)\]`; those of two
//! ratings have `(\d+\.?\d*),\s?(\d+\.?\d*)` between the brackets.
//!
//! Departures, all where FastChat stops with an error instead of a rating: digits other than 0 to 9 are
//! no digits here, and `[[07]]` is 7.

use serde::{Deserialize, Serialize};

/// Ratings no further apart are a tie, as in FastChat.
const TIE_DELTA: f64 = 0.1;

/// The rating in a judgement; none is what FastChat writes as -1.
#[must_use]
pub fn rating(judgment: &str) -> Option<f64> {
    // Of more digits than a rating has, a number may be too large to be one.
    first_in_brackets(judgment, number).filter(|rating| rating.is_finite())
}

/// What is first between two brackets, else between one, and can be read.
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

/// The number that `text` starts with, and what follows it.
fn number(text: &str) -> Option<(f64, &str)> {
    let (number, rest) = text.split_at(number_length(text.as_bytes())?);
    // Rust reads `7.` as Python does.
    Some((number.parse().expect("digits with a point are a number"), rest))
}

/// The two numbers that `text` starts with, a comma and perhaps one space between them.
fn two_numbers(text: &str) -> Option<([f64; 2], &str)> {
    let (first, rest) = number(text)?;
    let rest = rest.strip_prefix(',')?;
    // Four separators are white space to Python and not to Unicode.
    let is_space = |c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c);
    let (second, rest) = number(rest.strip_prefix(is_space).unwrap_or(rest))?;
    Some(([first, second], rest))
}

/// The length of the number that `text` starts with: digits, perhaps a point, perhaps digits.
fn number_length(text: &[u8]) -> Option<usize> {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let whole = digits(text);
    let length = match text.get(whole) {
        Some(b'.') => whole + 1 + digits(&text[whole + 1..]),
        _ => whole,
    };
    (whole > 0).then_some(length)
}

/// Which of two answers a judgement prefers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Preference {
    /// The one shown first.
    A,
    /// The one shown second.
    B,
    /// Neither.
    Tie,
}

/// Which answer a judgement prefers, as FastChat finds it: `[[A]]` anywhere counts before `[[B]]`, and
/// that before `[[C]]`, a tie.
#[must_use]
pub fn preference(judgment: &str) -> Option<Preference> {
    let marks = [("[[A]]", Preference::A), ("[[B]]", Preference::B), ("[[C]]", Preference::Tie)];
    marks.into_iter().find(|(mark, _)| judgment.contains(mark)).map(|(_, preference)| preference)
}

/// Which answer a judgement of two ratings prefers, as FastChat finds it: the first `[[7,8]]` or `[[7, 8]]`,
/// else the first `[7,8]`; the answer rated higher by more than 0.1, else neither.
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
            // As floats 7.2 - 7.1 is above a tenth, as in Python; 8.1 - 8 is not.
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

    /// The patterns by brute force: every piece of the text, the earliest and of those the longest, is
    /// compared with the pattern part by part.
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
