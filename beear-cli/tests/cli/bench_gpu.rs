//! `bench gpu` on the CPU, with a model as small as the fixture's: what is printed, not how fast it is.

use serde_json::Value;

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
        assert_eq!(names, ["inner-whole", "inner-remembered", "decode", "outer"]);
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
        assert_eq!(tokens, [4 * 31, 4 * 31, 4 * 8, 8 * 31]);
        assert_eq!(
            (&jobs[0]["remembered_tokens"], &jobs[1]["remembered_tokens"]),
            (&0.into(), &19.into())
        );
        positive(&jobs[0], &["prepare_seconds"]);
    }
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
