//! Rules for answers: a measure of helpfulness without a judge, for small models.

use super::answers::Answers;
use super::questions::{Check, Question};
use crate::measure::{Better, Measure};
use crate::scorer::is_exact;

impl Check {
    /// True if `answer` satisfies the rule. Texts are compared with runs of white space as one
    /// space; the number is the last one of the answer.
    #[must_use]
    pub fn is_kept(&self, answer: &str) -> bool {
        let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        match self {
            Self::Contains(text) => plain(answer).contains(&plain(text)),
            Self::Exact(text) => is_exact(answer, text),
            Self::Number(number) => last_number(answer)
                .is_some_and(|found| (found - number).abs() <= 1e-9 * number.abs().max(1.0)),
        }
    }
}

/// Returns the last number in a text: digits with an optional sign before them and an optional
/// decimal point. A comma between digits groups them.
fn last_number(text: &str) -> Option<f64> {
    let text: Vec<char> = text.chars().collect();
    let is_digit = |at: usize| text.get(at).is_some_and(char::is_ascii_digit);
    let last = (0..text.len()).rfind(|&at| is_digit(at))?;
    let joins = |at: usize| ".,".contains(text[at]) && at > 0 && is_digit(at - 1);
    let mut first = last;
    while first > 0 && (is_digit(first - 1) || (is_digit(first) && joins(first - 1))) {
        first -= 1;
    }
    // A hyphen between words and digits, as in `3-4`, is not a sign.
    let is_sign = first > 0 && text[first - 1] == '-';
    let is_alone = first < 2 || text[first - 2].is_whitespace() || "(=:".contains(text[first - 2]);
    let digits: String = text[first..=last].iter().filter(|c| **c != ',').collect();
    let number: f64 = digits.parse().ok()?;
    Some(if is_sign && is_alone { -number } else { number })
}

/// Computes `mt_bench_rules`: the share of turns with rules whose answers satisfy all of them; a
/// missing answer satisfies none.
#[must_use]
pub fn rule_measure(questions: &[Question], answers: &Answers) -> Measure {
    let of_question = |question: &Question| {
        let answer = answers.get(&question.question_id);
        let checks = question.checks.iter().flatten().enumerate();
        let kept = |(turn, checks): (usize, &Vec<Check>)| {
            let said = answer.and_then(|answer| answer.turn(turn + 1));
            let kept = said.is_some_and(|said| checks.iter().all(|check| check.is_kept(said)));
            (!checks.is_empty()).then(|| (question.outcome_id(turn + 1), kept))
        };
        checks.filter_map(kept).collect::<Vec<_>>()
    };
    let outcomes = questions.iter().flat_map(of_question);
    Measure::share(("mt_bench_rules", "rules"), Better::Higher, outcomes)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{parse_answers, parse_questions};
    use super::*;

    #[test]
    fn a_number_is_the_last_one_of_the_answer() {
        for (text, number) in [
            ("2 plus 3 is 5 .", Some(5.0)),
            ("it is -4", Some(-4.0)),
            ("pages 3-4", Some(4.0)),
            ("about 1,234.5 in all.", Some(1234.5)),
            ("x = -0.5.", Some(-0.5)),
            ("none", None),
            ("", None),
            ("7", Some(7.0)),
        ] {
            assert_eq!(last_number(text), number, "{text}");
        }
    }

    #[test]
    fn every_rule_of_a_turn_must_be_kept() {
        let questions = r#"{"question_id": 1, "category": "math", "turns": ["a", "b"],
            "checks": [[{"number": 5}, {"contains": "plus"}], []]}"#;
        let questions = parse_questions(&questions.replace('\n', " "), Path::new("q")).unwrap();
        let rate = |turn: &str| {
            let answer = serde_json::json!({
                "question_id": 1, "answer_id": "x", "model_id": "m", "tstamp": 0.0,
                "choices": [{"index": 0, "turns": [turn, "anything"]}],
            });
            let answers = parse_answers(&answer.to_string(), Path::new("a")).unwrap();
            rule_measure(&questions, &answers).rate().unwrap()
        };
        assert_eq!((rate("2  plus 3 is 5").hits, rate("it is 5").hits, rate("5").n), (1, 0, 1));
        let nothing = rule_measure(&questions, &Answers::new()).rate().unwrap();
        assert_eq!((nothing.hits, nothing.n), (0, 1), "a missing answer keeps no rule");
    }

    proptest::proptest! {
        #[test]
        fn no_answer_makes_a_rule_panic(text in "([0-9]|\\.|,|-| |é|\\PC){0,16}") {
            let _ = last_number(&text);
        }
    }
}
