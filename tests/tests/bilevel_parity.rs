//! Both levels of the method take the steps that `goldens/make_bilevel.py` takes in PyTorch, on every
//! backend: those on the CPU always, the others with `--features wgpu` or `cuda`.
//!
//! Every batch holds all rows: the order in which they are drawn changes sums by rounding only. The
//! script says why gradients are clipped so short: it keeps Adam from making rounding visible.

use beear_core::config::{EntrapConfig, RemoveConfig};
use beear_core::{Delta, Event, InjectionPoint, Perturbation, Remover, entrap};
use beear_tests::agreement::{F32_AGREEMENT, assert_agrees, relative_distance};
use beear_tests::golden::{self, Golden};
use beear_tests::weights::weights;
use burn::backend::{Autodiff, Flex, NdArray};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Tensor, TensorData};
use serde_json::Value;

/// Any: no sampler matters here.
const SEED: u64 = 5;

fn expected() -> Golden {
    Golden::read("bilevel.safetensors")
}

fn settings() -> Value {
    golden::json("bilevel.json")
}

fn parsed<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).expect("the settings are those of beear-core")
}

/// Name, injection points (from the lowest layer to the highest) and settings of each entrapment.
fn entrapments() -> Vec<(String, Vec<InjectionPoint>, EntrapConfig)> {
    let settings = settings();
    let all = settings["entrap"].as_array().expect("a list");
    all.iter()
        .map(|e| (parsed(&e["name"]), parsed(&e["injection_points"]), parsed(&e["config"])))
        .collect()
}

const CASE: &str = "llama3-rope";

/// The tests of a backend.
macro_rules! backend {
    ($name:ident, $backend:ty) => {
        mod $name {
            use super::*;

            #[test]
            fn ten_inner_steps_find_the_same_perturbation_by_the_same_losses() {
                inner_level::<Autodiff<$backend>>();
            }

            #[test]
            fn three_outer_steps_give_the_same_weights_by_the_same_losses() {
                outer_level::<Autodiff<$backend>>(false);
            }

            #[test]
            fn so_they_do_with_the_activations_of_one_layer_at_a_time() {
                outer_level::<Autodiff<$backend>>(true);
            }
        }
    };
}

backend!(flex, Flex);
backend!(ndarray, NdArray);
#[cfg(feature = "wgpu")]
backend!(wgpu, burn::backend::Wgpu);
#[cfg(feature = "cuda")]
backend!(cuda, burn::backend::Cuda);

fn inner_level<B: AutodiffBackend>() {
    let model = golden::model::<B>(CASE);
    let (expected, rows) = (expected(), golden::rows().safety);
    for (name, injection_points, config) in entrapments() {
        assert_eq!((config.steps, config.batch_size), (10, rows.len()));
        let mut losses = Vec::new();
        let mut observer = |event: &Event| {
            if let Event::InnerStep { loss, .. } = event {
                losses.push(*loss as f32);
            }
        };
        let found = entrap(&model, &rows, &injection_points, (&config, SEED), &mut observer)
            .expect("finite numbers");
        assert_agrees(&losses, &expected, &format!("{name}.losses"));
        assert_eq!(found.perturbation.injection_points(), injection_points);
        for (k, delta) in found.perturbation.deltas().iter().enumerate() {
            let values: Vec<f32> = delta.values.clone().into_data().iter().collect();
            assert_agrees(&values, &expected, &format!("{name}.delta.{k}"));
        }
    }
}

#[test]
fn the_norm_bound_of_the_goldens_is_reached() {
    let delta = expected().values("bounded.delta.0");
    let width = delta.len() / 2;
    let length = |row: &[f32]| row.iter().map(|value| value * value).sum::<f32>().sqrt();
    let (first, second) = (length(&delta[..width]), length(&delta[width..]));
    assert!((first / second - 1.0).abs() < 1e-5, "both rows are as long as allowed");
}

/// The perturbations that PyTorch found, so that the outer level is judged by itself.
fn perturbations<B: Backend>(expected: &Golden) -> Vec<Perturbation<B>> {
    let found = entrapments().into_iter().map(|(name, injection_points, _)| {
        let delta = |(k, point): (usize, InjectionPoint)| {
            let values = expected.values(&format!("{name}.delta.{k}"));
            let n_tokens = point.positions.n_tokens();
            let shape = [n_tokens, values.len() / n_tokens];
            let values = Tensor::from_data(TensorData::new(values, shape), &Default::default());
            Delta { point, values }
        };
        Perturbation::new(injection_points.into_iter().enumerate().map(delta).collect())
    });
    found.collect()
}

fn outer_level<B: AutodiffBackend>(activation_checkpointing: bool) {
    let start = golden::model::<B>(CASE);
    let (expected, sets) = (expected(), golden::rows());
    let settings = settings();
    let config: RemoveConfig = parsed(&settings["remove"]);
    let config = RemoveConfig { activation_checkpointing, ..config };
    assert_eq!((config.steps, config.performance_batch_size), (3, sets.performance.len()));
    let total_steps = parsed(&settings["total_steps"]);
    let before = weights(&start);

    let mut log = Vec::new();
    let mut observer = |event: &Event| {
        if let Event::OuterStep { terms, gradient_norm, learning_rate, .. } = event {
            let terms = [terms.safety, terms.performance, terms.divergence];
            log.push(terms.into_iter().chain([*gradient_norm, *learning_rate]));
        }
    };
    let mut remover = Remover::new(&start, &sets, &config, total_steps, SEED);
    let found = perturbations::<B::InnerBackend>(&expected);
    let cleaned = remover.remove(start, &found, &sets, &mut observer).expect("finite numbers");
    let columns = ["safety", "performance", "divergence", "gradient_norm", "learning_rate"];
    let log: Vec<Vec<f64>> = log.into_iter().map(Iterator::collect).collect();
    for (column, name) in columns.iter().enumerate() {
        let values: Vec<f32> = log.iter().map(|step| step[column] as f32).collect();
        assert_agrees(&values, &expected, &format!("log.{name}"));
    }

    let after = weights(&cleaned);
    assert_eq!(after.len(), expected.names("weight.").len());
    for (name, found) in &after {
        let wanted = expected.values(&format!("weight.{name}"));
        assert_agrees(found, &expected, &format!("weight.{name}"));
        let change = |after: &[f32]| -> Vec<f64> {
            let pairs = after.iter().zip(&before[name]);
            pairs.map(|(after, before)| f64::from(*after) - f64::from(*before)).collect()
        };
        let distance = relative_distance(&change(found), &change(&wanted));
        println!("{expected} change of {name}: {distance:.1e}");
        assert!(distance <= F32_AGREEMENT, "change of {name}: {distance:.1e}");
    }
}
