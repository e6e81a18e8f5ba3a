//! `--force`: an older run is not lost before the one that replaces it has a result.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::fixture::{Finished, Place, USUAL, defend_arguments};

/// Where an older run is until then.
const ASIDE: &str = "run/.older-run";

/// A place with a run that is done.
fn with_a_run() -> Place {
    let place = Place::new();
    place.defend(USUAL, &[]).printed();
    place
}

fn replace(place: &Place, more: &[&str]) -> Finished {
    place.defend(USUAL, &[&["--force", "--set", "method.seed=1"], more].concat())
}

/// All files but the mark, which stays where it is.
fn files(place: &Place, folder: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = place.files(folder);
    files.remove(&PathBuf::from(".beear-run"));
    files
}

#[test]
fn a_run_for_which_there_is_no_room_leaves_the_older_one_as_it_is() {
    let place = with_a_run();
    let before = place.files("run");
    // More checkpoints than any disk has room for.
    let finished = replace(&place, &["--keep-checkpoints", "1000000000000"]);
    assert_eq!(finished.code, 6, "{}", finished.stderr);
    let said = "stays until the model is written";
    assert!(finished.stderr.contains(said), "{}", finished.stderr);
    assert!(place.files("run") == before);
}

#[test]
fn a_run_that_fails_without_weights_gives_the_older_one_back() {
    let place = with_a_run();
    let before = place.files("run");
    let finished = replace(&place, &["--set", "method.remove.learning_rate=1e30"]);
    assert_eq!(finished.code, 4, "{}", finished.stderr);
    assert!(finished.stderr.contains("the older run is back"), "{}", finished.stderr);
    assert!(place.files("run") == before);
    assert_eq!(place.beear(&["resume", "run", "--quiet"]).printed(), "run/model\n");
}

#[test]
fn a_run_that_is_stopped_keeps_the_older_one_until_it_is_done() {
    let place = with_a_run();
    let before = files(&place, "run");
    assert_eq!(replace(&place, &["--max-time", "0s"]).code, 9);
    assert!(files(&place, ASIDE) == before);
    // Another that is stopped as well does not take its place.
    assert_eq!(replace(&place, &["--max-time", "0s"]).code, 9);
    assert!(files(&place, ASIDE) == before);
    place.beear(&["resume", "run"]).printed();
    assert!(!place.path(ASIDE).exists());
    assert_eq!(place.read_json("run/manifest.json")["seed"], 1);
    place.defend(["safety.jsonl", "ordinary.json", "other"], &["--set", "method.seed=1"]).printed();
    assert!(place.files("run/model") == place.files("other/model"));
}

/// A limit on the size of files stands in for a full disk: checkpoints of weights do not fit, all else does.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_is_full_on_the_way_takes_nothing_of_the_older_run() {
    use crate::fixture::finish;
    use std::process::Command;

    let place = with_a_run();
    let before = files(&place, "run");
    let script = "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_beear")]).args(defend_arguments(USUAL));
    command.args(["--force", "--quiet"]).current_dir(place.path(""));
    let finished = finish(&mut command, "");
    assert_eq!(finished.mistake().0, 6, "{}", finished.stderr);
    assert!(files(&place, ASIDE) == before);
    place.beear(&["resume", "run"]).printed();
    assert!(!place.path(ASIDE).exists());
    let names = |files: BTreeMap<PathBuf, Vec<u8>>| -> Vec<PathBuf> {
        files.into_keys().filter(|name| !name.starts_with("tensorboard")).collect()
    };
    assert_eq!(names(files(&place, "run")), names(before));
}
