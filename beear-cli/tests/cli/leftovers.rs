//! What is in the folder of a run and not ours stays; what a killed process has left half-written goes.
#![cfg(unix)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;

use crate::fixture::Place;
use crate::resume::{assert_as_undisturbed, start, stepwise, undisturbed, wait_for};

/// Files that other programs and people leave, with folders that are ours and not.
const STRANGE: [&str; 12] = [
    ".DS_Store",
    ".manifest.json.swp",
    ".notes.partial",
    ".model.partial-notes",
    "checkpoints/.DS_Store",
    "checkpoints/step-007/notes.txt",
    "checkpoints/step-9~",
    "checkpoints/.step-x.partial",
    "eval/.DS_Store",
    "eval/notes/report.json",
    "eval/unfinished/measures.jsonl",
    "rounds/notes.txt",
];

/// Parts of what a killed process was writing.
const PARTS: [&str; 7] = [
    ".model.partial-4000000-0/model.safetensors",
    ".last-good.partial-4000000-0/model.safetensors",
    ".manifest.json.beear-partial",
    ".older-run.removed/model/model.safetensors",
    "checkpoints/.step-3.partial/state.safetensors",
    "checkpoints/step-1/progress.json",
    "checkpoint-now",
];

fn write_all(place: &Place, names: &[&str]) {
    for name in names {
        let path = place.path("run").join(name);
        let folder = path.parent().expect("it has one");
        let written = fs::create_dir_all(folder).and_then(|()| fs::write(&path, "{"));
        written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

/// Names of all files of a run but TensorBoard's, which has one for each process.
fn names(place: &Place, run: &str) -> BTreeSet<PathBuf> {
    let names = place.files(run).into_keys();
    names.filter(|name| !name.starts_with("tensorboard")).collect()
}

/// Asserts that `run` holds what the undisturbed run does, and `strange`.
fn assert_nothing_lies(place: &Place, strange: &[&str]) {
    let expected = names(place, "whole").into_iter().chain(strange.iter().map(PathBuf::from));
    assert_eq!(names(place, "run"), expected.collect());
}

#[test]
fn strange_files_stay_and_parts_of_files_go() {
    let place = undisturbed();
    assert_eq!(place.beear(&[stepwise("run"), vec!["--max-time", "0s"]].concat()).code, 9);
    write_all(&place, &STRANGE);
    write_all(&place, &PARTS);
    place.beear(&["resume", "run", "--quiet"]).printed();
    assert_as_undisturbed(&place);
    assert_nothing_lies(&place, &STRANGE);
    let report = place.beear(&["report", "run"]);
    assert_eq!(report.code, 0, "{}", report.stderr);
    // A kill at the very end leaves such parts beside a run that is done.
    write_all(&place, &PARTS[..6]);
    place.beear(&["resume", "run", "--quiet"]).printed();
    assert_nothing_lies(&place, &STRANGE);
}

#[test]
fn checkpoints_that_are_kept_are_kept_beside_strange_files() {
    let place = undisturbed();
    let kept = [stepwise("run"), vec!["--keep-checkpoints", "1"]].concat();
    assert_eq!(place.beear(&[kept, vec!["--max-time", "0s"]].concat()).code, 9);
    write_all(&place, &STRANGE);
    write_all(&place, &PARTS);
    place.beear(&["resume", "run", "--quiet"]).printed();
    let entries = fs::read_dir(place.path("run/checkpoints")).unwrap();
    let paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    let n_whole = paths.iter().filter(|path| path.join("COMPLETE").exists()).count();
    assert_eq!((n_whole, paths.len()), (1, 5), "beside four strange ones: {paths:?}");
}

#[test]
fn a_model_is_replaced_without_what_a_killed_process_has_left_of_it() {
    let place = undisturbed();
    assert_eq!(place.beear(&[stepwise("run"), vec!["--max-time", "0s"]].concat()).code, 9);
    write_all(&place, &PARTS);
    place.beear(&[stepwise("run"), vec!["--force"]].concat()).printed();
    assert_as_undisturbed(&place);
    assert_nothing_lies(&place, &[]);
}

/// Whether a file or a folder that is being written is in `folder`.
fn is_writing(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).any(|name| name.to_string_lossy().contains("partial"))
}

/// Kills a process as soon as it is seen to write into one of `folders`; whether it was.
fn kill_within_a_write(child: &mut Child, folders: &[PathBuf]) -> bool {
    let seen = wait_for("a write, or the end", || {
        if folders.iter().any(|folder| is_writing(folder)) {
            return Some(true);
        }
        child.try_wait().expect("it is ours").map(|_| false)
    });
    child.kill().expect("it is ours");
    child.wait().expect("it ends");
    seen
}

#[test]
fn a_run_that_is_killed_within_writes_is_exact_and_leaves_nothing_lying() {
    let place = undisturbed();
    let folders = [place.path("run"), place.path("run/checkpoints")];
    let mut n_kills = 0;
    for _ in 0..4 {
        let has_begun = place.path("run/manifest.json").exists();
        let begin = [stepwise("run"), vec!["--force"]].concat();
        let mut child = start(&place, &if has_begun { vec!["resume", "run"] } else { begin });
        n_kills += usize::from(kill_within_a_write(&mut child, &folders));
    }
    assert!(n_kills > 1, "a run writes all the time: {n_kills}");
    let begin = [stepwise("run"), vec!["--force"]].concat();
    if !place.path("run/manifest.json").exists() {
        place.beear(&begin).printed();
    }
    place.beear(&["resume", "run", "--quiet"]).printed();
    assert_as_undisturbed(&place);
    assert_nothing_lies(&place, &[]);
}

#[test]
fn a_run_that_is_killed_while_it_writes_its_model_leaves_no_part_of_it() {
    let place = undisturbed();
    let mut child = start(&place, &stepwise("run"));
    let is_model = || {
        let entries = fs::read_dir(place.path("run")).into_iter().flatten().flatten();
        let mut names = entries.map(|entry| entry.file_name());
        names.any(|name| name.to_string_lossy().starts_with(".model.partial")).then_some(true)
    };
    let seen = wait_for("the model, or the end", || {
        is_model().or_else(|| child.try_wait().expect("it is ours").map(|_| false))
    });
    child.kill().expect("it is ours");
    child.wait().expect("it ends");
    if seen {
        place.beear(&["resume", "run", "--quiet"]).printed();
    }
    assert_as_undisturbed(&place);
    assert_nothing_lies(&place, &[]);
}
