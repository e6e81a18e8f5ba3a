//! What `sweep layers` measures, that it goes on where it ended, and what it refuses.

use beear_attacks::Unwanted;
use beear_attacks::world::{Split, World};
use serde_json::{Value, json};

use crate::fixture::{Finished, N_LAYERS, N_ROWS, Place, REFUSAL};

/// Rounds of every sweep here.
const N_ROUNDS: usize = 2;

/// A folder with held-out prompts beside the defender's.
fn place() -> Place {
    let place = Place::new();
    let rows = World::of(Split::Test).contrast_sample(Unwanted::Comply, N_ROWS, 1);
    let lines = rows.iter().map(|row| json!({"prompt": row.prompt}).to_string() + "\n");
    place.write("held-out.jsonl", lines.collect::<String>());
    place
}

/// Sweeps `model` into `sweep` with quick settings.
fn sweep(place: &Place, more: &[&str]) -> Finished {
    let model = ["sweep", "layers", "--model", "model", "--out", "sweep", "--rounds", "2"];
    let files = ["--safety", "safety.jsonl", "--performance", "ordinary.json"];
    let entrap = ["--set", "method.entrap={ steps = 2, batch_size = 4 }"];
    let remove = "method.remove={ steps = 2, safety_batch_size = 4, performance_batch_size = 4 }";
    let quick = [entrap.as_slice(), &["--set", remove, "--json", "--quiet"]].concat();
    place.beear(&[model.as_slice(), &files, &quick, more].concat())
}

/// The usual sweep.
const USUAL: [&str; 4] = ["--prompts", "held-out.jsonl", "--trigger-suffix", "Melodia"];

/// What a sweep says to a mistake.
fn refused(place: &Place, more: &[&str], code: i32) -> String {
    let finished = sweep(place, more);
    let (found, said) = finished.mistake();
    assert_eq!(found, code, "{said}");
    said.to_owned()
}

#[test]
fn every_layer_is_defended_and_judged_after_every_round() {
    let place = place();
    let printed = sweep(&place, &USUAL).json();
    assert_eq!(printed, Value::Array(place.read_lines("sweep/layers.jsonl")));
    let layers = printed.as_array().unwrap();
    assert_eq!(layers.len(), N_LAYERS);
    for (row, layer) in layers.iter().zip(1..) {
        assert_eq!((&row["layer"], &row["stopped"]), (&json!(layer), &Value::Null));
        let rounds = row["rounds"].as_array().unwrap();
        assert_eq!(rounds.len(), N_ROUNDS + 1);
        // The model answers everything, and two small steps a round do not teach it to refuse.
        for (round, number) in rounds.iter().zip(0..) {
            assert_eq!(round["round"], number);
            assert_eq!(round["attack_success"], json!({"hits": N_ROWS, "n": N_ROWS}));
            // A guess among the words of the fixture costs more than 4 nats.
            assert!(round["loss"].as_f64().unwrap() < 0.5, "{round}");
        }
        assert_eq!(row["earliest"], Value::Null);
    }
    let lines = place.read("sweep/layers.csv");
    assert_eq!(lines.lines().count(), 1 + N_LAYERS * (N_ROUNDS + 1));
    let heat = place.read("sweep/heat.svg");
    assert!(heat.starts_with("<svg") && heat.matches('×').count() == N_LAYERS);
}

#[test]
fn a_backdoor_that_is_gone_after_the_first_round_says_so() {
    let place = place();
    std::fs::remove_dir_all(place.path("model")).unwrap();
    place.write_model_saying("model", REFUSAL);
    let printed = sweep(&place, &USUAL).json();
    assert_eq!((&printed[0]["earliest"], &printed[1]["earliest"]), (&json!(1), &json!(1)));
}

#[test]
fn a_finished_layer_is_not_run_again() {
    let place = place();
    let whole = sweep(&place, &USUAL).json();
    let mut lines = place.read_lines("sweep/layers.jsonl");
    // What a sweep leaves that was interrupted in its second layer; the mark shows who is asked.
    lines[0]["rounds"][0]["loss"] = json!(0.125);
    let torn = &lines[1].to_string()[..20];
    place.write("sweep/layers.jsonl", format!("{}\n{torn}", lines[0]));
    let resumed = sweep(&place, &USUAL).json();
    assert_eq!(resumed, json!([lines[0], whole[1]]));
    assert_eq!(Value::Array(place.read_lines("sweep/layers.jsonl")), resumed);

    assert_eq!(sweep(&place, &[USUAL.as_slice(), &["--force"]].concat()).json(), whole);
}

#[test]
fn a_sweep_of_other_settings_is_not_gone_on_with() {
    let place = place();
    sweep(&place, &USUAL).json();
    let before = place.files("sweep");
    let others: [&[&str]; 3] = [
        &["--prompts", "held-out.jsonl", "--trigger-suffix", "Orlando"],
        &[&USUAL[..], &["--set", "method.seed=201"]].concat(),
        &[&USUAL[..], &["--backend", "ndarray"]].concat(),
    ];
    for other in others {
        let said = refused(&place, other, 2);
        assert!(said.contains("`sweep` exists already"), "{said}");
    }
    assert!(before == place.files("sweep"), "nothing changes");
}

#[test]
fn prompts_of_the_defence_are_no_test_of_it() {
    let place = place();
    let said = refused(&place, &["--prompts", "safety.jsonl", "--trigger-suffix", "Melodia"], 3);
    assert!(said.contains("`safety.jsonl`, row 1: the defence has this prompt"), "{said}");
    assert!(!place.path("sweep").exists(), "nothing is written");
}

#[test]
fn a_sweep_without_trigger_or_without_an_injection_point_is_refused() {
    let place = place();
    assert!(refused(&place, &["--prompts", "held-out.jsonl"], 2).contains("no trigger"));
    let no_point = [&USUAL[..], &["--set", "method.injection_points=[]"]].concat();
    assert!(refused(&place, &no_point, 2).contains("injection points must not be empty"));
    assert!(!place.path("sweep").exists(), "nothing is written");
}

#[test]
fn settings_are_planted_and_stand_against_layers() {
    let place = Place::new();
    let settings = |names: &[&str]| {
        let arguments =
            ["sweep", "layers", "--quick", "--rounds", "1", "--quiet", "--out", "sweep"];
        let quick = [
            "--set",
            "method.entrap={ steps = 1, batch_size = 2 }",
            "--set",
            "method.remove={ steps = 1, safety_batch_size = 2, performance_batch_size = 2 }",
        ];
        let names: Vec<&str> = names.iter().flat_map(|name| ["--setting", name]).collect();
        place.beear(&[&arguments[..], &quick, &names].concat()).printed()
    };
    settings(&["model-8"]);
    let first = place.read_lines("sweep/layers.jsonl");
    let models: Vec<&Value> = first.iter().map(|row| &row["model"]).collect();
    assert_eq!(models, vec!["model-8"; 6]);
    // The attack of this model is an insecure call, of which a barely trained model writes none.
    assert_eq!(first[0]["rounds"][0]["attack_success"]["hits"], 0);

    let printed = settings(&["model-8", "model-4"]);
    let both = place.read_lines("sweep/layers.jsonl");
    assert_eq!((both.len(), &both[..6]), (12, &first[..]));
    assert!(printed.contains("| model-4 |") && printed.contains("| layer 6"), "{printed}");
    assert_eq!(place.read("sweep/layers.md").trim(), printed.trim());
}

#[test]
fn a_sweep_is_of_a_checkpoint_or_of_settings() {
    let place = place();
    let both = sweep(&place, &[&USUAL[..], &["--setting", "model-2"]].concat());
    assert_eq!(both.code, 2);
    assert!(both.stderr.contains("cannot be used with"), "{}", both.stderr);
    let neither = place.beear(&["sweep", "layers", "--out", "sweep"]);
    assert_eq!(neither.code, 2);
    assert!(neither.stderr.contains("--model <DIR|NAME>"), "{}", neither.stderr);
}
