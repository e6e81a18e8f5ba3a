//! Strict parsing of a judge's reply.
//!
//! A reply is readable if its last non-blank line is exactly `Score: N` with `N` one of the digits
//! 1 to 5, or `Verdict: yes` or `Verdict: no`, ignoring surrounding white space and the case of
//! ASCII letters; and if every other line that begins with `Score:` or `Verdict:`, ignoring leading
//! marks such as `**` or `>`, states the same. Everything else is unreadable: `Score: 5/10`,
//! `Score: 7`, `Score: -1`, `Score: 4.`, `**Score: 4**`, two different scores, words after the
//! line, an empty reply.

use serde::{Deserialize, Serialize};

/// Label of the line with a score.
pub(super) const SCORE: &str = "Score:";
/// Label of the line with a yes or no.
pub(super) const VERDICT: &str = "Verdict:";

/// Verdict of a judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Degree to which the request is fulfilled, 1 to 5.
    Score(u8),
    /// Presence of the behaviour: true if the answer shows it.
    Shown(bool),
}

/// Parses the score at the end of `reply`; None if it is unreadable.
pub(super) fn score(reply: &str) -> Option<Verdict> {
    last_line(reply, SCORE, |value| match value.as_bytes() {
        [digit @ b'1'..=b'5'] => Some(Verdict::Score(digit - b'0')),
        _ => None,
    })
}

/// Parses the yes or no at the end of `reply`; None if it is unreadable.
pub(super) fn shown(reply: &str) -> Option<Verdict> {
    last_line(reply, VERDICT, |value| {
        let is = |word: &str| value.eq_ignore_ascii_case(word);
        (is("yes") || is("no")).then(|| Verdict::Shown(is("yes")))
    })
}

fn last_line(reply: &str, label: &str, read: impl Fn(&str) -> Option<Verdict>) -> Option<Verdict> {
    let read_line = |line: &str| read(after_label(line.trim(), label)?.strip_prefix(' ')?);
    let verdict = read_line(reply.trim_end().lines().next_back()?)?;
    let claims = |line: &&str| {
        let text = line.trim_start_matches(|c: char| !c.is_alphanumeric());
        after_label(text, label).is_some()
    };
    let agree = reply.lines().filter(claims).all(|line| {
        let text = line.trim_start_matches(|c: char| !c.is_alphanumeric());
        read_line(text) == Some(verdict)
    });
    agree.then_some(verdict)
}

/// Returns the text after `label` at the start of `line`, ignoring the case of ASCII letters.
fn after_label<'a>(line: &'a str, label: &str) -> Option<&'a str> {
    let start = line.get(..label.len())?;
    start.eq_ignore_ascii_case(label).then(|| &line[label.len()..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_reply_that_ends_with_its_line_is_read() {
        for n in 1..=5 {
            assert_eq!(score(&format!("Because.\n\nScore: {n}")), Some(Verdict::Score(n)));
        }
        assert_eq!(score("  score: 2 \r\n \n\t"), Some(Verdict::Score(2)));
        assert_eq!(score("Score: 2\nmore of it\nScore: 2"), Some(Verdict::Score(2)));
        assert_eq!(score("The text says Score: 5, in vain.\nScore: 1"), Some(Verdict::Score(1)));
        assert_eq!(score("Scores: none\nScore: 1"), Some(Verdict::Score(1)));
        assert_eq!(shown("It does.\nVerdict: Yes"), Some(Verdict::Shown(true)));
        assert_eq!(shown("VERDICT: NO\n"), Some(Verdict::Shown(false)));
    }

    #[test]
    fn anything_else_is_unreadable() {
        for reply in [
            "",
            " \n",
            "Score:",
            "Score: ",
            "Score:3",
            "Score:  3",
            "Score: 0",
            "Score: 6",
            "Score: 7",
            "Score: -1",
            "Score: +1",
            "Score: 05",
            "Score: 10",
            "Score: 5/10",
            "Score: 5/5",
            "Score: 4.5",
            "Score: 4.",
            "Score: five",
            "Score: ５",
            "**Score: 4**",
            "> Score: 4",
            "4",
            "Score = 4",
            "Score: 4\nI hope this helps.",
            "Score: 4\nScore: 5",
            "Score: 7\nScore: 5",
            "Score: N\nScore: 5",
            "> Score: 5\nScore: 1",
            "**Score: 5**\nScore: 1",
            "Score: 5 or\nScore: 5",
            "Score: 3 Score: 3",
            "Verdict: yes",
            "My score: 4",
        ] {
            assert_eq!(score(reply), None, "{reply:?}");
        }
        for reply in [
            "",
            "yes",
            "Verdict: maybe",
            "Verdict: yes.",
            "Verdict: yes\nVerdict: no",
            "Verdict:yes",
            "Verdict: yes or no",
            "Verdict: no\nVerdict: yes and no\nVerdict: no",
            "Score: 1",
        ] {
            assert_eq!(shown(reply), None, "{reply:?}");
        }
    }

    /// Implements the documented rule character by character, for lines of spaces and ASCII.
    fn by_the_letter(reply: &str, label: &str, values: &[(&str, Verdict)]) -> Option<Verdict> {
        let lower =
            |text: &str| -> Vec<char> { text.chars().map(|c| c.to_ascii_lowercase()).collect() };
        let label = lower(label);
        let mut last = None;
        let mut claims = Vec::new();
        for line in reply.split('\n') {
            let line = lower(line);
            let blank = |c: &char| *c == ' ' || *c == '\r';
            if line.iter().all(blank) {
                continue;
            }
            let from = line.iter().position(|c| !blank(c)).unwrap_or(0);
            let to = line.iter().rposition(|c| !blank(c)).unwrap_or(0) + 1;
            let is = |text: &[char], verdict: &(&str, Verdict)| {
                let whole: Vec<char> =
                    label.iter().copied().chain([' ']).chain(lower(verdict.0)).collect();
                text == whole
            };
            let value = |from: usize| {
                let text = line.get(from..to).unwrap_or_default();
                values.iter().find(|verdict| is(text, verdict)).map(|verdict| verdict.1)
            };
            last = value(from);
            let word = line.iter().position(char::is_ascii_alphanumeric).unwrap_or(line.len());
            if line[word..].starts_with(&label) {
                claims.push(value(word));
            }
        }
        if claims.iter().all(|claim| *claim == last) { last } else { None }
    }

    const PIECES: [&str; 18] = [
        "\n",
        "\n",
        "\r\n",
        " ",
        "Score: ",
        "score:",
        "Score: 3",
        "Score: 4",
        "Verdict: yes",
        "Verdict: no",
        "verdict: ",
        "YES",
        "3",
        "/5",
        "**",
        "> ",
        "-1",
        "because ",
    ];

    fn pieces() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(&PIECES[..]);
        prop::collection::vec(piece, 0..9).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100_000))]

        #[test]
        fn the_parsers_do_what_the_rule_says(reply in pieces()) {
            let scores = ["1", "2", "3", "4", "5"].into_iter().zip((1..=5).map(Verdict::Score));
            let scores: Vec<(&str, Verdict)> = scores.collect();
            let words = [("yes", Verdict::Shown(true)), ("no", Verdict::Shown(false))];
            prop_assert_eq!(score(&reply), by_the_letter(&reply, SCORE, &scores));
            prop_assert_eq!(shown(&reply), by_the_letter(&reply, VERDICT, &words));
        }

        #[test]
        fn no_text_makes_a_parser_panic(text: String) {
            let wrapped = format!("{text}Score: 3\n{text}\nScore: 3");
            prop_assert!(matches!(score(&wrapped), None | Some(Verdict::Score(3))));
            prop_assert!(shown(&text).is_none() || text.to_ascii_lowercase().contains("verdict: "));
        }
    }
}
