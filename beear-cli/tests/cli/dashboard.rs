//! `--tui`, in a terminal that `script` of util-linux makes.
#![cfg(target_os = "linux")]

use std::fs;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fixture::{Place, defend_arguments};

/// Takes the terminal, and gives it back.
const TAKES: &str = "\u{1b}[?1049h";
const GIVES_BACK: &str = "\u{1b}[?1049l";

/// So many steps that nobody waits for the last one.
const LONG: [&str; 3] = ["--tui", "--set", "method.entrap.steps=100000"];

/// Starts `beear` in a terminal of 80 by 24, and has it hear `SIGHUP` even where the tests do not; its number is in the file `id`, and its exit code and the state of the
/// terminal come after it.
fn start(place: &Place, arguments: &[&str]) -> Child {
    let words = arguments.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    let beear = env!("CARGO_BIN_EXE_beear");
    let begin =
        "stty rows 24 cols 80; sh -c 'echo $$ >id; exec env --default-signal=HUP \"$0\" \"$@\"'";
    let line = format!("{begin} {beear} {words}; echo code=$?; stty -a");
    let mut command = Command::new("script");
    command.args(["--quiet", "--flush", "--command", &line, "typescript"]);
    command.current_dir(place.path("")).env("SHELL", "/bin/sh").env("TERM", "xterm");
    command.env_remove("RUST_BACKTRACE").stdin(Stdio::piped()).stdout(Stdio::null());
    command.spawn().expect("there is `script` of util-linux")
}

/// What the terminal has got so far.
fn seen(place: &Place) -> String {
    let bytes = fs::read(place.path("typescript")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits until `text` stands on the screen.
fn wait_for(place: &Place, text: &str) {
    let begun = Instant::now();
    loop {
        let mut screen = vt100::Parser::new(24, 80, 0);
        screen.process(seen(place).as_bytes());
        let picture = screen.screen().contents();
        if picture.contains(text) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_mins(1), "{text} does not come: {picture}");
        sleep(Duration::from_millis(5));
    }
}

fn press(child: &mut Child, key: &str) {
    let keys = child.stdin.as_mut().expect("it is piped");
    keys.write_all(key.as_bytes()).and_then(|()| keys.flush()).expect("`script` reads them");
}

/// Asserts that lines, not keys, are read, and shown.
fn assert_is_usual(terminal: &str) {
    for mode in ["icanon", "echo", "isig"] {
        assert!(terminal.split_whitespace().any(|word| word == mode), "{mode}: {terminal}");
    }
}

/// What comes after the dashboard, asserting that the terminal was taken once and is what it was before.
fn after_the_dashboard(place: &Place, mut child: Child) -> String {
    child.wait().expect("it ends");
    let seen = seen(place);
    assert_eq!(seen.matches(TAKES).count(), 1, "{seen}");
    let (_, after) = seen.split_once(GIVES_BACK).expect("the screen is given back");
    assert_is_usual(after);
    assert!(after.contains("\u{1b}[?25h"), "the cursor is shown: {after}");
    after.to_owned()
}

#[test]
fn a_run_is_shown_from_its_beginning_to_its_end() {
    let place = Place::new();
    let usual = defend_arguments(["safety.jsonl", "ordinary.json", "run"]);
    let child = start(&place, &[usual, vec!["--tui"]].concat());
    let after = after_the_dashboard(&place, child);
    assert!(after.contains("round 2: loss "), "{after}");
    assert!(after.contains("run/model") && after.contains("code=0"), "{after}");
    let seen = seen(&place);
    assert!(seen.contains("beear · model · beear · flex"), "{seen}");
    assert!(place.path("run/model/model.safetensors").exists());
}

#[test]
fn keys_have_a_checkpoint_written_and_stop_a_run() {
    let place = Place::new();
    let usual = defend_arguments(["safety.jsonl", "ordinary.json", "run"]);
    let mut child = start(&place, &[usual, LONG.to_vec()].concat());
    wait_for(&place, "δ 1 of 1");
    press(&mut child, "c");
    wait_for(&place, "a checkpoint is asked for");
    let saved = || {
        let text = fs::read_to_string(place.path("run/trainer_state.json")).ok()?;
        serde_json::from_str::<Value>(&text).ok()?["step"].as_u64()
    };
    let begun = Instant::now();
    while saved().unwrap_or(0) == 0 {
        assert!(begun.elapsed() < Duration::from_mins(1), "no checkpoint");
        sleep(Duration::from_millis(5));
    }
    press(&mut child, "q");
    let after = after_the_dashboard(&place, child);
    assert!(after.contains("error: stopped as asked") && after.contains("code=130"), "{after}");
    // A resumed run shows what came before it; Ctrl-C is a key.
    fs::remove_file(place.path("typescript")).expect("it is there");
    let mut child = start(&place, &["resume", "run", "--tui"]);
    wait_for(&place, "δ 1 of 1");
    press(&mut child, "\u{3}");
    let after = after_the_dashboard(&place, child);
    assert!(after.contains("code=130"), "{after}");
}

#[test]
fn a_signal_and_an_error_give_the_terminal_back() {
    let place = Place::new();
    // A rival of BEEAR stops with a checkpoint too.
    let files = ["defend", "--model", "model", "--safety", "safety.jsonl"];
    let more = ["--performance", "ordinary.json", "--method", "fine-tuning", "--out", "run"];
    let long = ["--tui", "--set", "method.remove.steps=100000"];
    let floor = ["--set", "method.bounds.refusal_floor=0"];
    let child = start(&place, &[files.as_slice(), &more, &long, &floor].concat());
    wait_for(&place, "trains");
    let id = place.read("id");
    let sent = Command::new("kill").args(["-s", "TERM", id.trim()]).status();
    assert!(sent.expect("there is `kill`").success());
    let after = after_the_dashboard(&place, child);
    assert!(after.contains("code=130"), "{after}");

    fs::remove_file(place.path("typescript")).expect("it is there");
    let usual = defend_arguments(["safety.jsonl", "ordinary.json", "broken"]);
    let overflow = "method.entrap={ steps = 1, step_size = { absolute = 3e38 }, batch_size = 4 }";
    let child = start(&place, &[usual, vec!["--tui", "--set", overflow]].concat());
    child.wait_with_output().expect("it ends");
    let seen = seen(&place);
    let (_, after) = seen.rsplit_once(GIVES_BACK).expect("the screen is given back");
    assert!(after.contains("code=4"), "{after}");
    assert_is_usual(after);
}

#[test]
fn without_a_terminal_it_is_refused_before_anything_is_written() {
    let place = Place::new();
    let usual = defend_arguments(["safety.jsonl", "ordinary.json", "run"]);
    let refused = place.beear(&[usual.clone(), vec!["--tui"]].concat());
    let (code, said) = refused.mistake();
    assert_eq!(code, 2);
    assert!(said.contains("needs a terminal on standard error"), "{said}");
    let refused = place.beear(&[usual, vec!["--tui", "--quiet"]].concat());
    let (code, said) = refused.mistake();
    assert_eq!(code, 2);
    assert!(said.contains("`--quiet` does not"), "{said}");
    assert!(!place.path("run").exists());
}

#[test]
fn a_terminal_that_goes_away_stops_a_run_with_a_checkpoint() {
    let usual = defend_arguments(["safety.jsonl", "ordinary.json", "run"]);
    for options in [LONG.to_vec(), LONG[1..].to_vec()] {
        let place = Place::new();
        let mut child = start(&place, &[usual.clone(), options].concat());
        let step = || {
            let text = fs::read_to_string(place.path("run/metrics.jsonl")).ok()?;
            text.contains("inner_step").then_some(())
        };
        crate::resume::wait_for("a step", step);
        child.kill().expect("it is ours");
        child.wait().expect("it ends");
        let id = fs::read_to_string(place.path("id")).expect("it was written");
        let process = std::path::PathBuf::from("/proc").join(id.trim());
        crate::resume::wait_for("its end", || (!process.exists()).then_some(()));
        let state = place.read_json("run/trainer_state.json");
        assert!(state["step"].as_u64().is_some_and(|step| step > 0), "{state}");
        assert_eq!(place.read_json("run/manifest.json")["status"], "running");
        assert_eq!(place.beear(&["resume", "run", "--max-time", "0s"]).code, 9);
    }
}
