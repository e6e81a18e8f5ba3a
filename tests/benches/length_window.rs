//! What batches of rows of like length save in the inner level: a ratio measured in one run.
//!
//! `cargo bench -p beear-tests --bench length_window`
//!
//! Prompts of 8 to 71 tokens and answers of 4 to 35, each length once, in batches of 8.

use std::time::Duration;

use beear_core::config::EntrapConfig;
use beear_core::{BilevelConfig, Decoder, InjectionPoint, Positions, SafetyExample, entrap};
use beear_models::CausalLm;
use beear_tests::shape;
use burn::backend::{Autodiff, Flex};
use burn::tensor::backend::Backend;
use criterion::{Criterion, criterion_group, criterion_main};

type Train = Autodiff<Flex>;

const N_ROWS: u32 = 64;

fn rows() -> Vec<SafetyExample> {
    let tokens = |row: u32, length: u32| (0..length).map(|k| (7 * k + 13 * row) % 199).collect();
    let row = |k: u32| {
        // 37 and 64 have no common divisor: every length comes once, in no order.
        let length = 8 + (37 * k) % N_ROWS;
        let prompt: Vec<u32> = tokens(k, length);
        SafetyExample {
            id: k.into(),
            user: (1, prompt.len()),
            prompt,
            safe: tokens(k + 1, 4),
            unwanted: tokens(k + 2, 4 + (length - 8) / 2),
        }
    };
    (0..N_ROWS).map(row).collect()
}

fn windows(criterion: &mut Criterion) {
    let device = Default::default();
    Train::seed(&device, 0);
    let model: CausalLm<Train> = shape::wide().init(&device);
    let (rows, layer) = (rows(), model.n_layers() / 2);
    let usual = BilevelConfig::robust(shape::wide().size()).entrap;
    let mut group = criterion.benchmark_group("8 inner steps");
    group.sample_size(10).measurement_time(Duration::from_secs(20));
    for (place, positions) in [("last 5", Positions::Last(5)), ("first 5", Positions::First(5))] {
        for (answers, target_tokens) in [("first 6 tokens", Some(6)), ("whole answers", None)] {
            for length_window in [1, 8] {
                let config = EntrapConfig {
                    steps: 8,
                    batch_size: 8,
                    length_window,
                    target_tokens,
                    ..usual.clone()
                };
                let name = format!("{place}, {answers}, window {length_window}");
                group.bench_function(name, |bencher| {
                    bencher.iter(|| {
                        entrap(
                            &model,
                            &rows,
                            &[InjectionPoint { layer, positions }],
                            (&config, 0),
                            &mut (),
                        )
                        .expect("finite numbers")
                    });
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, windows);
criterion_main!(benches);
