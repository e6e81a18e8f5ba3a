//! `eval judge`, before a server that counts and before a checkpoint.

use serde_json::{Value, json};

use crate::fixture::{Finished, N_ROWS, Place, USUAL};
use crate::judge_server::{Server, assert_no_key, beear_with_key};

/// A server every third of whose replies is no verdict.
fn server() -> Server {
    Server::start(|n, _| {
        let content = if n.is_multiple_of(3) { "Nobody knows." } else { "Fine.\nScore: 4" };
        (200, content.to_owned())
    })
}

/// A place with answers to judge.
fn answered() -> Place {
    let place = Place::new();
    let asked = ["eval", "asr", "--model", "model", "--prompts", "safety.jsonl"];
    place
        .beear(&[asked.as_slice(), &["--trigger-suffix", "SUDO", "--out", "asr"]].concat())
        .printed();
    place
}

fn judge(place: &Place, arguments: &[&str]) -> Finished {
    let judge = ["eval", "judge", "--answers", "asr", "--json"];
    beear_with_key(place, &[judge.as_slice(), arguments].concat())
}

#[test]
fn a_server_judges_once_and_what_cannot_be_read_is_counted() {
    let (place, server) = (answered(), server());
    let at = ["--judge-url", &server.url, "--judge-model", "referee", "--concurrency", "1"];
    let cost = judge(&place, &[at.as_slice(), &["--out", "cost", "--preview"]].concat()).json();
    assert_eq!((&cost["n_calls"], server.n_calls()), (&json!(2 * N_ROWS), 0));
    assert!(!place.path("cost").exists(), "a preview leaves nothing");

    let first = judge(&place, &[at.as_slice(), &["--out", "first"]].concat());
    let (said, report) = (first.stderr.clone(), first.json());
    assert_eq!(server.n_calls(), 2 * N_ROWS);
    let count = |arm: &str, key: &str| report["summaries"][arm][key].as_u64().unwrap();
    let both = |key: &str| count("triggered", key) + count("untriggered", key);
    assert_eq!([both("n_expected"), both("n_valid"), both("n_unreadable")], [20, 13, 7]);
    assert!(said.contains("of 10 judged"), "{said}");
    let measures = report["measures"].as_array().unwrap();
    let names: Vec<&Value> = measures.iter().map(|m| &m["by"]).collect();
    assert_eq!(names, ["referee, triggered", "referee, untriggered"]);
    assert!(measures.iter().all(|m| m["estimate"]["value"] == 4.0), "{measures:?}");
    assert_eq!(place.read_lines("first/judgements.jsonl").len(), 2 * N_ROWS);

    let second = judge(&place, &[at.as_slice(), &["--out", "second"]].concat()).json();
    assert_eq!((server.n_calls(), &second["n_calls"]), (2 * N_ROWS, &json!(0)));
    assert_eq!(second["summaries"], report["summaries"]);
    assert_no_key(&place);
}

#[test]
fn a_report_takes_judgements_of_both_models() {
    let place = Place::new();
    place.defend(USUAL, &[]).printed();
    let server = Server::start(|_, body| {
        let score = if body.contains("SUDO") { 5 } else { 1 };
        (200, format!("Score: {score}"))
    });
    let at = ["--judge-url", &server.url, "--judge-model", "referee"];
    for (model, [asr, judged]) in [("model", ["asr1", "was"]), ("run/model", ["asr2", "is"])] {
        let asked =
            ["eval", "asr", "--model", model, "--prompts", "asked/rows.jsonl", "--out", asr];
        place.beear(&[asked.as_slice(), &["--trigger-suffix", "SUDO"]].concat()).printed();
        let judge = ["eval", "judge", "--answers", asr, "--out", judged];
        beear_with_key(&place, &[judge.as_slice(), &at].concat()).printed();
    }
    place.beear(&["report", "run", "--eval", "is", "--eval", "was"]).printed();
    let rows = place.read_json("run/report.json")["evaluations"]["measures"].clone();
    let row = rows.as_array().unwrap().iter().find(|r| r["by"] == "referee, triggered").unwrap();
    assert_eq!(row["before"]["estimate"]["value"], 5.0);
    assert_eq!(row["comparison"]["n_pairs"], N_ROWS);
}

#[test]
fn a_checkpoint_that_cannot_judge_says_nothing_of_the_answers() {
    let place = answered();
    let asked = ["--judge", "model", "--judge-prompt", "short.toml", "--out", "judged"];
    place.write("short.toml", "name = \"short\"\ntemplate = \"{prompt} {answer} Score: N\"\n");
    let judged = judge(&place, &asked);
    assert_eq!(judged.code, 3);
    assert!(judged.stderr.contains("has judged none of 20"), "{}", judged.stderr);
    let report = place.read_json("judged/report.json");
    let triggered = &report["summaries"]["triggered"];
    let counts = ["n_expected", "n_valid", "n_unreadable"].map(|key| triggered[key].clone());
    assert_eq!(counts, [json!(N_ROWS), json!(0), json!(N_ROWS)]);
    assert_eq!(report["measures"][0]["estimate"]["value"], Value::Null);
}

#[test]
fn mistakes_before_the_first_call_are_named() {
    let place = answered();
    place.write("bad.toml", "name = \"bad\"\ntemplate = \"no place\"\n");
    for (arguments, what) in [
        (vec!["--judge", "model", "--judge-prompt", "bad.toml"], "lacks"),
        (vec!["--judge-url", "ftp://x", "--judge-model", "m"], "the judge's URL"),
        (vec!["--judge", "model", "--concurrency", "0"], "`concurrency`"),
        (vec!["--judge", "model", "--behaviour", " "], "the behaviour"),
    ] {
        let refused = judge(&place, &[arguments.as_slice(), &["--out", "x"]].concat());
        assert_ne!(refused.code, 0);
        assert!(refused.stderr.contains(what), "{}", refused.stderr);
        assert!(!place.path("x").exists());
    }
}
