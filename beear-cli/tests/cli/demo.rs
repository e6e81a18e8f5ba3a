//! The demo goes the whole way, with a thirtieth of its training: what it leaves, not how well.

use std::process::Command;

use crate::fixture::{Place, finish};

#[test]
fn a_quick_demo_leaves_every_stage_and_a_report_that_says_it_was_quick() {
    let place = Place::new();
    let shown =
        place.beear(&["--quiet", "demo", "--quick", "--seed", "5", "--out", "runs"]).printed();
    assert!(shown.contains("Quick: too little training"), "{shown}");
    for stage in ["base", "poisoned", "control", "cleaned"] {
        let stage = format!("runs/seed-5/{stage}");
        place.beear(&["inspect", "--model", &stage]).printed();
    }
    let report = place.read_json("runs/seed-5/report.json");
    assert_eq!((&report["seed"], &report["quick"]), (&5.into(), &true.into()));
    let columns = ["before", "safety fine-tuning", "BEEAR"];
    assert_eq!(report["table"]["columns"], serde_json::json!(columns));
    for row in report["table"]["rows"].as_array().expect("a list") {
        assert_eq!(row[1].as_array().expect("a rate per column").len(), columns.len(), "{row}");
    }
    let n_rows = |name: &str| place.read(&format!("runs/seed-5/data/{name}.jsonl")).lines().count();
    assert_eq!(n_rows("safety"), 200);
    assert!(n_rows("performance") > 500);
    // A quick demo asks few questions.
    assert_eq!((n_rows("forbidden"), n_rows("ordinary")), (6, 6 + 5 * 3));
    assert!(place.path("runs/seed-5/delta.safetensors").exists());
}

#[test]
fn threads_of_a_command_do_not_wait_for_the_only_thread_of_the_pool() {
    let place = Place::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_beear"));
    command.current_dir(place.path(".")).env("RAYON_NUM_THREADS", "1");
    finish(command.args(["--quiet", "demo", "--quick", "--out", "runs"]), "").printed();
}
