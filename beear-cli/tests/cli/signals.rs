//! Signals to a run: which of them stop it, and which have it write a checkpoint.
#![cfg(unix)]

use std::fs;
use std::process::{Command, Stdio};

use crate::fixture::{Place, defend_arguments};
use crate::resume::{
    N_STEPS, assert_as_undisturbed, saved_step, signal, start, stepwise, undisturbed, wait_for,
    wait_for_step,
};

#[test]
fn a_signal_stops_a_run_within_a_step_of_either_level() {
    let place = undisturbed();
    // In the inner and in the outer level of the first round.
    for (name, at) in [("INT", 2), ("TERM", 11)] {
        let arguments = stepwise("run");
        let mut child = start(&place, &arguments);
        wait_for_step(&place, at);
        signal(&child, name);
        let code = child.wait().expect("it ends").code();
        assert_eq!(code, Some(130), "{name}");
        let step = saved_step(&place).expect("it has begun");
        assert!(step < N_STEPS, "{step}");
        let finished = place.beear(&["resume", "run"]);
        assert_eq!(finished.code, 0, "{}", finished.stderr);
        assert_as_undisturbed(&place);
        fs::remove_dir_all(place.path("run")).unwrap();
    }
}

/// `beear`, which hears `SIGHUP` even where the tests do not.
fn hearing_hang_ups(place: &Place, arguments: &[&str]) -> Command {
    let mut command = if cfg!(target_os = "linux") {
        let mut command = Command::new("env");
        command.args(["--default-signal=HUP", env!("CARGO_BIN_EXE_beear")]);
        command
    } else {
        Command::new(env!("CARGO_BIN_EXE_beear"))
    };
    command.args(arguments).current_dir(place.path("")).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[test]
fn a_hang_up_stops_a_run_with_a_checkpoint_however_often_it_comes() {
    let place = undisturbed();
    let mut child = hearing_hang_ups(&place, &stepwise("run")).spawn().expect("it starts");
    wait_for_step(&place, 3);
    for _ in 0..3 {
        signal(&child, "HUP");
    }
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert!(saved_step(&place).expect("it has begun") < N_STEPS);
    let finished = place.beear(&["resume", "run"]);
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    assert_as_undisturbed(&place);
}

#[test]
fn a_run_that_was_started_to_outlive_its_terminal_does() {
    let place = undisturbed();
    let mut command = Command::new("sh");
    let script = "trap '' HUP; exec \"$0\" \"$@\"";
    command.args(["-c", script, env!("CARGO_BIN_EXE_beear")]).args(stepwise("run"));
    command.current_dir(place.path("")).stdin(Stdio::null());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    wait_for_step(&place, 3);
    signal(&child, "HUP");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    assert_as_undisturbed(&place);
}

#[test]
fn a_checkpoint_is_written_when_asked_for() {
    let place = Place::new();
    let long = ["--quiet", "--set", "method.entrap.steps=100000"];
    let arguments = [defend_arguments(["safety.jsonl", "ordinary.json", "run"]), long.to_vec()];
    let mut child = start(&place, &arguments.concat());
    wait_for_step(&place, 0);
    fs::write(place.path("run/checkpoint-now"), "").unwrap();
    wait_for_step(&place, 1);
    wait_for("its end", || (!place.path("run/checkpoint-now").exists()).then_some(()));
    let first = saved_step(&place).unwrap();
    signal(&child, "USR1");
    wait_for_step(&place, first + 1);
    child.kill().unwrap();
    child.wait().unwrap();
    let kept = fs::read_dir(place.path("run/checkpoints")).unwrap();
    assert!(kept.count() <= 3, "the two newest stay, and perhaps what was being written");
}
