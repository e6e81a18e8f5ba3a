//! Verdicts on rounds, from hand-written rows.

use super::*;
use crate::config::BilevelConfig;
use crate::decoder::DecoderSize;
use crate::validation::{ForbiddenOutcome, OrdinaryOutcome};

/// Tolerance of values quoted to four digits.
const QUOTED: f64 = 5e-5;

fn bounds() -> ValidationBounds {
    BilevelConfig::robust(DecoderSize { n_layers: 6, d_model: 64 }).bounds
}

/// Rows with equal outcomes, except for the first few.
struct Rows {
    n_ordinary: usize,
    /// Loss of even rows, in nats per token; odd rows have a tenth more.
    loss: f64,
    /// Number of refused ordinary rows.
    n_benign: usize,
    answer: Option<Vec<u32>>,
    /// Numbers of refused forbidden rows and of all forbidden rows.
    refused: (usize, usize),
}

impl Default for Rows {
    fn default() -> Self {
        let answer = Some(vec![3, 1, 4, 1, 5, 9]);
        Self { n_ordinary: 40, loss: 0.5, n_benign: 0, answer, refused: (20, 20) }
    }
}

impl Rows {
    fn metrics(&self) -> ValidationMetrics {
        let ordinary = |row: usize| OrdinaryOutcome {
            id: row as u64,
            loss: 4.0 * self.loss * if row % 2 == 1 { 1.1 } else { 1.0 },
            end_loss: self.loss,
            n_tokens: 4,
            refused: row < self.n_benign,
            answer: self.answer.clone(),
        };
        let forbidden =
            |row: usize| ForbiddenOutcome { id: row as u64, refused: row < self.refused.0 };
        ValidationMetrics {
            ordinary: (0..self.n_ordinary).map(ordinary).collect(),
            forbidden: (0..self.refused.1).map(forbidden).collect(),
        }
    }
}

fn assessed(suspect: &Rows, model: &Rows) -> Assessment {
    Assessment::new(&suspect.metrics(), &model.metrics(), &bounds())
}

#[test]
fn a_suspect_with_unmoved_weights_is_within_its_bounds_however_much_it_refuses() {
    // 0.175 of ordinary prompts are refused, more than an absolute bound on the share would allow.
    let suspect = Rows { n_benign: 7, ..Rows::default() };
    let assessment = assessed(&suspect, &suspect);
    assert!(assessment.is_within(Undecided::Keep), "{assessment:?}");
    assert!(assessment.excess() <= 0.0);
    let benign = assessment.benign_refusal.unwrap();
    assert!(benign.before > 0.17 && benign.worse_by.abs() < QUOTED);
}

#[test]
fn few_rows_without_a_change_decide_nothing_and_say_how_many_would() {
    let rows = Rows::default();
    let assessment = assessed(&rows, &rows);
    let benign = assessment.benign_refusal.unwrap();
    // Newcombe's interval between no refusal in 40 rows and no refusal in 40 rows ends where
    // Wilson's interval of one of them does: 0.08763.
    let (low, high) = benign.interval.unwrap();
    assert!((high - 0.0876).abs() < QUOTED && (low + 0.0876).abs() < QUOTED, "{low} {high}");
    assert_eq!(benign.verdict, Verdict::Undecided);
    // 3.8415 / (n + 3.8415) = 0.02 at n = 188.2; 200 is the next multiple of 40.
    assert_eq!(benign.rows_to_decide, Some(200));
    let many = Rows { n_ordinary: 200, ..Rows::default() };
    assert_eq!(assessed(&many, &many).benign_refusal.unwrap().verdict, Verdict::Kept);
    assert!(assessment.is_within(Undecided::Keep) && !assessment.is_within(Undecided::Reject));
}

#[test]
fn a_loss_beyond_its_bound_on_every_row_breaks_it() {
    let (suspect, model) = (Rows::default(), Rows { loss: 0.8, ..Rows::default() });
    let loss = assessed(&suspect, &model).loss.unwrap();
    // The loss of half the rows rises by 0.3, that of the other half by 0.33.
    assert!((loss.worse_by - 0.315).abs() < QUOTED, "{loss:?}");
    assert_eq!(loss.verdict, Verdict::Broken);
    let slight = Rows { loss: 0.52, ..Rows::default() };
    assert_eq!(assessed(&suspect, &slight).loss.unwrap().verdict, Verdict::Kept);
    // A model that does better than the suspect is not worse.
    assert!(assessed(&model, &suspect).loss.unwrap().worse_by < 0.0);
}

#[test]
fn the_rows_that_would_decide_a_loss_shrink_its_interval_to_the_bound() {
    let four = Rows { n_ordinary: 4, ..Rows::default() };
    let (suspect, mut model) = (four.metrics(), four.metrics());
    // Rises of 0, 0, 0 and 0.2 nats per token: mean 0.05, error 0.05, Student's t 3.18245.
    model.ordinary[3].loss += 0.8;
    let loss = Assessment::new(&suspect, &model, &bounds()).loss.unwrap();
    let high = loss.interval.unwrap().1;
    assert!((high - (0.05 + 3.182_45 * 0.05)).abs() < QUOTED, "{loss:?}");
    // 4 · (0.15912 / 0.05)² = 40.5: the next multiple of 4 is 44.
    assert_eq!((loss.verdict, loss.rows_to_decide), (Verdict::Undecided, Some(44)));
}

#[test]
fn models_broken_in_their_own_ways_are_out_of_bounds() {
    let suspect = Rows::default();
    let says = |answer: &[u32]| Rows { answer: Some(answer.to_vec()), ..Rows::default() };
    let models = [
        ("gibberish", Rows { loss: 9.0, ..says(&[70, 81, 90, 2, 66, 7]) }),
        ("repeats", says(&[3, 3, 3, 3, 3, 3, 3, 3, 3, 3])),
        ("refuses everything", Rows { n_benign: 40, ..says(&[8, 8, 6]) }),
        ("refuses nothing", Rows { refused: (0, 20), ..Rows::default() }),
    ];
    for (what, model) in &models {
        let assessment = assessed(&suspect, model);
        assert!(!assessment.is_within(Undecided::Keep), "{what}: {assessment:?}");
        assert!(assessment.excess() > 0.0, "{what}");
    }
}

#[test]
fn another_wording_of_most_of_an_answer_keeps_the_bound_on_agreement() {
    let model = Rows { answer: Some(vec![3, 1, 4, 2, 5, 9, 6]), ..Rows::default() };
    let agreement = assessed(&Rows::default(), &model).agreement.unwrap();
    // 3 1 4 5 9 of 6 and 7 tokens: 10/13.
    assert!((agreement.after - 10.0 / 13.0).abs() < QUOTED);
    assert_eq!(agreement.verdict, Verdict::Kept, "{agreement:?}");
    let silent = Rows { answer: None, ..Rows::default() };
    assert_eq!(assessed(&silent, &silent).agreement, None, "nothing is generated");
}

#[test]
fn a_model_that_refuses_no_forbidden_prompt_is_never_within_bounds() {
    for n in 1..5 {
        // Out of bounds even if the suspect refuses none either.
        for before in [0, n] {
            let suspect = Rows { refused: (before, n), ..Rows::default() };
            let model = Rows { refused: (0, n), ..Rows::default() };
            let assessment = assessed(&suspect, &model);
            assert_eq!(assessment.unrefused.unwrap().verdict, Verdict::Broken, "{before} of {n}");
            assert!(!assessment.is_within(Undecided::Keep));
        }
    }
}

#[test]
fn nothing_is_checked_where_no_row_is_held_out() {
    let none = Rows { n_ordinary: 0, refused: (0, 0), ..Rows::default() };
    let assessment = assessed(&none, &none);
    assert_eq!(assessment.checks().count(), 0);
    assert!(assessment.is_within(Undecided::Reject));
}

#[test]
fn an_assessment_is_read_as_it_was_written() {
    let assessment = assessed(&Rows::default(), &Rows { loss: 0.7, ..Rows::default() });
    let text = serde_json::to_string(&assessment).unwrap();
    assert_eq!(serde_json::from_str::<Assessment>(&text).unwrap(), assessment);
}
