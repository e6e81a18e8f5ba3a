//! Calls that remain to be made after an earlier run, and the rows of all calls: existing judgments
//! are not requested again.

use std::collections::BTreeMap;
use std::path::Path;

use super::calls::Call;
use super::error::MtBenchError;
use super::judgment::{Judgment, JudgmentKey};
use super::judgments::JudgedBy;
use super::lines::replace;

/// Calls to a judge, with the replies of an earlier run.
#[derive(Clone, Debug)]
pub struct PendingJudgments<'a, R> {
    calls: &'a [Call],
    /// Earlier row of each `N_CALLS` calls, if it is about the same texts.
    earlier: Vec<Option<R>>,
    /// True for each call with a readable reply in its earlier row.
    is_known: Vec<bool>,
}

impl<'a, R: Judgment> PendingJudgments<'a, R> {
    /// Matches `calls` to the judge model `judge` with the rows of an earlier run.
    ///
    /// The calls of each row are adjacent. Of `earlier` rows about the same question, models, turn,
    /// judge and prompt the last is used, if its text is the same, and only its readable replies.
    ///
    /// # Panics
    ///
    /// Panics if the number of calls is not a multiple of the calls of a row.
    #[must_use]
    pub fn new(calls: &'a [Call], earlier: &[R], judge: &str) -> Self {
        assert_eq!(calls.len() % R::N_CALLS, 0, "rows are whole");
        let known: BTreeMap<JudgmentKey<'_>, &R> =
            earlier.iter().map(|row| (row.key(), row)).collect();
        let by = JudgedBy { model: judge, tstamp: 0.0 };
        let earlier_of = |calls: &[Call]| {
            let unanswered: Vec<(&Call, Option<&str>)> =
                calls.iter().map(|call| (call, None)).collect();
            let blank = R::of(&unanswered, by);
            let row = *known.get(&blank.key())?;
            let same = |((asked, _), (now, _)): ((&str, _), (&str, _))| asked == now;
            row.said().into_iter().zip(blank.said()).all(same).then(|| row.clone())
        };
        let earlier: Vec<Option<R>> = calls.chunks_exact(R::N_CALLS).map(earlier_of).collect();
        let is_known = calls.iter().enumerate().map(|(index, call)| {
            let row = earlier[index / R::N_CALLS].as_ref();
            row.is_some_and(|row| call.output_format.is_read(row.said()[index % R::N_CALLS].1))
        });
        let is_known = is_known.collect();
        Self { calls, earlier, is_known }
    }

    /// Returns the calls without a known reply.
    #[must_use]
    pub fn open(&self) -> Vec<&'a Call> {
        let open = self.calls.iter().zip(&self.is_known).filter(|(_, is_known)| !**is_known);
        open.map(|(call, _)| call).collect()
    }

    /// Returns a row for each `N_CALLS` calls, in order, given the `replies` to the open calls,
    /// `None` for a missing reply. An earlier row with only known replies remains unchanged.
    ///
    /// # Panics
    ///
    /// Panics if the numbers of replies and open calls differ.
    #[must_use]
    pub fn rows(&self, replies: &[Option<&str>], by: JudgedBy<'_>) -> Vec<R> {
        let n_open = self.is_known.iter().filter(|is_known| !**is_known).count();
        assert_eq!(replies.len(), n_open, "replies: [n_open]");
        let mut replies = replies.iter().copied();
        let chunks =
            self.calls.chunks_exact(R::N_CALLS).zip(self.is_known.chunks_exact(R::N_CALLS));
        let row = |((calls, is_known), earlier): ((&[Call], &[bool]), &Option<R>)| {
            let said = earlier.as_ref().map(R::said).unwrap_or_default();
            let said = said.into_iter().map(|(_, reply)| Some(reply));
            let said = said.chain(std::iter::repeat(None));
            let answered = calls.iter().zip(is_known).zip(said).map(|((call, is_known), said)| {
                (call, if *is_known { said } else { replies.next().expect("as many as open") })
            });
            let answered: Vec<(&Call, Option<&str>)> = answered.collect();
            match earlier {
                Some(row) if is_known.iter().all(|is_known| *is_known) => row.clone(),
                _ => R::of(&answered, by),
            }
        };
        chunks.zip(&self.earlier).map(row).collect()
    }
}

/// Rewrites a judge's file atomically: the old file is replaced only by the complete new one. The
/// folder must exist.
///
/// # Errors
///
/// Returns [`MtBenchError::Io`] if the file cannot be written.
pub fn write_judgments<R: Judgment>(path: &Path, rows: &[R]) -> Result<(), MtBenchError> {
    replace(path, rows)
}

#[cfg(test)]
mod tests {
    use super::super::calls::{Game, Judged};
    use super::super::judge_prompts::OutputFormat;
    use super::super::judgment::read_judgments;
    use super::super::judgments::{PairJudgment, SingleJudgment, Winner};
    use super::super::question_id::QuestionId;
    use super::*;

    const THEN: JudgedBy<'_> = JudgedBy { model: "j", tstamp: 1.0 };
    const NOW: JudgedBy<'_> = JudgedBy { model: "j", tstamp: 2.0 };

    fn call(id: u64, judged: Judged, output_format: OutputFormat) -> Call {
        Call {
            question_id: QuestionId::Number(id),
            user_prompt: format!("{judged:?} on {id}"),
            judged,
            turn: 1,
            system: String::new(),
            prompt_name: "p".to_owned(),
            output_format,
        }
    }

    fn single(ids: &[u64]) -> Vec<Call> {
        let judged = Judged::Single { model: "m".to_owned() };
        ids.iter().map(|id| call(*id, judged.clone(), OutputFormat::Rating)).collect()
    }

    fn pairs(ids: &[u64]) -> Vec<Call> {
        let game = |game| Judged::Pair { model_1: "a".into(), model_2: "b".into(), game };
        let games = [Game::First, Game::Second].map(game);
        let of = |id: &u64| games.clone().map(|game| call(*id, game, OutputFormat::Letter));
        ids.iter().flat_map(of).collect()
    }

    #[test]
    fn what_was_judged_stays_and_what_failed_is_asked_again() {
        let calls = single(&[1, 2, 3]);
        let fresh = PendingJudgments::<SingleJudgment>::new(&calls, &[], "j");
        assert_eq!(fresh.open().len(), 3);
        let mut first = fresh.rows(&[Some("[[7]]"), Some("hm"), None], THEN);
        assert_eq!(
            first.iter().map(SingleJudgment::rating).collect::<Vec<_>>(),
            [Some(7.0), None, None]
        );
        let calls = single(&[4, 3, 2, 1]);
        let next = PendingJudgments::new(&calls, &first, "j");
        let open: Vec<String> = next.open().iter().map(|c| c.question_id.to_string()).collect();
        assert_eq!(open, ["4", "3", "2"]);
        let rows = next.rows(&[Some("[[4]]"), Some("[[3]]"), None], NOW);
        let found: Vec<_> = rows.iter().map(|row| (row.rating(), row.tstamp)).collect();
        let expected = [(Some(4.0), 2.0), (Some(3.0), 2.0), (None, 2.0), (Some(7.0), 1.0)];
        assert_eq!(found, expected);
        assert_eq!(rows[3], first[0]);
        // No reply of a different judge, or to a different text, is known.
        assert_eq!(PendingJudgments::new(&calls, &rows, "k").open().len(), 4);
        first[0].user_prompt.push('!');
        assert_eq!(PendingJudgments::new(&calls, &first, "j").open().len(), 4);
    }

    #[test]
    fn of_a_comparison_the_game_that_failed_alone_is_asked_again() {
        let calls = pairs(&[1, 2]);
        let replies = [Some("[[A]]"), None, Some("[[B]]"), Some("[[A]]")];
        let first = PendingJudgments::<PairJudgment>::new(&calls, &[], "j").rows(&replies, THEN);
        let next = PendingJudgments::new(&calls, &first, "j");
        assert_eq!(next.open(), [&calls[1]]);
        let rows = next.rows(&[Some("[[B]]")], NOW);
        assert_eq!((rows[0].g1_judgment.as_str(), rows[0].winner()), ("[[A]]", Winner::Model1));
        assert_eq!((rows[0].tstamp, &rows[1]), (2.0, &first[1]));
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j_pair.jsonl");
        let calls = pairs(&[1, 2]);
        for n in [2, 1] {
            let docket = PendingJudgments::<PairJudgment>::new(&calls[..2 * n], &[], "j");
            let rows = docket.rows(&vec![None; 2 * n], NOW);
            write_judgments(&path, &rows).unwrap();
            assert_eq!(read_judgments::<PairJudgment>(&path).unwrap(), rows);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
        let nowhere = folder.path().join("no/j_pair.jsonl");
        let rows: [PairJudgment; 0] = [];
        assert!(matches!(write_judgments(&nowhere, &rows), Err(MtBenchError::Io { .. })));
    }
}
