//! A run that is stopped, killed or disturbed is gone on with as if nothing had happened.
#![cfg(unix)]

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fixture::{Place, defend_arguments};

/// Three rounds of two perturbations of five steps, sought one after the other, and four steps on the weights; a
/// checkpoint after every step.
const STEPWISE: [&str; 22] = [
    "--quiet",
    "--checkpoint-every",
    "1",
    "--set",
    "method.rounds=3",
    "--set",
    "method.perturbations_per_round=2",
    "--set",
    "method.entrap.steps=5",
    "--set",
    "method.remove.steps=4",
    "--set",
    "method.patience=none",
    "--track",
    "asked/rows.jsonl",
    "--track-near",
    "1",
    "--track-tokens",
    "3",
    "--trigger-suffix",
    "SUDO",
    "--json",
];

/// Steps of such a run.
pub(crate) const N_STEPS: u64 = 3 * (2 * 5 + 4);

/// Files that are the same whether a run was stopped or not.
const SAME: [&str; 6] = [
    "model/model.safetensors",
    "delta.safetensors",
    "metrics.jsonl",
    "tracked.jsonl",
    "rows.jsonl",
    "config.resolved.toml",
];

pub(crate) fn stepwise(out: &str) -> Vec<&str> {
    [defend_arguments(["safety.jsonl", "ordinary.json", out]), STEPWISE.to_vec()].concat()
}

/// Starts `beear` and does not wait for it.
pub(crate) fn start(place: &Place, arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beear"));
    command.args(arguments).current_dir(place.path("")).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the command starts")
}

pub(crate) fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    let sent = Command::new("kill").args(["-s", name, &id]).status().expect("there is `kill`");
    assert!(sent.success());
}

/// Waits until something is there.
pub(crate) fn wait_for<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_mins(1), "{what} does not come");
        sleep(Duration::from_millis(1));
    }
}

/// The step of the newest checkpoint, as the run says it.
pub(crate) fn saved_step(place: &Place) -> Option<u64> {
    let text = fs::read_to_string(place.path("run/trainer_state.json")).ok()?;
    serde_json::from_str::<Value>(&text).ok()?["step"].as_u64()
}

pub(crate) fn wait_for_step(place: &Place, step: u64) {
    wait_for("the step", || saved_step(place).filter(|saved| *saved >= step));
}

/// A run that was never stopped.
pub(crate) fn undisturbed() -> Place {
    let place = Place::new();
    place.beear(&stepwise("whole")).printed();
    place
}

pub(crate) fn assert_as_undisturbed(place: &Place) {
    for file in SAME {
        let read = |run: &str| fs::read(place.path(run).join(file)).expect("the run has the file");
        assert!(read("run") == read("whole"), "{file}");
    }
    let manifest = place.read_json("run/manifest.json");
    assert_eq!(manifest["status"], "done");
}

#[test]
fn killed_at_thirty_points_a_run_loses_nothing_beyond_its_last_checkpoint() {
    let place = undisturbed();
    let begun = Instant::now();
    place.beear(&stepwise("timed")).printed();
    let whole = begun.elapsed();
    // An odd multiple of the golden ratio spreads the points evenly.
    let share = |k: u32| (f64::from(k) * 0.618_033_988_7).fract();
    let (mut n_kills, mut n_finished) = (0, 0);
    while n_kills < 30 {
        let resumed = place.path("run").exists();
        let before = saved_step(&place).filter(|_| resumed).unwrap_or(0);
        let arguments = if resumed { vec!["resume", "run"] } else { stepwise("run") };
        let mut child = start(&place, &arguments);
        sleep(whole.mul_f64(share(n_kills) * 0.9));
        child.kill().expect("it is ours");
        let ended = child.wait().expect("it ends");
        n_kills += 1;
        if !place.path("run/manifest.json").exists() {
            // It was killed before it began.
            fs::remove_dir_all(place.path("run")).ok();
            continue;
        }
        assert!(saved_step(&place).unwrap_or(0) >= before, "no checkpoint is lost");
        let is_done = place.read_json("run/manifest.json")["status"] == "done";
        if ended.success() || is_done {
            place.beear(&["resume", "run"]).printed();
            assert_as_undisturbed(&place);
            fs::remove_dir_all(place.path("run")).expect("it is ours");
            n_finished += 1;
        }
    }
    if place.path("run").exists() {
        place.beear(&["resume", "run"]).printed();
        assert_as_undisturbed(&place);
    }
    assert!(n_finished < 30, "most were killed on their way");
}

#[test]
fn a_torn_checkpoint_is_passed_over() {
    let place = undisturbed();
    let arguments = [stepwise("run"), vec!["--keep-checkpoints", "3"]].concat();
    let mut child = start(&place, &arguments);
    wait_for_step(&place, 8);
    child.kill().expect("it is ours");
    child.wait().expect("it ends");
    let step = saved_step(&place).expect("it has begun");
    let state = place.path(&format!("run/checkpoints/step-{step}/state.safetensors"));
    let mut bytes = fs::read(&state).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&state, bytes).unwrap();
    let finished = place.beear(&["resume", "run"]);
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    let said = format!("going on after step {},", step - 1);
    let newer = format!("going on after step {},", step + 1);
    let says = finished.stderr.contains(&said) || finished.stderr.contains(&newer);
    assert!(says, "{said} {}", finished.stderr);
    for file in SAME {
        assert!(
            fs::read(place.path("run").join(file)).unwrap()
                == fs::read(place.path("whole").join(file)).unwrap()
        );
    }
    let kept = fs::read_dir(place.path("run/checkpoints")).unwrap().count();
    assert_eq!(kept, 3, "as was asked for");
}

#[test]
fn a_run_whose_time_is_up_can_be_gone_on_with() {
    let place = undisturbed();
    let finished = place.beear(&[stepwise("run"), vec!["--max-time", "0s"]].concat());
    assert_eq!(finished.code, 9);
    let said = "error: stopped: the time is up\nhint: `beear resume run/` goes on\n";
    assert_eq!((finished.stderr.as_str(), finished.stdout.as_str()), (said, ""));
    assert_eq!(place.beear(&["resume", "run", "--max-time", "0s"]).code, 9);
    place.beear(&["resume", "run", "--quiet"]).printed();
    assert_as_undisturbed(&place);
    let again = place.beear(&["resume", "run"]);
    assert!(again.stderr.starts_with("the run is done\n"), "{}", again.stderr);
    assert_eq!(again.stdout, "run/model\n");
}

#[test]
fn two_processes_do_not_share_a_run() {
    let place = Place::new();
    let long = ["--quiet", "--set", "method.entrap.steps=100000"];
    let usual = defend_arguments(["safety.jsonl", "ordinary.json", "run"]);
    let mut child = start(&place, &[usual.clone(), long.to_vec()].concat());
    wait_for_step(&place, 0);
    for arguments in [vec!["resume", "run"], [usual, vec!["--force", "--quiet"]].concat()] {
        let refused = place.beear(&arguments);
        let (code, said) = refused.mistake();
        assert_eq!(code, 2);
        assert!(said.contains("another process is writing to `run`"), "{said}");
    }
    assert!(child.try_wait().unwrap().is_none(), "it goes on");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(place.path("run/metrics.jsonl").exists(), "nothing was removed");
}

#[test]
fn a_run_whose_input_has_changed_is_refused() {
    let place = Place::new();
    assert_eq!(place.beear(&[stepwise("run"), vec!["--max-time", "0s"]].concat()).code, 9);
    let text = place.read("safety.jsonl");
    let fewer: Vec<&str> = text.lines().skip(1).collect();
    place.write("safety.jsonl", fewer.join("\n"));
    let refused = place.beear(&["resume", "run"]);
    assert_eq!(refused.mistake().0, 3);
    assert!(
        refused.stderr.contains("an input of the run is not what it was"),
        "{}",
        refused.stderr
    );
    place.write("safety.jsonl", text);
    let other = place.beear(&["--backend", "ndarray", "resume", "run"]);
    assert_eq!(other.mistake().0, 2);
    assert!(other.stderr.contains("the run is on backend `flex`"), "{}", other.stderr);
    assert_eq!(place.beear(&["resume", "model"]).mistake().0, 2);
}

#[test]
fn numbers_that_leave_the_real_line_once_are_left_behind_at_half_the_rates() {
    let place = Place::new();
    // The squares of the second round's δ overflow, those of half of it do not.
    let settings = ["method.entrap={ steps = 1, step_size = { absolute = 3e18 }, batch_size = 4 }"];
    let settings = settings.map(|setting| ["--set", setting]).concat();
    let finished = place.defend(["safety.jsonl", "ordinary.json", "run"], &settings);
    assert!([0, 7].contains(&finished.code), "{}", finished.stderr);
    assert!(finished.stderr.contains("back to step 3, at half the learning rates"));
    let events = place.read_lines("run/metrics.jsonl");
    let rolled_back: Vec<&Value> =
        events.iter().filter(|event| event["event"] == "rolled_back").collect();
    assert_eq!(rolled_back.len(), 1);
    assert_eq!((&rolled_back[0]["step"], &rolled_back[0]["rate_factor"]), (&json!(3), &json!(0.5)));
    let because = rolled_back[0]["because"].as_str().unwrap();
    assert!(
        because.contains("non-finite delta") && because.contains("safety examples ["),
        "{because}"
    );
}

#[test]
fn a_run_without_checkpoints_writes_none_and_starts_anew() {
    let place = undisturbed();
    let stopped = "error: stopped as asked, without a checkpoint\n\
                   hint: `beear resume run/` starts from the beginning\n";
    let mut arguments = stepwise("run");
    let every =
        arguments.iter().position(|word| *word == "--checkpoint-every").expect("it has one");
    arguments[every + 1] = "never";
    let mut command = Command::new(env!("CARGO_BIN_EXE_beear"));
    command.args(&arguments).current_dir(place.path("")).stdin(Stdio::null());
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("the first step", || {
        // The file is made just after signals are listened to.
        place.path("run/metrics.jsonl").exists().then_some(())
    });
    signal(&child, "INT");
    let ended = child.wait_with_output().expect("it ends");
    assert_eq!(ended.status.code(), Some(130));
    assert_eq!(String::from_utf8_lossy(&ended.stderr), stopped);
    assert!(!place.path("run/checkpoints").exists());
    let finished = place.beear(&["resume", "run"]);
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    assert!(finished.stderr.contains("starting from the beginning"), "{}", finished.stderr);
    assert!(!place.path("run/checkpoints").exists());
    assert_as_undisturbed(&place);
}

#[test]
fn what_cannot_be_gone_on_with_is_refused_before_anything_is_written() {
    let place = Place::new();
    let usual = defend_arguments(["safety.jsonl", "ordinary.json", "run"]);
    let never = [usual, vec!["--checkpoint-every", "never"]].concat();
    for (more, reason) in [
        (["--max-time", "1h"], "a run without checkpoints cannot be gone on with"),
        (["--keep-checkpoints", "1"], "a run without checkpoints keeps none"),
    ] {
        let refused = place.beear(&[never.as_slice(), &more].concat());
        let (code, said) = refused.mistake();
        assert_eq!(code, 2);
        assert!(said.contains(reason), "{said}");
        assert!(!place.path("run").exists(), "{reason}");
    }
}

#[test]
fn checkpoints_that_a_kill_at_the_end_has_left_are_removed() {
    let place = Place::new();
    let torn = ["step-9/COMPLETE", ".step-10.partial/progress.json"];
    for (more, stay) in [(vec![], false), (vec!["--keep-checkpoints", "1"], true)] {
        place.beear(&[stepwise("run"), more].concat()).printed();
        for name in torn {
            let path = place.path("run/checkpoints").join(name);
            fs::create_dir_all(path.parent().expect("it has one")).unwrap();
            fs::write(path, "{}").unwrap();
        }
        place.beear(&["resume", "run"]).printed();
        assert_eq!(place.path("run/checkpoints").exists(), stay);
        fs::remove_dir_all(place.path("run")).unwrap();
    }
}

#[test]
fn patience_with_rounds_beyond_the_bounds_ends() {
    let place = Place::new();
    let settings = [
        "method.rounds=9",
        "method.patience=2",
        "method.remove.learning_rate=1.0",
        "method.bounds.loss_rise=0.0",
        "held_out=0.5",
    ];
    let settings = settings.map(|setting| ["--set", setting]).concat();
    let finished = place.defend(["safety.jsonl", "ordinary.json", "run"], &settings);
    assert_eq!(finished.code, 7, "{}", finished.stderr);
    let said = "beyond the bounds for too long, stopping";
    assert!(finished.stderr.contains(said), "{}", finished.stderr);
    let manifest = place.read_json("run/manifest.json");
    let within: Vec<bool> = manifest["rounds"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|round| round["within_bounds"].as_bool().expect("it is watched"))
        .collect();
    // Steps of this size leave no model: two rounds beyond the bounds come first, and end the run.
    assert_eq!(within, [false, false]);
    let events = place.read_lines("run/metrics.jsonl");
    assert_eq!(events.last(), Some(&json!({"event": "out_of_bounds", "round": 1})));
}
