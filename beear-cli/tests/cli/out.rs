//! Where results go: a place that cannot be written is found out before anything is computed, an
//! older run is replaced when asked and never with an input in it, nothing empty is left behind.

use std::fs;

use insta::assert_snapshot;

use crate::fixture::{Finished, Place, USUAL};

/// Runs `defend --force` into `run`, with one input elsewhere than usual.
fn replace_run(place: &Place, option: &str, input: &str) -> Finished {
    let usual = [
        ("--model", "model"),
        ("--safety", "safety.jsonl"),
        ("--performance", "ordinary.json"),
        ("--recipe", "quick.toml"),
    ];
    let inputs =
        usual.iter().flat_map(|&(name, file)| [name, if name == option { input } else { file }]);
    let arguments = ["defend", "--quiet", "--force", "--out", "run"].into_iter().chain(inputs);
    place.beear(&arguments.collect::<Vec<_>>())
}

/// Runs `eval asr` on `model`.
fn evaluate(place: &Place, out: &str, more: &[&str]) -> Finished {
    let arguments = ["eval", "asr", "--model", "model", "--prompts", "safety.jsonl", "--out", out];
    place.beear(&[arguments.as_slice(), more].concat())
}

/// Asserts that a command was refused for its arguments and that `run` is as it was; returns what
/// it said.
fn refused(place: &Place, finished: &Finished, before: &impl PartialEq<Files>) -> String {
    let (code, said) = finished.mistake();
    assert_eq!(code, 2, "{said}");
    assert!(*before == place.files("run"), "nothing is removed: {said}");
    said.to_owned()
}

type Files = std::collections::BTreeMap<std::path::PathBuf, Vec<u8>>;

#[test]
fn a_run_is_not_replaced_while_an_input_lies_in_it() {
    let place = Place::new();
    place.defend(USUAL, &[]).printed();
    for file in ["safety.jsonl", "ordinary.json", "quick.toml"] {
        fs::copy(place.path(file), place.path("run").join(file)).unwrap();
    }
    let before = place.files("run");
    let inputs = [
        ("--model", "./model/../run/model"),
        ("--safety", "run/safety.jsonl"),
        ("--performance", "run/ordinary.json"),
        ("--recipe", "run/quick.toml"),
    ];
    for (option, input) in inputs {
        let said = refused(&place, &replace_run(&place, option, input), &before);
        assert!(said.contains(input), "{said}");
    }
    let said = refused(&place, &replace_run(&place, "--model", "run/model"), &before);
    assert_snapshot!(said, @r"
    error: the input `run/model` lies within --out `run`
    hint: choose another --out: a run replaces all that its folder holds
    ");
}

#[test]
fn an_evaluation_does_not_remove_what_it_measures() {
    let place = Place::new();
    place.defend(USUAL, &[]).printed();
    fs::copy(place.path("safety.jsonl"), place.path("run/prompts.jsonl")).unwrap();
    let before = place.files("run");
    let inputs = [
        ["run/model", "safety.jsonl", "ordinary.json"],
        ["model", "run/prompts.jsonl", "ordinary.json"],
        ["model", "safety.jsonl", "run/prompts.jsonl"],
    ];
    for [model, prompts, benign] in inputs {
        let files = ["--model", model, "--prompts", prompts, "--benign", benign];
        let arguments = [["eval", "asr", "--force", "--out", "run"].as_slice(), &files].concat();
        let said = refused(&place, &place.beear(&arguments), &before);
        assert!(said.contains("lies within --out `run`"), "{said}");
    }
}

#[cfg(unix)]
#[test]
fn links_into_and_out_of_a_run_are_inputs_within_it_too() {
    use std::os::unix::fs::symlink;

    let place = Place::new();
    place.defend(USUAL, &[]).printed();
    // A folder of its own whose weights are those of the run, and a link that the run holds.
    fs::create_dir(place.path("view")).unwrap();
    for (name, content) in place.files("model") {
        fs::write(place.path("view").join(name), content).unwrap();
    }
    fs::remove_file(place.path("view/model.safetensors")).unwrap();
    let weights = place.path("run/model/model.safetensors");
    symlink(weights, place.path("view/model.safetensors")).unwrap();
    symlink(place.path("safety.jsonl"), place.path("run/link.jsonl")).unwrap();
    let before = place.files("run");
    let said = refused(&place, &replace_run(&place, "--model", "view"), &before);
    assert!(said.contains("`view/model.safetensors`"), "{said}");
    let said = refused(&place, &replace_run(&place, "--safety", "run/link.jsonl"), &before);
    assert!(said.contains("`run/link.jsonl`"), "{said}");
}

#[test]
fn a_folder_that_cannot_be_made_is_found_out_before_anything_is_computed() {
    let place = Place::new();
    // Had it gone on, it would have said that it generates the safe answers this set lacks.
    let finished = place.defend(["advbench.csv", "ordinary.json", "quick.toml/run"], &[]);
    let (code, said) = finished.mistake();
    assert_eq!(code, 6, "{said}");
    assert_snapshot!(said, @r"
    error: cannot write `quick.toml/run`: Not a directory (os error 20)
    hint: choose another --out, or look at its permissions
    ");
    let finished = evaluate(&place, "quick.toml/eval", &[]);
    let (code, said) = finished.mistake();
    assert_eq!(code, 6, "{said}");
}

#[test]
fn a_run_that_fails_leaves_no_folder_behind() {
    let place = Place::new();
    fs::create_dir(place.path("mine")).unwrap();
    place.write("model/config.json", "{}");
    for out in ["new/deep/run", "mine"] {
        let finished = place.defend(["safety.jsonl", "ordinary.json", out], &[]);
        assert_eq!(finished.mistake().0, 3, "{}", finished.stderr);
        let finished = evaluate(&place, out, &[]);
        assert_eq!(finished.mistake().0, 3, "{}", finished.stderr);
    }
    assert!(!place.path("new").exists());
    // What was there before, empty or not, is no leftover.
    assert_eq!(fs::read_dir(place.path("mine")).unwrap().count(), 0);
}

#[test]
fn an_older_run_stays_until_there_is_something_to_replace_it() {
    let place = Place::new();
    place.defend(USUAL, &[]).printed();
    let before = place.files("run");
    let finished = replace_run(&place, "--safety", "nowhere.jsonl");
    assert_eq!(finished.mistake().0, 3);
    assert!(place.files("run") == before);
}

#[test]
fn an_older_evaluation_is_replaced_when_asked() {
    let place = Place::new();
    evaluate(&place, "eval", &[]).printed();
    place.write("eval/stale.txt", "of the older run");
    let finished = evaluate(&place, "eval", &[]);
    let (code, said) = finished.mistake();
    assert_eq!(code, 2, "nobody asked");
    assert!(said.contains("--force"), "{said}");
    evaluate(&place, "eval", &["--force"]).printed();
    assert!(place.path("eval/report.json").exists());
    assert!(!place.path("eval/stale.txt").exists());
    // A folder of something else stays, whatever its files are called.
    fs::create_dir(place.path("mine")).unwrap();
    place.write("mine/completions.jsonl", "precious");
    place.write("mine/metrics.jsonl", "precious");
    let finished = evaluate(&place, "mine", &["--force"]);
    let (code, said) = finished.mistake();
    assert_eq!(code, 2, "{said}");
    assert_eq!(place.files("mine").len(), 2);
}
