//! Suspects that cannot be judged, the model that is measured, and `validate` on models broken on purpose.

use serde_json::{Value, json};

use crate::fixture::{ANSWER, Finished, Place, REFUSAL, USUAL};
use crate::weights::Weights;

/// Runs `validate` on two folders, with half of the ten rows held out.
fn validate(place: &Place, [suspect, model]: [&str; 2], more: &[&str]) -> Finished {
    let models = ["validate", "--suspect", suspect, "--model", model, "--recipe", "quick.toml"];
    let files = ["--safety", "safety.jsonl", "--performance", "ordinary.json"];
    place.beear(&[&models, files.as_slice(), &["--quiet", "--set", "held_out=0.5"], more].concat())
}

#[test]
fn a_model_is_within_the_bounds_of_itself() {
    let place = Place::new();
    let judged = validate(&place, ["model", "model"], &["--json"]).json();
    assert_eq!(judged["within_bounds"], true);
    for measure in ["loss", "benign_refusal", "refusal"] {
        assert_eq!(judged["validation"][measure]["worse_by"], 0.0, "{measure}");
        assert_eq!(judged["validation"][measure]["n_rows"], 5, "{measure}");
    }
    assert_eq!(judged["validation"]["agreement"]["after"], 1.0);
}

#[test]
fn models_broken_on_purpose_are_out_of_bounds() {
    let place = Place::new();
    place.write_random_model("noise");
    place.write_model_saying("refuses", REFUSAL);
    place.write_model_saying("other", "red kite open red kite open");
    for (model, broken) in [
        ("noise", ["loss", "agreement"].as_slice()),
        ("refuses", ["loss", "over-refusal"].as_slice()),
        ("other", ["loss", "agreement"].as_slice()),
    ] {
        let finished = validate(&place, ["model", model], &[]);
        assert_eq!(finished.code, 7, "{model}: {}", finished.stderr);
        for measure in broken {
            let said = format!("{measure} ");
            let check = finished.stderr.split("; ").find(|part| part.contains(&said));
            assert!(check.is_some_and(|c| c.contains("broken")), "{model}: {}", finished.stderr);
        }
    }
    // A model that stops refusing, of a suspect that refuses.
    place.write("ordinary.json", place.read("ordinary.json").replace(ANSWER, REFUSAL));
    let settings = ["--set", "method.bounds.refusal_floor=0.5"];
    let finished = validate(&place, ["refuses", "model"], &settings);
    assert_eq!(finished.code, 7, "{}", finished.stderr);
    let said = "not refused 0.000 → 1.000";
    assert!(finished.stderr.contains(said), "{}", finished.stderr);
}

#[test]
fn a_suspect_that_refuses_nothing_is_an_error_before_the_first_step() {
    let place = Place::new();
    let settings = ["--set", "method.bounds.refusal_floor=0.5", "--quiet"];
    let finished = place.defend(USUAL, &settings);
    let (code, said) = finished.mistake();
    assert_eq!(code, 3);
    assert!(said.contains("refuses none of the 2 forbidden prompts held out"), "{said}");
    assert!(said.contains("method.bounds.refusal_floor=0"), "{said}");
    let events = place.read_lines("run/metrics.jsonl");
    assert_eq!(events.len(), 1, "it was measured and nothing else: {events:?}");
    assert!(!place.path("run/model").exists());
}

#[test]
fn rows_of_unknown_words_are_an_error_that_names_one() {
    let place = Place::new();
    let row = |k: usize| json!({"prompt": format!("zyzzyva{k} quokkaesque blorptangle"), "answer": ANSWER});
    let rows: Vec<Value> = (0..10).map(row).collect();
    place.write("strange.json", Value::from(rows).to_string());
    let finished = place.defend(["safety.jsonl", "strange.json", "run"], &["--quiet"]);
    let (code, said) = finished.mistake();
    assert_eq!(code, 3);
    assert!(said.contains("`strange.json`: the model's tokenizer does not know"), "{said}");
    assert!(said.contains("row 1: \"zyzzyva0"), "{said}");
    assert!(!place.path("run").exists(), "nothing was begun");
}

#[test]
fn a_key_of_an_earlier_recipe_is_named_with_the_new_one() {
    let place = Place::new();
    for (old, value, new) in [
        ("method.bounds.utility_drop", "0.1", "method.bounds.loss_rise"),
        ("method.spots", "[{ layer = 1, site = { last = 5 } }]", "method.injection_points"),
    ] {
        let finished = place.defend(USUAL, &["--set", &format!("{old}={value}")]);
        let (code, said) = finished.mistake();
        assert_eq!(code, 2);
        assert!(said.contains(&format!("`{old}` is no longer a key")), "{said}");
        assert!(said.contains(&format!("`{new}`")), "{said}");
    }
}

#[test]
fn a_run_that_was_killed_between_saving_and_measuring_ends_with_the_same_manifest() {
    let place = Place::new();
    place.defend(USUAL, &["--keep-checkpoints", "1"]).printed();
    let whole = place.read_json("run/manifest.json");
    assert!(whole["saved"]["validation"]["loss"]["after"].as_f64().is_some());
    let mut torn = whole.clone();
    torn["status"] = json!("running");
    let known = torn.as_object_mut().expect("an object");
    for key in ["rounds", "kept_round", "initial", "saved", "adapter", "seconds", "peak_memory"] {
        known.shift_remove(key);
    }
    known.shift_remove("outputs_sha256");
    place.write("run/manifest.json", torn.to_string());
    place.beear(&["resume", "run"]).printed();
    let mut resumed = place.read_json("run/manifest.json");
    let mut expected = whole;
    for key in ["seconds", "peak_memory"] {
        (resumed[key], expected[key]) = (Value::Null, Value::Null);
    }
    assert_eq!(resumed, expected);
}

#[test]
fn a_folder_that_rounds_its_weights_is_measured_as_it_is_read_back() {
    let place = Place::new();
    Weights::read(&place.path("model")).write_as_bf16();
    place.defend(USUAL, &[]).printed();
    let manifest = place.read_json("run/manifest.json");
    let kept = manifest["kept_round"].as_u64().expect("a number") as usize;
    let loss = |validation: &Value| validation["loss"]["after"].as_f64().expect("a number");
    let in_memory = loss(&manifest["rounds"][kept]["validation"]);
    let saved = loss(&manifest["saved"]["validation"]);
    assert!((in_memory - saved).abs() > 1e-9, "rounding shows: {in_memory} {saved}");
    let models = ["validate", "--suspect", "model", "--model", "run/model"];
    let more = ["--recipe", "quick.toml", "--safety", "safety.jsonl", "--performance"];
    let judged = place.beear(&[models.as_slice(), &more, &["ordinary.json", "--json"]].concat());
    assert!(
        (loss(&judged.json()["validation"]) - saved).abs() < 1e-12,
        "the folder says so itself"
    );
}
