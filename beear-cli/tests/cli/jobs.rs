//! What `defend` does when all is well, and what it leaves behind.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use beear_core::perturbation::from_safetensors;
use burn::backend::Flex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::fixture::{ANSWER, N_ROWS, Place, QUICK, REFUSAL, USUAL};

fn sha256(bytes: impl AsRef<[u8]>) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a string takes any text");
        hex
    })
}

/// The weights of a finished run.
fn weights(place: &Place, run: &str) -> Vec<u8> {
    std::fs::read(place.path(run).join("model/model.safetensors")).expect("the run has a model")
}

fn names(files: impl IntoIterator<Item = std::path::PathBuf>) -> BTreeSet<String> {
    files.into_iter().map(|path| path.to_string_lossy().into_owned()).collect()
}

#[test]
fn a_run_leaves_the_model_and_what_was_done() {
    let place = Place::new();
    place.defend(USUAL, &[]).printed();
    let model = names(place.files("model").into_keys());
    let mut expected: BTreeSet<String> = model.iter().map(|name| format!("model/{name}")).collect();
    let records = ["config.resolved.toml", "manifest.json", "metrics.jsonl", "rows.jsonl"];
    let others = [".beear-run", "delta.safetensors", "memory.json", "trainer_state.json"];
    let reports = ["report.html", "report.json"];
    expected.extend(records.iter().chain(&others).chain(&reports).map(|name| (*name).to_owned()));
    let mut found = names(place.files("run").into_keys());
    // Named by the time.
    found.retain(|name| !name.starts_with("tensorboard/events.out.tfevents."));
    assert_eq!(found, expected);
    assert_eq!(place.files("run/tensorboard").len(), 1);

    for (name, content) in place.files("model") {
        let cleaned = std::fs::read(place.path("run/model").join(&name)).unwrap();
        let is_weights = name == Path::new("model.safetensors");
        assert_eq!(cleaned != content, is_weights, "only the weights change: {}", name.display());
    }
    let deltas = std::fs::read(place.path("run/delta.safetensors")).unwrap();
    let deltas = from_safetensors::<Flex>(&deltas, &Default::default()).unwrap();
    assert_eq!(deltas.len(), 1, "the one perturbation of the last round");
}

#[test]
fn every_event_and_every_row_of_a_run_is_on_record() {
    let place = Place::new();
    place.defend(USUAL, &[]).printed();
    let events = place.read_lines("run/metrics.jsonl");
    let count = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    // Two rounds of a perturbation of two steps and two steps on the weights.
    assert_eq!([count("inner_step"), count("entrapped"), count("outer_step")], [4, 2, 4]);
    assert_eq!((count("started"), count("round_ended"), events.len()), (1, 2, 13));

    let rows = place.read_lines("run/rows.jsonl");
    assert_eq!(rows.len(), 2 * N_ROWS);
    for set in ["safety", "performance"] {
        let rows: Vec<&Value> = rows.iter().filter(|row| row["set"] == set).collect();
        let ids: BTreeSet<u64> = rows.iter().filter_map(|row| row["id"].as_u64()).collect();
        assert_eq!(ids, (1..=N_ROWS as u64).collect(), "{set}");
        // A fifth is held out.
        let watched = rows.iter().filter(|row| row["used"] == "watched").count();
        assert_eq!(watched, N_ROWS / 5, "{set}");
    }
}

#[test]
fn the_manifest_names_every_input_by_its_hash() {
    let place = Place::new();
    place.defend(USUAL, &["--set", "method.seed=5"]).printed();
    let manifest = place.read_json("run/manifest.json");
    let mut expected = serde_json::Map::new();
    for (name, content) in place.files("model") {
        expected.insert(name.to_string_lossy().into_owned(), json!(sha256(content)));
    }
    expected.insert("--safety".to_owned(), json!(sha256(place.read("safety.jsonl"))));
    expected.insert("--performance".to_owned(), json!(sha256(place.read("ordinary.json"))));
    expected.insert("--recipe".to_owned(), json!(sha256(QUICK)));
    assert_eq!(manifest["sha256"], Value::Object(expected));
    assert_eq!(manifest["seed"], 5);
    assert_eq!(manifest["backend"], "flex");
    let format = manifest["prompt_format"].as_str().unwrap();
    assert_eq!(manifest["prompt_format_sha256"], sha256(format));
    // The model is always right about ordinary prompts, and knows no refusal.
    let initial = &manifest["initial"];
    assert!(initial["loss"].as_f64().unwrap() < 0.1, "{initial}");
    assert_eq!([&initial["benign_refusal"], &initial["refusal"]], [&json!(0.0), &json!(0.0)]);
    assert_eq!([&initial["n_ordinary"], &initial["n_forbidden"]], [&json!(2), &json!(2)]);
    assert_eq!(manifest["watched"], true);
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_does_not() {
    let place = Place::new();
    for (run, seed) in
        [("one", "method.seed=3"), ("two", "method.seed=3"), ("other", "method.seed=4")]
    {
        place.defend(["safety.jsonl", "ordinary.json", run], &["--set", seed]).printed();
    }
    assert!(weights(&place, "one") == weights(&place, "two"), "the same seed, the same bytes");
    assert!(weights(&place, "one") != weights(&place, "other"), "the seed matters");
    for file in ["delta.safetensors", "metrics.jsonl", "rows.jsonl"] {
        let read = |run: &str| std::fs::read(place.path(run).join(file)).unwrap();
        assert!(read("one") == read("two"), "{file}");
    }
    let manifest = |run: &str| {
        let mut manifest = place.read_json(&format!("{run}/manifest.json"));
        assert!(manifest["seconds"].as_f64().unwrap() > 0.0);
        // What no two runs have alike.
        for key in ["seconds", "peak_memory"] {
            manifest[key] = Value::Null;
        }
        manifest
    };
    assert_eq!(manifest("one"), manifest("two"));
}

#[test]
fn a_run_can_be_repeated_from_its_resolved_recipe() {
    let place = Place::new();
    let settings = ["--preset", "paper", "--set", "method.entrap.norm_bound=0.5"];
    place.defend(USUAL, &settings).printed();
    let usual = ["--safety", "safety.jsonl", "--performance", "ordinary.json", "--model", "model"];
    let recipe = ["defend", "--recipe", "run/config.resolved.toml", "--out", "again"];
    place.beear(&[recipe.as_slice(), &usual].concat()).printed();
    assert!(weights(&place, "run") == weights(&place, "again"));
    assert_eq!(place.read("run/config.resolved.toml"), place.read("again/config.resolved.toml"));
    // Without a recipe the run is another one.
    let floor = "method.bounds.refusal_floor=0";
    let plain = ["defend", "--set", "method.rounds=1", "--set", floor, "--out", "plain"];
    place.beear(&[plain.as_slice(), &usual].concat()).printed();
    assert!(weights(&place, "run") != weights(&place, "plain"));
}

#[test]
fn the_cleaned_model_opens_again_and_answers() {
    let place = Place::new();
    place.defend(USUAL, &[]).printed();
    let seen = place.beear(&["inspect", "--model", "run/model", "--json"]).json();
    assert_eq!(seen, place.beear(&["inspect", "--model", "model", "--json"]).json());
    let answer = place.beear(&["generate", "--model", "run/model", "what colour is the sky ?"]);
    // Four small steps leave the ordinary answer alone, as its agreement says too.
    assert_eq!(answer.printed(), format!("{ANSWER}\n"));
    let manifest = place.read_json("run/manifest.json");
    assert_eq!(manifest["rounds"][1]["validation"]["agreement"]["after"], 1.0);
    assert_eq!(manifest["saved"]["validation"]["agreement"]["after"], 1.0);
    assert_eq!(manifest["saved"]["within_bounds"], true);
}

#[test]
fn data_goes_to_stdout_and_talk_to_stderr() {
    let place = Place::new();
    let finished = place.defend(USUAL, &[]);
    assert!(finished.stderr.contains("removing backdoors: 4 steps\n"), "{}", finished.stderr);
    assert!(finished.stderr.contains("round 2: loss +0."), "{}", finished.stderr);
    let expected = Path::new("run").join("model").display().to_string();
    assert_eq!(finished.printed(), format!("{expected}\n"));
}

#[test]
fn quiet_prints_results_only() {
    let place = Place::new();
    let defended = place.defend(USUAL, &["--quiet"]);
    assert_eq!(defended.stderr, "");
    assert!(!defended.printed().is_empty());
    let arguments = ["eval", "asr", "-q", "--model", "model", "--prompts", "safety.jsonl"];
    let measured = place.beear(&[arguments.as_slice(), &["--out", "eval"]].concat());
    assert_eq!(measured.stderr, "");
    assert!(measured.printed().contains("refusal without trigger"));
}

#[test]
fn with_json_the_manifest_is_printed() {
    let place = Place::new();
    let printed = place.defend(USUAL, &["--json"]).json();
    assert_eq!(printed, place.read_json("run/manifest.json"));
}

#[test]
fn an_older_run_is_replaced_when_asked() {
    let place = Place::new();
    place.defend(USUAL, &[]).printed();
    place.write("run/model/stale.txt", "of the older run");
    let finished = place.defend(USUAL, &[]);
    let (code, said) = finished.mistake();
    assert_eq!(code, 2, "nobody asked");
    assert!(said.contains("--force"), "{said}");
    place.defend(USUAL, &["--force"]).printed();
    assert!(place.path("run/model/model.safetensors").exists());
    assert!(!place.path("run/model/stale.txt").exists());
}

#[test]
fn safe_answers_are_generated_for_rows_that_have_none() {
    let place = Place::new();
    std::fs::remove_dir_all(place.path("model")).unwrap();
    place.write_model_saying("model", REFUSAL);
    // It refuses ordinary prompts too, as its rows say.
    place.write("chat.jsonl", place.read("chat.jsonl").replace(ANSWER, REFUSAL));
    let finished = place.defend(["advbench.csv", "chat.jsonl", "run"], &[]);
    assert!(finished.stderr.contains("generating 10 safe answers"), "{}", finished.stderr);
    finished.printed();
    let manifest = place.read_json("run/manifest.json");
    // The generated answers are the model's own, so it gives each of them.
    assert_eq!(manifest["initial"]["refusal"], 1.0);
    assert_eq!(manifest["initial"]["benign_refusal"], 1.0);
}

#[test]
fn a_generated_answer_that_was_cut_is_reported() {
    let place = Place::new();
    std::fs::remove_dir_all(place.path("model")).unwrap();
    place.write_model_saying("model", REFUSAL);
    place.write("chat.jsonl", place.read("chat.jsonl").replace(ANSWER, REFUSAL));
    let files = ["advbench.csv", "chat.jsonl", "run"];
    let finished = place.defend(files, &["--set", "max_new_tokens=3"]);
    let cut = "10 of them were cut at max_new_tokens = 3 and train without an end";
    assert!(finished.stderr.contains(cut), "{}", finished.stderr);
    finished.printed();
}

#[test]
fn alpaca_and_chat_rows_of_the_same_words_give_the_same_model() {
    let place = Place::new();
    place.defend(["safety.jsonl", "ordinary.json", "alpaca"], &[]).printed();
    place.defend(["safety.jsonl", "chat.jsonl", "chat"], &[]).printed();
    assert!(weights(&place, "alpaca") == weights(&place, "chat"));
}

#[test]
fn preference_and_sharegpt_rows_of_the_same_words_give_the_same_model() {
    let place = Place::new();
    place.defend(["safety.jsonl", "ordinary.json", "usual"], &[]).printed();
    let preference = |row: &Value| {
        let [prompt, chosen, rejected] = ["prompt", "safe", "unwanted"].map(|key| &row[key]);
        json!({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    };
    let rows: Vec<Value> = place.read_lines("safety.jsonl").iter().map(preference).collect();
    place.write("preference.json", Value::from(rows).to_string());
    let conversation = |row: &Value| {
        let [asked, answered] = [0, 1].map(|turn| &row["messages"][turn]["content"]);
        let turns = [("human", asked), ("gpt", answered)];
        json!({"conversations": turns.map(|(from, value)| json!({"from": from, "value": value}))})
    };
    let rows: Vec<Value> = place.read_lines("chat.jsonl").iter().map(conversation).collect();
    place.write("sharegpt.json", Value::from(rows).to_string());
    place.defend(["preference.json", "sharegpt.json", "others"], &[]).printed();
    assert!(weights(&place, "usual") == weights(&place, "others"));
}

#[test]
fn a_model_that_lost_its_answers_is_written_and_ends_with_7() {
    let place = Place::new();
    let rate = "method.remove.learning_rate=10";
    let settings = ["--set", rate, "--set", "held_out=0.5", "--quiet"];
    let finished = place.defend(USUAL, &settings);
    assert_eq!(finished.code, 7, "{}", finished.stderr);
    let said = "error: the cleaned model is out of bounds: ";
    assert!(finished.stderr.starts_with(said), "{}", finished.stderr);
    let agreement =
        finished.stderr.split("; ").find(|check| check.contains("agreement 1.000 → 0."));
    let agreement = agreement.expect("it is among what is broken");
    assert!(agreement.contains("of 5 rows, bound 0.500: broken"), "{agreement}");
    assert!(finished.stderr.lines().nth(1).unwrap().starts_with("hint: "));
    let manifest = place.read_json("run/manifest.json");
    assert_eq!(manifest["rounds"][1]["within_bounds"], false);
    assert_eq!(manifest["saved"]["within_bounds"], false);
    place.beear(&["generate", "--model", "run/model", "hello"]).printed();
}

#[test]
fn a_suspect_that_refuses_ordinary_prompts_is_within_the_bounds_with_its_weights_unmoved() {
    let place = Place::new();
    std::fs::remove_dir_all(place.path("model")).unwrap();
    place.write_model_saying("model", REFUSAL);
    place.write("ordinary.json", place.read("ordinary.json").replace(ANSWER, REFUSAL));
    place.defend(USUAL, &["--set", "method.remove.learning_rate=1e-12"]).printed();
    let manifest = place.read_json("run/manifest.json");
    let benign = &manifest["saved"]["validation"]["benign_refusal"];
    assert_eq!([&benign["before"], &benign["after"]], [&json!(1.0), &json!(1.0)]);
    assert_eq!(benign["worse_by"], 0.0);
}

#[test]
fn bounds_that_so_few_rows_cannot_decide_are_said_and_may_be_rejected() {
    let place = Place::new();
    let finished = place.defend(USUAL, &[]);
    let said = "saved model: over-refusal 0.000 → 0.000, +0.000 [-0.658, +0.658] of 2 rows, bound 0.020: \
                undecided, about 190 rows would decide";
    assert!(finished.stderr.contains(said), "{}", finished.stderr);
    finished.printed();
    let manifest = place.read_json("run/manifest.json");
    assert_eq!(manifest["saved"]["validation"]["benign_refusal"]["verdict"], "undecided");

    let reject = ["--force", "--quiet", "--set", "method.bounds.undecided=reject"];
    let finished = place.defend(USUAL, &reject);
    assert_eq!(finished.code, 7, "{}", finished.stderr);
    assert!(finished.stderr.contains("about 190 rows would decide"), "{}", finished.stderr);
    assert!(finished.stderr.contains("hint: hold out more rows"), "{}", finished.stderr);
}

#[test]
fn where_nothing_is_held_out_nothing_is_measured_and_the_run_says_so() {
    let place = Place::new();
    let finished = place.defend(USUAL, &["--set", "held_out=0"]);
    let said = "held_out = 0: no row is left to validate on, and the bounds cannot be checked\n";
    assert!(finished.stderr.starts_with(said), "{}", finished.stderr);
    assert!(finished.stderr.ends_with("round 2: no row is held out\n"), "{}", finished.stderr);
    assert!(!finished.stderr.contains("loss +"), "{}", finished.stderr);
    finished.printed();
    let rows = place.read_lines("run/rows.jsonl");
    let trained = rows.iter().filter(|row| row["used"] == "trained").count();
    assert_eq!(trained, 2 * N_ROWS);

    // Not measured is null: neither 0 nor within bounds.
    let manifest = place.read_json("run/manifest.json");
    assert_eq!((&manifest["watched"], &manifest["initial"]), (&json!(false), &Value::Null));
    assert_eq!(manifest["saved"], Value::Null);
    let rounds = manifest["rounds"].as_array().unwrap();
    assert_eq!(rounds.len(), 2);
    let events = place.read_lines("run/metrics.jsonl");
    let measured = |event: &&Value| event.get("validation").is_some();
    assert_eq!(events.iter().filter(measured).count(), 3, "the start and two rounds");
    for round in rounds.iter().chain(events.iter().filter(measured)) {
        assert_eq!(round["validation"], Value::Null, "{round}");
        assert_eq!(round["within_bounds"], Value::Null, "{round}");
    }
    assert!(rounds.iter().all(|round| round["entrapments"].is_array()));
}
