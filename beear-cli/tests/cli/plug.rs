//! A backend of a consumer's own, and that the embedded ones agree.

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use beear_cli::{Backends, ComputeBackend, Unavailable};
use burn::backend::{Autodiff, NdArray};
use burn::tensor::ops::Device;
use serde_json::Value;

use crate::fixture::{N_ROWS, Place, alone};

/// How often a device of [`Mine`] was asked for.
static N_DEVICES: AtomicUsize = AtomicUsize::new(0);

struct Mine;

impl ComputeBackend for Mine {
    type Train = Autodiff<NdArray>;
    const NAME: &'static str = "mine";
    fn device(_index: usize) -> Device<Self::Train> {
        N_DEVICES.fetch_add(1, Ordering::SeqCst);
        Default::default()
    }
}

/// A backend with two devices, on a machine that has none.
struct Absent;

impl ComputeBackend for Absent {
    type Train = Autodiff<NdArray>;
    const NAME: &'static str = "absent";
    fn device(_index: usize) -> Device<Self::Train> {
        panic!("a device that is not there is not opened")
    }
    fn availability(index: usize) -> Result<(), Unavailable> {
        Unavailable::unless(index > 1, Self::NAME, "it is not plugged in", "plug it in")
    }
}

fn run(arguments: &[&str], backends: &Backends) -> ExitCode {
    let _alone = alone();
    // The program is the tests', which is nothing to start again.
    beear_cli::run_without_isolation(["beear"].iter().chain(arguments), backends)
}

/// Runs `eval asr` on a backend, in this process, and returns its exit code.
fn eval(place: &Place, backend: &str, backends: &Backends) -> ExitCode {
    let path = |name: &str| place.path(name).to_string_lossy().into_owned();
    let [model, prompts, out] = [path("random"), path("safety.jsonl"), path("eval")];
    let files = ["--model", &model, "--prompts", &prompts, "--out", &out];
    let few = ["--backend", backend, "--quiet", "eval", "asr", "--max-new-tokens", "8"];
    run(&[few.as_slice(), &files].concat(), backends)
}

#[test]
fn a_backend_of_ones_own_runs_the_commands() {
    let place = Place::new();
    place.write_random_model("random");
    let backends = Backends::embedded().with::<Mine>();
    let before = N_DEVICES.load(Ordering::SeqCst);
    assert_eq!(eval(&place, "mine", &backends), ExitCode::SUCCESS);
    assert!(N_DEVICES.load(Ordering::SeqCst) > before, "it ran on the backend that was named");
    assert_eq!(place.read_lines("eval/completions.jsonl").len(), N_ROWS);

    let model = place.path("random").to_string_lossy().into_owned();
    let inspect = ["--backend", "mine", "inspect", "--model", &model];
    assert_eq!(run(&inspect, &backends), ExitCode::SUCCESS);
    // Without the plug there is no such backend.
    assert_eq!(eval(&place, "mine", &Backends::embedded()), ExitCode::from(5));
}

#[test]
fn a_backend_of_ones_own_can_train() {
    let place = Place::new();
    let path = |name: &str| place.path(name).to_string_lossy().into_owned();
    let [model, safety, performance, recipe, out] =
        ["model", "safety.jsonl", "ordinary.json", "quick.toml", "run"].map(path);
    let sets = ["--safety", &safety, "--performance", &performance];
    let defend = ["--backend", "mine:0", "--quiet", "defend", "--model", &model];
    let arguments = [defend.as_slice(), &sets, &["--recipe", &recipe, "--out", &out]].concat();
    assert_eq!(run(&arguments, &Backends::embedded().with::<Mine>()), ExitCode::SUCCESS);
    assert_eq!(place.read_json("run/manifest.json")["backend"], "mine");
}

#[test]
fn a_device_that_is_not_there_ends_with_5_before_it_is_opened() {
    let place = Place::new();
    place.write_random_model("random");
    let backends = Backends::embedded().with::<Mine>().with::<Absent>();
    // By default a backend has one device, of index 0.
    for backend in ["mine:1", "mine:x", "mine:-1", "absent", "absent:1", "nobody"] {
        assert_eq!(eval(&place, backend, &backends), ExitCode::from(5), "{backend}");
    }
    assert!(!place.path("eval").exists());
}

#[test]
fn the_embedded_backends_give_the_same_greedy_answers() {
    let place = Place::new();
    place.write_random_model("random");
    let answers = |backend: &str| {
        let generate = ["generate", "--model", "random", "--file", "safety.jsonl", "--json"];
        let few = ["--max-new-tokens", "16", "--backend", backend];
        place.beear(&[generate.as_slice(), &few].concat()).printed()
    };
    let flex = answers("flex");
    assert_eq!(flex, answers("ndarray:0"));
    let lines = crate::fixture::json_lines(&flex);
    let texts: std::collections::BTreeSet<&str> =
        lines.iter().filter_map(|line: &Value| line["answer"].as_str()).collect();
    assert!(texts.len() > 1, "answers that depend on the prompt can differ: {texts:?}");
}
