//! What a process that goes on with a run reads is what the process before has written, or the run is refused.
#![cfg(unix)]

use std::fs;

use crate::fixture::{Finished, Place};
use crate::resume::{assert_as_undisturbed, stepwise, undisturbed};

/// A run that was stopped some steps after its first round.
fn stopped() -> Place {
    let place = undisturbed();
    let mut child = crate::resume::start(&place, &stepwise("run"));
    crate::resume::wait_for("a round and a step", || {
        crate::resume::saved_step(&place).filter(|step| *step > 14)
    });
    child.kill().expect("it is ours");
    child.wait().expect("it ends");
    place
}

/// Asserts that a run is refused for one of its files, and that the file is named.
fn assert_refused(place: &Place, file: &str) {
    let refused: Finished = place.beear(&["resume", "run", "--quiet"]);
    let (code, said) = refused.mistake();
    assert_eq!(code, 3, "{file}: {said}");
    assert!(said.contains(&format!("`run/{file}`")), "{file}: {said}");
}

type Edit = fn(&str) -> String;

#[test]
fn a_file_of_the_run_that_was_edited_is_named_and_the_run_refused() {
    let place = stopped();
    let edits: [(&str, Edit); 6] = [
        ("config.resolved.toml", |text| text.replace("seed = 0", "seed = 1")),
        ("rows.jsonl", |text| text.split_inclusive('\n').skip(1).collect()),
        ("manifest.json", |text| text.replace("\"seed\": 0", "\"seed\": 1")),
        ("metrics.jsonl", |text| text.replacen("\"loss\":", "\"l0ss\":", 1)),
        ("metrics.jsonl", |text| text[..text.len() / 2].to_owned()),
        ("tracked.jsonl", |text| text.replacen("\"hits\":", "\"h1ts\":", 1)),
    ];
    for (file, edit) in edits {
        let name = format!("run/{file}");
        let (was, stored) = (place.read(&name), fs::read(place.path("run/metrics.jsonl")).unwrap());
        let edited = edit(&was);
        assert_ne!(edited, was, "{file}");
        place.write(&name, edited);
        assert_refused(&place, file);
        place.write(&name, was);
        assert_eq!(fs::read(place.path("run/metrics.jsonl")).unwrap(), stored, "nothing is lost");
    }
    place.beear(&["resume", "run", "--quiet"]).printed();
    assert_as_undisturbed(&place);
}

#[test]
fn lines_after_those_of_the_checkpoint_are_left_out() {
    let place = stopped();
    for file in ["metrics.jsonl", "tracked.jsonl"] {
        let longer = place.read(&format!("run/{file}")) + "{\"event\": \"invented\"}\n{\"torn";
        place.write(&format!("run/{file}"), longer);
    }
    place.beear(&["resume", "run", "--quiet"]).printed();
    assert_as_undisturbed(&place);
}

#[test]
fn an_input_that_has_come_or_gone_is_a_change() {
    let place = stopped();
    let name = "model/added.json";
    place.write(name, "{}");
    let refused = place.beear(&["resume", "run"]);
    let said = "an input of the run is not what it was: added.json";
    assert!(refused.mistake().0 == 3 && refused.stderr.contains(said), "{}", refused.stderr);
    fs::remove_file(place.path(name)).unwrap();
    let name = "model/tokenizer_config.json";
    let was = place.read(name);
    fs::remove_file(place.path(name)).unwrap();
    let refused = place.beear(&["resume", "run"]);
    let said = "an input of the run is not what it was: tokenizer_config.json";
    assert!(refused.mistake().0 == 3 && refused.stderr.contains(said), "{}", refused.stderr);
    place.write(name, was);
    place.beear(&["resume", "run", "--quiet"]).printed();
    assert_as_undisturbed(&place);
}

#[test]
fn a_run_is_done_only_with_what_it_has_left() {
    let place = undisturbed();
    let done = || place.beear(&["resume", "whole"]);
    assert_eq!(done().code, 0);
    for file in ["model/model.safetensors", "delta.safetensors", "metrics.jsonl"] {
        let name = format!("whole/{file}");
        let was = fs::read(place.path(&name)).unwrap();
        place.write(&name, &was[..was.len() - 1]);
        let said = format!("`whole/{file}` is not what the run has left");
        assert!(done().mistake().0 == 3 && done().stderr.contains(&said), "{}", done().stderr);
        fs::remove_file(place.path(&name)).unwrap();
        let said = format!("`whole/{file}` is missing");
        assert!(done().mistake().0 == 3 && done().stderr.contains(&said), "{}", done().stderr);
        place.write(&name, was);
    }
    place.write("whole/model/.DS_Store", "strange");
    assert_eq!(done().code, 0);
    // A run that was stopped does not become done by a word.
    assert_eq!(place.beear(&[stepwise("run"), vec!["--max-time", "0s"]].concat()).code, 9);
    let manifest = place.read("run/manifest.json");
    place.write("run/manifest.json", manifest.replace("\"running\"", "\"done\""));
    assert_refused(&place, "manifest.json");
    place.write("run/manifest.json", manifest);
    place.beear(&["resume", "run", "--quiet"]).printed();
    assert_as_undisturbed(&place);
}
