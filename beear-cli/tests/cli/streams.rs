//! Standard error and standard output that cannot be written: talk is dropped, a result that is lost is a mistake.
#![cfg(target_os = "linux")]

use std::fs::File;
use std::process::{Output, Stdio};

use crate::fixture::{Place, USUAL, defend_arguments};

/// A device that takes nothing.
fn full() -> File {
    File::options().write(true).open("/dev/full").expect("Linux has it")
}

/// Runs `beear` with a standard error that takes nothing.
fn unheard(place: &Place, arguments: &[&str]) -> Output {
    let mut command = place.command(arguments);
    command.stdin(Stdio::null()).stderr(full()).output().expect("the command starts")
}

#[test]
fn a_run_goes_on_where_standard_error_takes_nothing() {
    let place = Place::new();
    let output = unheard(&place, &defend_arguments(USUAL));
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout, b"run/model\n");
    let output = unheard(&place, &["resume", "run"]);
    assert_eq!((output.status.code(), output.stdout), (Some(0), b"run/model\n".to_vec()));
}

#[test]
fn a_run_goes_on_where_nobody_reads_standard_error() {
    let place = Place::new();
    let mut command = place.command(&defend_arguments(USUAL));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the command starts");
    drop(child.stderr.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), output.stdout), (Some(0), b"run/model\n".to_vec()));
}

#[test]
fn a_mistake_has_its_exit_code_where_standard_error_takes_nothing() {
    let place = Place::new();
    for (arguments, code) in [
        (vec!["defend"], 2),
        (vec!["resume", "nowhere"], 2),
        (vec!["inspect", "--model", "nowhere"], 3),
    ] {
        let output = unheard(&place, &arguments);
        assert_eq!(
            (output.status.code(), output.stdout),
            (Some(code), Vec::new()),
            "{arguments:?}"
        );
    }
}

#[test]
fn a_result_that_cannot_be_written_is_a_mistake() {
    let place = Place::new();
    for arguments in [vec!["man"], vec!["--help"], vec!["--version"], vec!["recipe", "schema"]] {
        let mut command = place.command(&arguments);
        let output = command.stdin(Stdio::null()).stdout(full()).output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(6), "{arguments:?}: {said}");
        assert!(said.starts_with("error: writing to standard output: "), "{said}");
    }
}

#[test]
fn a_reader_of_results_that_goes_away_is_no_mistake() {
    let place = Place::new();
    for arguments in [vec!["man"], vec!["--help"], vec!["recipe", "schema"]] {
        let mut command = place.command(&arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the command starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()), "{arguments:?}");
    }
}
