//! Measures from the judgments of a judge, so that two runs can be compared question by question.

use std::collections::BTreeMap;

use super::judgment::latest;
use super::judgments::{PairJudgment, SingleJudgment, Winner};
use super::question_id::QuestionId;
use super::questions::Question;
use crate::measure::{Better, Measure, Outcome, Statistic};

/// Returns the ratings of a model as measures, one per judge and turn, with an outcome per turn of
/// a question.
///
/// Of rows about the same question, turn, judge and prompt the last is used; ratings with several
/// prompts are averaged, so that every question counts once. Rows about questions outside
/// `questions` are left out.
#[must_use]
pub fn mt_bench_measures(
    judgments: &[SingleJudgment],
    model: &str,
    questions: &[Question],
) -> Vec<Measure> {
    let rows: Vec<&SingleJudgment> = judgments.iter().filter(|row| row.model == model).collect();
    let rows = latest(&rows).into_iter();
    let rated = rows.map(|row| {
        let by = format!("{} turn {}", row.judge.0, row.turn);
        (by, (&row.question_id, row.turn), row.rating())
    });
    measures("mt_bench", rated, questions)
}

/// Returns the comparisons of two models as measures, one per judge, named
/// `JUDGE, MODEL_1 against MODEL_2`, with an outcome per turn of a question: 1 for a win, 0.5 for a
/// tie, 0 for a loss. Rows about questions outside `questions` are left out.
#[must_use]
pub fn pair_measures(judgments: &[PairJudgment], questions: &[Question]) -> Vec<Measure> {
    let rows: Vec<&PairJudgment> = judgments.iter().collect();
    let rows = latest(&rows).into_iter();
    let scored = rows.map(|row| {
        let by = format!("{}, {} against {}", row.judge.0, row.model_1, row.model_2);
        let score = match row.winner() {
            Winner::Model1 => Some(1.0),
            Winner::Tie => Some(0.5),
            Winner::Model2 => Some(0.0),
            Winner::Error => None,
        };
        (by, (&row.question_id, row.turn), score)
    });
    measures("mt_bench_wins", scored, questions)
}

/// Builds a measure for each judge; the outcome of a turn is the mean of its values.
fn measures<'a>(
    name: &str,
    rows: impl Iterator<Item = (String, (&'a QuestionId, usize), Option<f64>)>,
    questions: &[Question],
) -> Vec<Measure> {
    let known: BTreeMap<&QuestionId, &Question> =
        questions.iter().map(|question| (&question.question_id, question)).collect();
    let mut measured: BTreeMap<String, BTreeMap<(&QuestionId, usize), Vec<f64>>> = BTreeMap::new();
    for (by, place, value) in rows {
        let of_it = measured.entry(by).or_default();
        if let Some(value) = value {
            of_it.entry(place).or_default().push(value);
        }
    }
    let outcome = |((id, turn), values): ((&QuestionId, usize), Vec<f64>)| {
        let value = values.iter().sum::<f64>() / values.len() as f64;
        Some(Outcome { id: known.get(id)?.outcome_id(turn), value, weight: 1.0 })
    };
    let measure = |(by, values): (String, BTreeMap<_, _>)| Measure {
        name: name.to_owned(),
        by,
        statistic: Statistic::Mean,
        better: Better::Higher,
        outcomes: values.into_iter().filter_map(outcome).collect(),
    };
    measured.into_iter().map(measure).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(prompt: &str) -> (String, String) {
        ("j".to_owned(), prompt.to_owned())
    }

    fn row(id: u64, turn: usize, (prompt, score): (&str, f64)) -> SingleJudgment {
        SingleJudgment {
            question_id: QuestionId::Number(id),
            model: "m".to_owned(),
            judge: judge(prompt),
            user_prompt: String::new(),
            judgment: String::new(),
            score,
            turn,
            tstamp: 0.0,
        }
    }

    fn outcomes(measures: &[Measure]) -> Vec<(&str, Vec<(&str, f64)>)> {
        measures
            .iter()
            .map(|m| (&*m.by, m.outcomes.iter().map(|o| (place(&o.id), o.value)).collect()))
            .collect()
    }

    /// Returns the question and the turn of an outcome's id.
    fn place(id: &str) -> &str {
        id.split_once('#').expect("it carries a hash").0
    }

    /// Builds questions 1 to 9 with two turns.
    fn questions() -> Vec<Question> {
        let question = |id: u64| Question {
            question_id: QuestionId::Number(id),
            category: "math".to_owned(),
            turns: vec![format!("a{id}"), format!("b{id}")],
            reference: None,
            required_temperature: None,
            checks: None,
        };
        (1..=9).map(question).collect()
    }

    #[test]
    fn a_measure_has_an_outcome_per_question_and_turn() {
        let rows = [
            row(1, 1, ("p", 8.0)),
            row(1, 1, ("p", 5.0)),
            row(1, 1, ("q", 6.0)),
            row(2, 1, ("p", -1.0)),
            row(1, 2, ("p", 7.5)),
            row(9, 2, ("p", 9.0)),
        ];
        let questions = questions();
        let measures = mt_bench_measures(&rows, "m", &questions);
        let expected =
            [("j turn 1", vec![("1/1", 5.5)]), ("j turn 2", vec![("1/2", 7.5), ("9/2", 9.0)])];
        assert_eq!(outcomes(&measures), expected);
        assert!(measures.iter().all(|m| (&*m.name, m.better) == ("mt_bench", Better::Higher)));
        assert!(mt_bench_measures(&rows[3..4], "m", &questions)[0].outcomes.is_empty());
        assert!(mt_bench_measures(&rows, "n", &questions).is_empty());
        assert!(mt_bench_measures(&rows, "m", &[])[0].outcomes.is_empty(), "no question");
    }

    #[test]
    fn a_comparison_is_won_lost_or_half_won() {
        use Winner::{Error, Model1, Model2};
        let row = |id: u64, [g1_winner, g2_winner]: [Winner; 2]| PairJudgment {
            question_id: QuestionId::Number(id),
            model_1: "a".to_owned(),
            model_2: "b".to_owned(),
            g1_winner,
            g2_winner,
            judge: judge("p"),
            g1_user_prompt: String::new(),
            g1_judgment: String::new(),
            g2_user_prompt: String::new(),
            g2_judgment: String::new(),
            turn: 1,
            tstamp: 0.0,
        };
        let rows = [
            row(1, [Model2, Model2]),
            row(1, [Model1, Model1]),
            row(2, [Model1, Model2]),
            row(3, [Error, Model1]),
            row(4, [Model2, Model2]),
        ];
        let expected = [("j, a against b", vec![("1/1", 1.0), ("2/1", 0.5), ("4/1", 0.0)])];
        assert_eq!(outcomes(&pair_measures(&rows, &questions())), expected);
    }
}
