//! `bench gpu` on the CPU, with a model as small as the fixture's: what is printed, not how fast it is.

use serde_json::{Value, json};

use crate::fixture::Place;

/// Sizes that take no time; the fixture's model reads 64 tokens.
const SMALL: [&str; 8] =
    ["--prompt-length", "24", "--answer-length", "8", "--steps", "3", "--matmul-size", "32"];

fn bench(place: &Place, more: &[&str]) -> Value {
    let start =
        ["--quiet", "--json", "bench", "gpu", "--config", "model", "--recipe", "quick.toml"];
    place.beear(&[start.as_slice(), &SMALL, more].concat()).json()
}

fn positive(value: &Value, keys: &[&str]) {
    for key in keys {
        assert!(value[key].as_f64().is_some_and(|number| number > 0.0), "{key} of {value}");
    }
}

fn ordered(seconds: &Value) {
    positive(seconds, &["median", "min", "max"]);
    let number = |key: &str| seconds[key].as_f64().expect("it is positive");
    let [min, median, max] = ["min", "median", "max"].map(number);
    assert!(min <= median && median <= max, "{seconds}");
}

#[test]
fn every_number_of_every_job_is_there() {
    let place = Place::new();
    for dtype in ["f32", "bf16"] {
        let report = bench(&place, &["--dtype", dtype]);
        assert_eq!((&report["backend"], &report["dtype"]), (&"flex".into(), &dtype.into()));
        ordered(&report["matmul"]["seconds"]);
        positive(&report["matmul"], &["tflops"]);
        positive(&report["workload"], &["n_weights", "layer", "inner_batch_size", "warm_up"]);
        // Layer 1 of 2, on the last 5 tokens of 24.
        let positions: Vec<usize> = (19..24).collect();
        assert_eq!(report["workload"]["perturbed_positions"], Value::from(positions));
        let jobs = report["jobs"].as_array().unwrap();
        let names: Vec<&str> = jobs.iter().filter_map(|job| job["job"].as_str()).collect();
        assert_eq!(names, ["inner-whole", "inner-remembered", "decode", "outer-lora", "outer"]);
        for job in jobs {
            ordered(&job["seconds"]);
            let numbers =
                ["tokens", "operations", "tokens_per_second", "tflops", "share_of_matmul"];
            positive(job, &numbers);
            if cfg!(target_os = "linux") {
                positive(job, &["host_peak_mib"]);
            }
            // Present on a machine that has `nvidia-smi`; null elsewhere.
            let device = job.get("device_mib").unwrap();
            assert!(device.is_null() || device.is_u64(), "{device}");
        }
        // 4 rows of 24 + 8 tokens, the last of which is a target only; 8 new ones for each answer.
        let tokens: Vec<u64> = jobs.iter().filter_map(|job| job["tokens"].as_u64()).collect();
        assert_eq!(tokens, [4 * 31, 4 * 31, 4 * 8, 8 * 31, 8 * 31]);
        assert_eq!(
            (&jobs[0]["remembered_tokens"], &jobs[1]["remembered_tokens"]),
            (&0.into(), &19.into())
        );
        positive(&jobs[0], &["prepare_seconds"]);
        assert_eq!(jobs[4]["trained_weights"], report["workload"]["n_weights"]);
        positive(&jobs[3], &["trained_weights"]);
        assert!(jobs[2]["trained_weights"].is_null());
    }
}

#[test]
fn the_recipe_says_what_an_outer_step_trains() {
    let place = Place::new();
    let set = |assignment: &'static str| ["--set", assignment];
    let layer = set("train.layers=[1, 2]");
    let lora = [set("train.weights=lora"), set("train.lora.rank=2")].concat();
    let steps = ["--job", "outer", "--job", "outer-lora"];
    let report = bench(&place, &[steps.as_slice(), &layer, &lora].concat());
    assert_eq!(report["workload"]["trained_layers"], json!([1, 2]));
    assert_eq!(report["workload"]["lora"]["rank"], 2);
    let [adapters, weights] = [&report["jobs"][0], &report["jobs"][1]];
    assert_eq!((&adapters["job"], &weights["job"]), (&"outer-lora".into(), &"outer".into()));
    // A layer of the fixture's model: width 16, 4 heads of 4 with 2 of keys, an MLP of 256; two norms.
    let widths = [[16, 16], [16, 8], [16, 8], [16, 16], [16, 256], [16, 256], [256, 16]];
    let products: u64 = widths.iter().map(|[input, output]| input * output).sum();
    assert_eq!(weights["trained_weights"], products + 2 * 16);
    let thin: u64 = widths.iter().flatten().map(|width| 2 * width).sum();
    assert_eq!(adapters["trained_weights"], thin);
    // No gradients of what is frozen.
    assert!(adapters["operations"].as_f64() < weights["operations"].as_f64());
}

#[test]
fn a_whole_run_has_all_its_steps() {
    let place = Place::new();
    let assignments =
        ["method.rounds=2", "method.perturbations_per_round=3", "method.entrap.steps=4"];
    let assignments =
        assignments.into_iter().chain(["method.remove.steps=5", "train.weights=lora"]);
    let set: Vec<&str> = assignments.flat_map(|assignment| ["--set", assignment]).collect();
    let report = bench(&place, &[["--job", "run"].as_slice(), &set].concat());
    let run = &report["jobs"][0];
    assert_eq!(run["job"], "run");
    ordered(&run["seconds"]);
    positive(run, &["operations", "trained_weights"]);
    // Rows of 24 and, less the last, of 6 answer tokens: 4 an inner step. Of 24 and 8: 8 an outer one.
    assert_eq!(run["tokens"], 2 * (3 * 4 * 4 * 29 + 5 * 8 * 31));
}

#[test]
fn one_job_and_another_batch_size_can_be_asked_for() {
    let place = Place::new();
    let report = bench(&place, &["--job", "decode", "--batch", "2"]);
    let jobs = report["jobs"].as_array().unwrap();
    assert_eq!((jobs.len(), &jobs[0]["tokens"]), (1, &16.into()));
}

#[test]
fn people_get_a_table_and_what_was_counted() {
    let place = Place::new();
    let start = ["bench", "gpu", "--config", "model/config.json", "--job", "inner-whole"];
    let printed = place.beear(&[start.as_slice(), &SMALL, &["--batch", "2"]].concat()).printed();
    for part in ["TFLOP/s", "| InnerWhole |", "Operations counted: forward 2 x"] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let place = Place::new();
    let start = ["bench", "gpu", "--config", "model"];
    let long = place.beear(&[start.as_slice(), &["--prompt-length", "60"]].concat());
    let (code, said) = long.mistake();
    assert!(code == 2 && said.contains("124 tokens, the model reads 64"), "{said}");
    let zero = place.beear(&[start.as_slice(), &["--steps", "0"]].concat());
    assert_eq!(zero.mistake().0, 2);
    let ndarray = ["--backend", "ndarray", "--dtype", "bf16"];
    let narrow = place.beear(&[start.as_slice(), &SMALL, &ndarray].concat());
    let (code, said) = narrow.mistake();
    assert!(code == 5 && said.contains("BF16"), "{said}");
}
