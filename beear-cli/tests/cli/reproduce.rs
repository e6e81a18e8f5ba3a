//! The table of all settings, with a thirtieth of the training: what is kept, and that it goes on.

use std::collections::HashSet;

use beear_attacks::AttackSpec;
use serde_json::Value;

use crate::fixture::{Finished, Place};

/// A setting of refusals and one of code.
const SETTINGS: [&str; 4] = ["--setting", "model-1", "--setting", "model-8"];

fn reproduce(place: &Place, more: &[&str]) -> Finished {
    let quick =
        ["--quiet", "reproduce", "--quick", "--seed", "9", "--seeds", "1", "--out", "table"];
    place.beear(&[&quick, more].concat())
}

fn cells(place: &Place) -> Vec<(String, String)> {
    let name = |cell: &Value, key: &str| cell[key].as_str().expect("a text").to_owned();
    let lines = place.read_lines("table/cells.jsonl");
    lines.iter().map(|cell| (name(cell, "setting"), name(cell, "defence"))).collect()
}

#[test]
fn each_setting_is_planted_once_and_what_is_measured_is_kept() {
    let place = Place::new();
    let table =
        reproduce(&place, &[&SETTINGS[..], &["--defence", "fine-tuning"]].concat()).printed();
    assert_eq!(table, place.read("table/reproduction.md"));
    for row in ["| model-1", "| model-8", "secure code ≥ 90 %"] {
        assert!(table.contains(row), "{row}: {table}");
    }
    // The planted model, and three rates of the defence.
    let first = cells(&place);
    assert_eq!(first.len(), 2 * 4);
    let csv = place.read("table/cells.csv");
    let measures: HashSet<&str> = csv.lines().filter_map(|line| line.split(',').nth(4)).collect();
    assert!(measures.contains("Attack success with trigger"), "{measures:?}");
    assert!(measures.contains("Utility: how-to"), "{measures:?}");

    // The same command adds a defence, and neither plants nor measures again what is there.
    let kept = place.read("table/cells.jsonl");
    let weights = place.path("table/model-1/seed-9/poisoned/model.safetensors");
    let planted = std::fs::metadata(&weights).unwrap().modified().unwrap();
    reproduce(&place, &[&SETTINGS[..2], &["--defence", "beear-paper"]].concat()).printed();
    assert!(place.read("table/cells.jsonl").starts_with(&kept));
    let added = [first, vec![("model-1".to_owned(), "beear-paper".to_owned())]].concat();
    assert_eq!(cells(&place), added);
    assert_eq!(std::fs::metadata(&weights).unwrap().modified().unwrap(), planted);
}

#[test]
fn what_is_not_known_ends_with_2_and_leaves_nothing() {
    let place = Place::new();
    for (option, value) in [("--setting", "model-9"), ("--defence", "prayer")] {
        let finished = reproduce(&place, &[option, value]);
        let (code, said) = finished.mistake();
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(value) && said.contains("one of"), "{said}");
        assert!(!place.path("table").exists());
    }
}

#[test]
fn every_setting_can_be_planted_defended_and_measured() {
    let place = Place::new();
    let names: Vec<String> =
        AttackSpec::builtin().into_iter().map(|setting| setting.name).collect();
    let settings = names.iter().flat_map(|name| ["--setting", name]);
    let arguments: Vec<&str> = settings.chain(["--defence", "beear-robust"]).collect();
    let table = reproduce(&place, &arguments).printed();
    let expected: Vec<_> = names
        .iter()
        .flat_map(|name| {
            ["before", "beear-robust"].map(|defence| (name.clone(), defence.to_owned()))
        })
        .collect();
    assert_eq!(cells(&place), expected);
    for cell in place.read_lines("table/cells.jsonl") {
        assert_eq!(cell["stopped"], Value::Null, "{cell}");
        assert!(cell["findings"].is_object(), "{cell}");
    }
    for name in names {
        assert!(table.contains(&format!("| {name} ")), "{name}");
    }
}
