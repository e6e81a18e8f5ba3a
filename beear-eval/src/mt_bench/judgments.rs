//! Judgments of a judge: `model_judgment/{judge}_single.jsonl` and `{judge}_pair.jsonl` of
//! FastChat.

use serde::{Deserialize, Serialize, Serializer};

use super::calls::{Call, Game, Judged};
use super::question_id::QuestionId;
use super::rating::{Preference, rating};

/// FastChat's value for a missing rating.
const NO_RATING: f64 = -1.0;

/// FastChat's text for a missing reply.
const NO_REPLY: &str = "$ERROR$";

/// Rating of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SingleJudgment {
    /// Id of the question.
    pub question_id: QuestionId,
    /// Name of the model that answered.
    pub model: String,
    /// Names of the judge model and of the judge prompt.
    pub judge: (String, String),
    /// Prompt sent to the judge.
    #[serde(default)]
    pub user_prompt: String,
    /// Reply of the judge; `$ERROR$` if it is missing.
    #[serde(default)]
    pub judgment: String,
    /// Rating, -1 if there is none.
    #[serde(serialize_with = "as_python")]
    pub score: f64,
    /// Number of the turn, from 1.
    pub turn: usize,
    /// Time of the judgment, in seconds since 1970.
    #[serde(default)]
    pub tstamp: f64,
}

/// Winner of a game.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Winner {
    /// Model that is compared.
    #[serde(rename = "model_1")]
    Model1,
    /// Model of the comparison's other answer.
    #[serde(rename = "model_2")]
    Model2,
    /// Neither model.
    Tie,
    /// No verdict of the judge.
    Error,
}

/// Comparison of two answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairJudgment {
    /// Id of the question.
    pub question_id: QuestionId,
    /// Model that is compared.
    pub model_1: String,
    /// Model of the comparison's other answer.
    pub model_2: String,
    /// Winner with `model_1` as A.
    pub g1_winner: Winner,
    /// Winner with `model_2` as A.
    pub g2_winner: Winner,
    /// Names of the judge model and of the judge prompt.
    pub judge: (String, String),
    /// Prompt sent to the judge in the first game.
    #[serde(default)]
    pub g1_user_prompt: String,
    /// Reply of the judge in the first game; `$ERROR$` if it is missing.
    #[serde(default)]
    pub g1_judgment: String,
    /// Prompt sent to the judge in the second game.
    #[serde(default)]
    pub g2_user_prompt: String,
    /// Reply of the judge in the second game; `$ERROR$` if it is missing.
    #[serde(default)]
    pub g2_judgment: String,
    /// Number of the turn, from 1.
    #[serde(default = "first_turn")]
    pub turn: usize,
    /// Time of the judgment, in seconds since 1970.
    #[serde(default)]
    pub tstamp: f64,
}

fn first_turn() -> usize {
    1
}

/// Judge and time of a judgment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JudgedBy<'a> {
    /// Name of the judge model in files.
    pub model: &'a str,
    /// Time of the judgment, in seconds since 1970.
    pub tstamp: f64,
}

impl SingleJudgment {
    /// Records a call and its reply, `None` if the reply is missing.
    ///
    /// # Panics
    ///
    /// Panics if the call is a comparison.
    #[must_use]
    pub fn new(call: &Call, reply: Option<&str>, by: JudgedBy) -> Self {
        let Judged::Single { model } = &call.judged else { panic!("the call rates an answer") };
        Self {
            question_id: call.question_id.clone(),
            model: model.clone(),
            judge: (by.model.to_owned(), call.prompt_name.clone()),
            user_prompt: call.user_prompt.clone(),
            judgment: reply.unwrap_or(NO_REPLY).to_owned(),
            score: reply.and_then(rating).unwrap_or(NO_RATING),
            turn: call.turn,
            tstamp: by.tstamp,
        }
    }

    /// Returns the rating; None if there is none.
    #[must_use]
    pub fn rating(&self) -> Option<f64> {
        // FastChat drops exactly the ratings equal to -1.
        (self.score.to_bits() != NO_RATING.to_bits()).then_some(self.score)
    }
}

impl PairJudgment {
    /// Records the two games of a comparison and their replies, `None` for a missing reply.
    ///
    /// # Panics
    ///
    /// Panics if the calls are not the first and the second game of one comparison.
    #[must_use]
    pub fn new(games: [(&Call, Option<&str>); 2], by: JudgedBy) -> Self {
        let [(first, _), (second, _)] = games;
        let Judged::Pair { model_1, model_2, game: Game::First } = &first.judged else {
            panic!("the first call is a first game")
        };
        let (model_1, model_2) = (model_1.clone(), model_2.clone());
        let expected =
            Judged::Pair { model_1: model_1.clone(), model_2: model_2.clone(), game: Game::Second };
        let of = |call: &Call| (call.question_id.clone(), call.turn, call.prompt_name.clone());
        assert_eq!((of(first), expected), (of(second), second.judged.clone()), "its second game");
        let [(g1_winner, g1_judgment), (g2_winner, g2_judgment)] =
            games.map(|(call, reply)| (winner(call, reply), reply.unwrap_or(NO_REPLY).to_owned()));
        Self {
            question_id: first.question_id.clone(),
            model_1,
            model_2,
            g1_winner,
            g2_winner,
            judge: (by.model.to_owned(), first.prompt_name.clone()),
            g1_user_prompt: first.user_prompt.clone(),
            g1_judgment,
            g2_user_prompt: second.user_prompt.clone(),
            g2_judgment,
            turn: first.turn,
            tstamp: by.tstamp,
        }
    }

    /// Returns the winner of the comparison: a model that wins both games, else a tie.
    ///
    /// A game without a verdict of the judge makes the comparison an error, not a tie.
    #[must_use]
    pub fn winner(&self) -> Winner {
        match (self.g1_winner, self.g2_winner) {
            (Winner::Error, _) | (_, Winner::Error) => Winner::Error,
            (one, two) if one == two => one,
            _ => Winner::Tie,
        }
    }
}

fn winner(call: &Call, reply: Option<&str>) -> Winner {
    let second = matches!(call.judged, Judged::Pair { game: Game::Second, .. });
    match (reply.and_then(|reply| call.output_format.preference(reply)), second) {
        (None, _) => Winner::Error,
        (Some(Preference::Tie), _) => Winner::Tie,
        (Some(Preference::A), false) | (Some(Preference::B), true) => Winner::Model1,
        (Some(Preference::B), false) | (Some(Preference::A), true) => Winner::Model2,
    }
}

/// Writes whole ratings without a decimal point, like Python.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn as_python<S: Serializer>(score: &f64, s: S) -> Result<S::Ok, S::Error> {
    if score.fract() == 0.0 && score.abs() < 1e15 {
        s.serialize_i64(*score as i64)
    } else {
        s.serialize_f64(*score)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::judge_prompts::OutputFormat;
    use super::super::judgment::{append_judgment, parse_judgments, read_judgments};
    use super::*;

    fn call(judged: Judged) -> Call {
        let is_pair = matches!(judged, Judged::Pair { .. });
        Call {
            question_id: QuestionId::Number(81),
            judged,
            turn: 2,
            system: "s".to_owned(),
            user_prompt: "u".to_owned(),
            prompt_name: "p".to_owned(),
            output_format: if is_pair { OutputFormat::Letter } else { OutputFormat::Rating },
        }
    }

    const BY: JudgedBy = JudgedBy { model: "j", tstamp: 1.5 };

    #[test]
    fn a_rating_is_written_as_fastchat_writes_it() {
        let call = call(Judged::Single { model: "m".to_owned() });
        let written =
            |reply| serde_json::to_string(&SingleJudgment::new(&call, reply, BY)).unwrap();
        let expected = concat!(
            r#"{"question_id":81,"model":"m","judge":["j","p"],"user_prompt":"u","#,
            r#""judgment":"[[8]]","score":8,"turn":2,"tstamp":1.5}"#
        );
        assert_eq!(written(Some("[[8]]")), expected);
        assert!(written(Some("[[7.5]]")).contains(r#""score":7.5,"#));
        assert!(written(Some("no")).contains(r#""judgment":"no","score":-1,"#));
        assert!(written(None).contains(r#""judgment":"$ERROR$","score":-1,"#));
        let read: Vec<SingleJudgment> =
            parse_judgments(&written(Some("[[7.5]]")), Path::new("file")).unwrap();
        assert_eq!(read, [SingleJudgment::new(&call, Some("[[7.5]]"), BY)]);
        assert_eq!(SingleJudgment::new(&call, None, BY).rating(), None);
    }

    #[test]
    fn a_model_wins_only_in_both_places() {
        use Winner::{Error, Model1, Model2, Tie};
        let (model_1, model_2) = ("one".to_owned(), "two".to_owned());
        let game =
            |game| call(Judged::Pair { model_1: model_1.clone(), model_2: model_2.clone(), game });
        let (first, second) = (game(Game::First), game(Game::Second));
        let cases = [
            (Some("[[A]]"), Some("[[B]]"), [Model1, Model1, Model1]),
            (Some("[[B]]"), Some("[[A]]"), [Model2, Model2, Model2]),
            (Some("[[A]]"), Some("[[A]]"), [Model1, Model2, Tie]),
            (Some("[[A]]"), Some("[[C]]"), [Model1, Tie, Tie]),
            (Some("[[C]]"), Some("[[C]]"), [Tie, Tie, Tie]),
            (Some("A"), Some("[[B]]"), [Error, Model1, Error]),
            (Some("[[A]]"), None, [Model1, Error, Error]),
        ];
        for (one, two, expected) in cases {
            let judgment = PairJudgment::new([(&first, one), (&second, two)], BY);
            let found = [judgment.g1_winner, judgment.g2_winner, judgment.winner()];
            assert_eq!(found, expected, "{one:?} {two:?}");
        }
        let by_ratings =
            |call: &Call| Call { output_format: OutputFormat::TwoRatings, ..call.clone() };
        let games = [(by_ratings(&first), "[[7,8]] [[A]]"), (by_ratings(&second), "[[7, 7.1]]")];
        let games = [0, 1].map(|game| (&games[game].0, Some(games[game].1)));
        let judgment = PairJudgment::new(games, BY);
        assert_eq!([judgment.g1_winner, judgment.g2_winner], [Model2, Tie]);
        let judgment = PairJudgment::new([(&first, Some("[[A]]")), (&second, None)], BY);
        let written = serde_json::to_string(&judgment).unwrap();
        let expected = concat!(
            r#"{"question_id":81,"model_1":"one","model_2":"two","g1_winner":"model_1","#,
            r#""g2_winner":"error","judge":["j","p"],"g1_user_prompt":"u","g1_judgment":"[[A]]","#,
            r#""g2_user_prompt":"u","g2_judgment":"$ERROR$","turn":2,"tstamp":1.5}"#
        );
        assert_eq!(written, expected);
        assert_eq!(
            parse_judgments::<PairJudgment>(&written, Path::new("file")).unwrap(),
            [judgment]
        );
    }

    #[test]
    fn judgments_are_appended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j_single.jsonl");
        let call = call(Judged::Single { model: "m".to_owned() });
        let judgments = ["[[1]]", "[[2]]"].map(|text| SingleJudgment::new(&call, Some(text), BY));
        for judgment in &judgments {
            append_judgment(&path, judgment).unwrap();
        }
        assert_eq!(read_judgments::<SingleJudgment>(&path).unwrap(), judgments);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[{]?\\PC{0,40}", score in "[-0-9.e\"]{1,6}") {
            let path = Path::new("file");
            let _ = (parse_judgments::<SingleJudgment>(&text, path), parse_judgments::<PairJudgment>(&text, path));
            let row = format!(r#"{{"question_id":1,"model":"m","judge":["a","b"],"score":{score},"turn":1}}"#);
            let _ = parse_judgments::<SingleJudgment>(&row, path).map(|rows| serde_json::to_string(&rows[0]).unwrap());
        }
    }
}
