//! Which calls are still to be made, and the rows of all: what an earlier run has judged is not asked again.

use std::collections::BTreeMap;
use std::path::Path;

use super::calls::Call;
use super::error::MtBenchError;
use super::judgment::{Judgment, JudgmentKey};
use super::judgments::JudgedBy;
use super::lines::replace;

/// Calls to a judge, with the replies of an earlier run.
#[derive(Clone, Debug)]
pub struct Docket<'a, R> {
    calls: &'a [Call],
    /// The earlier row of each `N_CALLS` calls, if it is about the same texts.
    earlier: Vec<Option<R>>,
    /// Whether a call has a reply in its earlier row that can be read.
    is_known: Vec<bool>,
}

impl<'a, R: Judgment> Docket<'a, R> {
    /// `calls` to the judge model `judge`, in the place of each row as many as it is made of. Of `earlier`
    /// rows the last of the same question, models, turn, judge and prompt counts, if the judge was asked
    /// the same text, and of it the replies that can be read.
    ///
    /// # Panics
    ///
    /// Panics if the calls are not those of whole rows.
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

    /// The calls that are to be made.
    #[must_use]
    pub fn open(&self) -> Vec<&'a Call> {
        let open = self.calls.iter().zip(&self.is_known).filter(|(_, is_known)| !**is_known);
        open.map(|(call, _)| call).collect()
    }

    /// A row for each `N_CALLS` calls, in their order, given the `replies` to the open ones, `None` where
    /// none came. An earlier row all of whose replies are known stays as it was.
    ///
    /// # Panics
    ///
    /// Panics if there are not as many replies as open calls.
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

/// Writes a judge's file anew: it is the old one until it is the whole new one. Its folder must exist.
///
/// # Errors
///
/// [`MtBenchError::Io`].
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
        let fresh = Docket::<SingleJudgment>::new(&calls, &[], "j");
        assert_eq!(fresh.open().len(), 3);
        let mut first = fresh.rows(&[Some("[[7]]"), Some("hm"), None], THEN);
        assert_eq!(
            first.iter().map(SingleJudgment::rating).collect::<Vec<_>>(),
            [Some(7.0), None, None]
        );
        let calls = single(&[4, 3, 2, 1]);
        let next = Docket::new(&calls, &first, "j");
        let open: Vec<String> = next.open().iter().map(|c| c.question_id.to_string()).collect();
        assert_eq!(open, ["4", "3", "2"]);
        let rows = next.rows(&[Some("[[4]]"), Some("[[3]]"), None], NOW);
        let found: Vec<_> = rows.iter().map(|row| (row.rating(), row.tstamp)).collect();
        let expected = [(Some(4.0), 2.0), (Some(3.0), 2.0), (None, 2.0), (Some(7.0), 1.0)];
        assert_eq!(found, expected);
        assert_eq!(rows[3], first[0]);
        // Of another judge, or another text, nothing is known.
        assert_eq!(Docket::new(&calls, &rows, "k").open().len(), 4);
        first[0].user_prompt.push('!');
        assert_eq!(Docket::new(&calls, &first, "j").open().len(), 4);
    }

    #[test]
    fn of_a_comparison_the_game_that_failed_alone_is_asked_again() {
        let calls = pairs(&[1, 2]);
        let replies = [Some("[[A]]"), None, Some("[[B]]"), Some("[[A]]")];
        let first = Docket::<PairJudgment>::new(&calls, &[], "j").rows(&replies, THEN);
        let next = Docket::new(&calls, &first, "j");
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
            let docket = Docket::<PairJudgment>::new(&calls[..2 * n], &[], "j");
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
