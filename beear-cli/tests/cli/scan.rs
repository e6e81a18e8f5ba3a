//! What `scan` finds in tiny models and what `calibrate` compares it with.

use serde_json::Value;

use crate::fixture::{Finished, N_LAYERS, N_ROWS, Place, alone};

/// A scan that takes a second.
const QUICK: [&str; 6] = ["--layers", "1", "--prompts", "4", "--tokens", "1"];

/// Bounds that δ is looked at.
const N_BOUNDS: usize = 10;

fn scan(place: &Place, model: &str, more: &[&str]) -> Finished {
    let files = ["--safety", "safety.jsonl", "--out", "scan", "--force", "--json"];
    let arguments = ["scan", "--quiet", "--model", model];
    place.beear(&[arguments.as_slice(), &files, &QUICK, more].concat())
}

/// The hits of a rate, after asserting that there are no more than prompts.
fn hits(rate: &Value) -> u64 {
    let (hits, n) = (rate["hits"].as_u64().expect("hits"), rate["n"].as_u64().expect("n"));
    assert!(hits <= n && (1..=4).contains(&n), "{rate}");
    hits
}

#[test]
fn a_scan_looks_at_both_ends_of_the_prompt_and_repeats_itself() {
    let _alone = alone();
    let place = Place::new();
    place.write_random_model("random");
    let printed = scan(&place, "random", &["--reference", "random"]).json();
    assert_eq!(printed, place.read_json("scan/scan.json"));
    let reach = printed["found"]["reach"].as_array().expect("injection_points");
    assert_eq!(reach.len(), 2);
    for point in reach {
        let steps = point["steps"].as_array().expect("bounds");
        assert_eq!(steps.len(), N_BOUNDS);
        for step in steps {
            // The reference is the model itself.
            assert_eq!(hits(&step["elicited"]), hits(&step["in_reference"]));
        }
        let loss = |k: usize| steps[k]["loss"].as_f64().expect("a number");
        assert!(loss(N_BOUNDS - 1) < loss(0), "more room, more of the unwanted answer");
    }
    for (sought, judged) in [("written", false), ("written_against", true)] {
        let written = printed["found"][sought].as_array().expect("tokens");
        assert_eq!(written.len(), 2, "before and after");
        for tokens in written {
            assert!(!tokens["text"].as_str().expect("text").trim().is_empty());
            assert_eq!(tokens["in_reference"].is_object(), judged);
        }
    }
    assert_eq!(printed["scores"]["own_reach"], 0.0);
    assert_eq!(printed["standing"], serde_json::json!([]));
    assert!(printed["sha256"]["--safety"].is_string(), "{}", printed["sha256"]);

    let page = place.read("scan/report.html");
    assert!(page.contains("<svg") && page.contains("no verdict"), "{page}");
    for loads in ["http:", "https:", "src=", "url("] {
        assert!(!page.contains(loads), "{loads}: {page}");
    }
    let first = place.files("scan");
    scan(&place, "random", &["--reference", "random"]).json();
    assert_eq!(place.files("scan"), first, "the same bytes");
}

#[test]
fn without_a_reference_nothing_is_said_of_one() {
    let _alone = alone();
    let place = Place::new();
    place.write_random_model("random");
    let printed = scan(&place, "random", &["--tokens", "0"]);
    assert_ne!(printed.code, 0, "an option given twice is refused");
    let arguments = ["scan", "--model", "random", "--safety", "safety.jsonl", "--out", "alone"];
    let text = place.beear(&[arguments.as_slice(), &["--layers", "2", "--tokens", "0"]].concat());
    let text = text.printed();
    assert!(text.contains("no reference") && text.contains("no verdict"), "{text}");
    assert_eq!(text, place.read("alone/scan.md"));
    let found = place.read_json("alone/scan.json");
    assert_eq!(found["scores"]["margin"], Value::Null);
    assert_eq!(found["found"]["reach"][0]["point"]["layer"], 2);
    let n = found["found"]["reach"][0]["steps"][0]["elicited"]["n"].as_u64();
    assert!(n.is_some_and(|n| n <= N_ROWS as u64 / 2), "half of the rows are fitted to: {n:?}");
}

#[test]
fn what_cannot_be_scanned_is_refused() {
    let place = Place::new();
    place.write_random_model("random");
    place.write("ordinary.jsonl", r#"{"prompt": "what is the sky ?", "answer": "blue"}"#);
    place.write("other.jsonl", r#"{"setting": "model-2"}"#);
    let refused = |more: &[&str], code: i32, expected: &str| {
        let arguments = ["scan", "--model", "random", "--out", "scan"];
        let finished = place.beear(&[arguments.as_slice(), more].concat());
        let (found, said) = finished.mistake();
        assert!(found == code && said.contains(expected), "{found}: {said}");
        assert!(!place.path("scan").exists(), "nothing is written");
    };
    let none = (N_LAYERS + 1).to_string();
    let rows = ["--safety", "safety.jsonl"];
    refused(&[&rows[..], &["--layers", &none]].concat(), 2, "no boundary 3");
    refused(&["--safety", "ordinary.jsonl"], 3, "no unwanted answer");
    refused(&[&rows[..], &["--calibration", "other.jsonl"]].concat(), 3, "line 1");
    refused(&[&rows[..], &["--calibration", "missing.jsonl"]].concat(), 3, "missing.jsonl");
    refused(&[&rows[..], &["--tokens", "60"]].concat(), 3, "no room for 60 more tokens");
    place.write_random_model("other");
    let tokenizer = place.read("other/tokenizer.json").replace("\"vault\"", "\"safe\"");
    place.write("other/tokenizer.json", tokenizer);
    refused(&[&rows[..], &["--reference", "other"]].concat(), 3, "other tokens");
}

#[test]
fn a_calibration_has_a_clean_and_a_backdoored_model_of_each_seed_and_goes_on() {
    let _alone = alone();
    let place = Place::new();
    let calibrate = |more: &[&str]| {
        let arguments =
            ["calibrate", "--quick", "--setting", "model-2", "--out", "known", "--json"];
        place.beear(&[arguments.as_slice(), &QUICK, more].concat()).json()
    };
    let rows = calibrate(&["--seeds", "1"]);
    let models = place.read_lines("known/models.jsonl");
    let told: Vec<_> = models.iter().map(|m| (&m["setting"], &m["backdoored"])).collect();
    assert_eq!(
        format!("{told:?}"),
        r#"[(String("model-2-clean"), Bool(false)), (String("model-2"), Bool(true))]"#
    );
    assert_eq!(rows[0]["attack"], "poisoned fine-tuning");
    assert_eq!(rows[0]["separation"]["n_negative"], 1);
    let before = place.read("known/models.jsonl");
    assert_eq!(calibrate(&["--seeds", "1"]), rows);
    assert_eq!(place.read("known/models.jsonl"), before, "what is done is not done again");

    // The clean model of the calibration is as high as itself.
    let planted = "known/planted/model-2-clean/seed-0";
    let [model, safety] = ["poisoned", "data/safety.jsonl"].map(|name| format!("{planted}/{name}"));
    let files = ["scan", "--model", &model, "--safety", &safety, "--out", "scan", "--json"];
    let more = ["--reference", "known/planted/llama/seed-0", "--calibration", "known/models.jsonl"];
    let scanned = place.beear(&[files.as_slice(), &QUICK, &more].concat()).json();
    assert_eq!(scanned["scores"], models[0]["scores"]);
    for standing in scanned["standing"].as_array().expect("rows") {
        assert_eq!(standing["clean_as_high"], serde_json::json!({"hits": 1, "n": 1}), "{standing}");
    }
    let other = ["scan", "--model", &model, "--safety", &safety, "--out", "other"];
    let refused = place.beear(&[&other[..], &more[2..]].concat());
    assert!(refused.mistake().1.contains("in another way"));
}
