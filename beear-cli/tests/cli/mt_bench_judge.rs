//! `eval mt-bench-judge`, before a server whose first replies are not all ratings.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::fixture::{ANSWER, Finished, Place};
use crate::judge_server::{Server, assert_no_key, beear_with_key};

/// Turns that are judged: two of two questions, one of one.
const N_TURNS: usize = 5;

/// A place with questions, the answers of `alpha` in a file and those of `beta` in a run.
fn answered() -> Place {
    let place = Place::new();
    let question = |id: u64, category: &str, turns: &[&str]| {
        json!({"question_id": id, "category": category, "turns": turns, "reference": turns})
            .to_string()
    };
    let questions = [
        question(1, "math", &["ask-1-1", "ask-1-2"]),
        question(2, "writing", &["ask-2-1", "ask-2-2"]),
        question(3, "stem", &["ask-3-1"]),
    ];
    place.write("question.jsonl", questions.join("\n"));
    let answers = |model: &str| {
        let row = |id: u64| {
            let turns = (1..=2).map(|turn| format!("{model}-{id}-{turn}")).collect::<Vec<_>>();
            let choices = json!([{"index": 0, "turns": turns}]);
            json!({"question_id": id, "answer_id": "x", "model_id": "m", "choices": choices})
                .to_string()
        };
        (1..=3).map(row).collect::<Vec<_>>().join("\n")
    };
    place.write("alpha.jsonl", answers("alpha"));
    std::fs::create_dir_all(place.path("run/model_answer")).expect("a new folder");
    place.write("run/model_answer/beta.jsonl", answers("beta"));
    place
}

/// Whether a call is about turn 1 of a model's answer to a question.
fn is_first_turn(body: &str, answer: &str) -> bool {
    body.contains(&format!("{answer}-1")) && !body.contains(&format!("{answer}-2"))
}

fn judge(place: &Place, server: &Server, more: &[&str]) -> Finished {
    let judge =
        ["eval", "mt-bench-judge", "--answers", "alpha.jsonl", "--answers", "run", "--json"];
    let questions = ["--questions", "question.jsonl", "--max-attempts", "1"];
    let at = ["--judge-url", &server.url, "--judge-model", "org/referee"];
    beear_with_key(place, &[judge.as_slice(), &questions, &at, more].concat())
}

fn counts(report: &Value) -> [u64; 5] {
    ["n_expected", "n_valid", "n_unreadable", "n_failed", "n_kept"]
        .map(|key| report["counts"][key].as_u64().unwrap_or_else(|| panic!("{key} in {report}")))
}

/// `script`, where a question is asked for the first time; `Ok` of the good reply afterwards.
fn at_first(
    first: impl Fn(&str) -> Option<(u16, &'static str)> + Send + 'static,
    good: impl Fn(&str) -> &'static str + Send + 'static,
) -> Server {
    let mut known = BTreeSet::new();
    Server::start(move |_, body| {
        let (status, content) = match first(body).filter(|_| known.insert(body.to_owned())) {
            Some(first) => first,
            None => (200, good(body)),
        };
        (status, content.to_owned())
    })
}

#[test]
fn ratings_are_asked_for_once_and_what_failed_again() {
    let first = |body: &str| {
        if is_first_turn(body, "beta-2") {
            return Some((200, "Nobody knows."));
        }
        is_first_turn(body, "alpha-3").then_some((500, ""))
    };
    let good = |body: &str| if body.contains("alpha") { "So: [[4]]" } else { "So: [[8.5]]" };
    let (place, server) = (answered(), at_first(first, good));
    let cost = judge(&place, &server, &["--out", "judged", "--preview"]).json();
    assert_eq!((&cost["n_calls"], server.n_calls()), (&json!(2 * N_TURNS), 0));
    assert!(!place.path("judged").exists(), "a preview leaves nothing");

    let report = judge(&place, &server, &["--out", "judged"]).json();
    assert_eq!((counts(&report), server.n_calls()), ([10, 8, 1, 1, 0], 10));
    let failure = &report["counts"]["failures"][0];
    assert_eq!(
        (&failure["question_id"], &failure["error"]["status"]["status"]),
        (&json!(3), &json!(500))
    );
    let file = "judged/model_judgment/org_referee_single.jsonl";
    let rows = place.read_lines(file);
    let places = |rows: &[Value]| -> Vec<(Value, Value, Value)> {
        rows.iter()
            .map(|r| (r["question_id"].clone(), r["turn"].clone(), r["model"].clone()))
            .collect()
    };
    assert_eq!((rows.len(), &rows[0]["judge"]), (10, &json!(["org/referee", "single-v1"])));
    assert_eq!(rows.iter().filter(|row| row["score"] == -1).count(), 2);
    let [beta, alpha] = [0, 1].map(|k| report["result"]["judges"][0]["models"][k].clone());
    assert_eq!((&beta["model"], &beta["all"]["mean"]), (&json!("beta"), &json!(8.5)));
    assert_eq!((&beta["all"]["n_valid"], &beta["all"]["n_expected"]), (&json!(4), &json!(5)));
    assert_eq!(alpha["categories"]["stem"]["all"]["mean"], Value::Null);
    // The line of alpha has a gap at stem.
    let n_whole = |name: &str| place.read(name).matches("<polygon").count();
    assert_eq!(n_whole("judged/radar.svg"), 1);

    let report = judge(&place, &server, &["--out", "judged"]).json();
    assert_eq!((counts(&report), server.n_calls()), ([10, 10, 0, 0, 8], 12));
    let again = place.read_lines(file);
    assert_eq!(places(&again), places(&rows), "in the order of the calls, none twice");
    let kept = rows.iter().zip(&again).filter(|(row, again)| row == again);
    assert_eq!((kept.count(), n_whole("judged/radar.svg")), (8, 2));

    // The rows alone say what is known.
    std::fs::remove_file(place.path("judge-replies.jsonl")).expect("it is there");
    let report = judge(&place, &server, &["--out", "judged"]).json();
    assert_eq!((counts(&report), server.n_calls()), ([10, 10, 0, 0, 10], 12));
    assert_eq!(place.read_lines(file), again);
    let measures: Vec<&Value> =
        report["measures"].as_array().expect("a list").iter().map(|m| &m["by"]).collect();
    let expected = ["turn 1, alpha", "turn 2, alpha", "turn 1, beta", "turn 2, beta"];
    assert_eq!(
        measures,
        expected.map(|by| json!(format!("org/referee {by}"))).iter().collect::<Vec<_>>()
    );

    let result = ["eval", "mt-bench-result", "--single", file, "--questions", "question.jsonl"];
    let result = place.beear(&[result.as_slice(), &["--radar", "radar.svg", "--json"]].concat());
    assert_eq!(result.json(), report["result"]);
    assert_eq!(place.read("radar.svg"), place.read("judged/radar.svg"));
    assert_no_key(&place);
}

#[test]
fn comparisons_take_two_games_and_a_game_that_failed_is_asked_again_alone() {
    let is_beta_first = |body: &str| body.find("beta-") < body.find("alpha-");
    let first = move |body: &str| {
        if is_first_turn(body, "beta-3") && is_beta_first(body) {
            return Some((200, "I prefer A."));
        }
        (is_first_turn(body, "beta-2") && is_beta_first(body)).then_some((500, ""))
    };
    let good = move |body: &str| if is_beta_first(body) { "[[A]]" } else { "[[B]]" };
    let (place, server) = (answered(), at_first(first, good));
    let mode = ["--mode", "pairwise-baseline", "--baseline", "alpha", "--out", "judged"];
    let tally = |report: &Value| {
        let of = &report["result"]["judges"][0]["models"][0];
        assert_eq!(of["model"], "beta");
        ["win", "loss", "tie", "n_failed", "n_expected"].map(|key| of["all"][key].clone())
    };
    let report = judge(&place, &server, &mode).json();
    assert_eq!((counts(&report), server.n_calls()), ([10, 8, 1, 1, 0], 10));
    assert_eq!(tally(&report), [3, 0, 0, 2, 5].map(|n| json!(n)));
    assert!(!place.path("judged/radar.svg").exists());
    std::fs::remove_file(place.path("judge-replies.jsonl")).expect("it is there");
    let report = judge(&place, &server, &mode).json();
    assert_eq!((counts(&report), server.n_calls()), ([10, 10, 0, 0, 8], 12));
    assert_eq!(tally(&report), [5, 0, 0, 0, 5].map(|n| json!(n)));
    let rows = place.read_lines("judged/model_judgment/org_referee_pair.jsonl");
    assert_eq!(rows.len(), N_TURNS);
    assert!(rows.iter().all(|row| row["g1_winner"] == "model_1" && row["g2_winner"] == "model_1"));

    // Every model with every other is the same here, and another folder asks nothing that is kept.
    let all = judge(&place, &server, &["--mode", "pairwise-all", "--out", "all"]).json();
    assert_eq!(all["result"]["judges"][0]["models"][0]["model"], "beta");
    assert_no_key(&place);
}

#[test]
fn a_checkpoint_that_cannot_judge_leaves_a_picture_without_lines() {
    let place = answered();
    let prompt = |name: &str, template: &str| {
        json!({"name": name, "type": "single", "system_prompt": "", "prompt_template": template,
            "output_format": "[[rating]]"})
        .to_string()
    };
    let prompts = [
        prompt("single-v1", "is it {answer} ?"),
        prompt("single-math-v1", "is it {answer} ?"),
        prompt("single-v1-multi-turn", "is it {answer_2} ?"),
        prompt("single-math-v1-multi-turn", "is it {answer_2} ?"),
    ];
    place.write("prompts.jsonl", prompts.join("\n"));
    let judge = ["eval", "mt-bench-judge", "--answers", "alpha.jsonl", "--judge", "model"];
    let files = ["--questions", "question.jsonl", "--judge-prompts", "prompts.jsonl"];
    let more = ["--max-reply-tokens", "8", "--out", "judged", "--json"];
    let judged = place.beear(&[judge.as_slice(), &files, &more].concat());
    assert_eq!(judged.code, 3);
    assert!(judged.stderr.contains("has judged none of 5"), "{}", judged.stderr);
    let report = place.read_json("judged/report.json");
    assert_eq!((counts(&report), &report["n_calls"]), ([5, 0, 5, 0, 0], &json!(5)));
    let rows = place.read_lines("judged/model_judgment/model_single.jsonl");
    assert!(rows.iter().all(|row| row["judgment"] == ANSWER && row["score"] == -1), "{rows:?}");
    let all = &report["result"]["judges"][0]["models"][0]["all"];
    assert_eq!(
        (&all["mean"], &all["n_valid"], &all["n_expected"]),
        (&Value::Null, &json!(0), &json!(5))
    );
    // The legend's circle alone.
    assert_eq!(place.read("judged/radar.svg").matches("<circle").count(), 1);
}

#[test]
fn two_runs_of_a_model_each_are_compared_question_by_question() {
    let (place, server) = (answered(), at_first(|_| None, |_| "[[7]]"));
    let asked = ["eval", "mt-bench", "--model", "model", "--questions", "question.jsonl"];
    place.beear(&[asked.as_slice(), &["--max-new-tokens", "8", "--out", "mt"]].concat()).printed();
    let judged = |out: &str| {
        let judge = ["eval", "mt-bench-judge", "--answers", "mt", "--questions", "question.jsonl"];
        let at = ["--judge-url", &server.url, "--judge-model", "referee", "--out", out];
        beear_with_key(&place, &[judge.as_slice(), &at].concat()).printed()
    };
    let said = judged("before");
    assert!(said.contains("Judge referee:") && said.contains("As FastChat averages"), "{said}");
    judged("after");
    assert_eq!(server.n_calls(), N_TURNS, "the second run asks nothing");
    let asked = place.read_json("mt/report.json");
    assert_eq!(place.read_json("after/report.json")["prompt_format"], asked["prompt_format"]);
    let compared = place.beear(&["compare", "before", "after", "--json"]).json();
    let by: Vec<&Value> =
        compared["measures"].as_array().expect("a list").iter().map(|m| &m["by"]).collect();
    assert_eq!(by, [&json!("referee turn 1"), &json!("referee turn 2")]);
}

#[test]
fn mistakes_before_the_first_call_are_named() {
    let (place, server) = (answered(), at_first(|_| None, |_| "[[1]]"));
    for (more, code, what) in [
        (vec!["--baseline", "alpha"], 2, "--baseline goes with"),
        (vec!["--answers", "alpha.jsonl"], 2, "two files of answers"),
        (vec!["--answers", "model"], 3, "model_answer"),
        (vec!["--mode", "pairwise-baseline", "--baseline", "gamma"], 3, "`gamma`"),
        (vec!["--judge-prompts", "question.jsonl"], 3, "question.jsonl"),
    ] {
        let more: Vec<&str> = more.into_iter().chain(["--out", "x"]).collect();
        let refused = judge(&place, &server, &more);
        assert_eq!(refused.mistake().0, code, "{what}: {}", refused.stderr);
        assert!(refused.stderr.contains(what), "{}", refused.stderr);
        assert!(!place.path("x").exists());
    }
    assert_eq!(server.n_calls(), 0);
}
