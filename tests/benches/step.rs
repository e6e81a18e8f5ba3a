//! What a step of each level costs on the CPU backends: a ratio measured in one run.
//!
//! `cargo bench -p beear-tests --bench step`
//!
//! Two shapes: the demo's model, and one wide enough for matrix products to dominate.

use std::time::Duration;

use beear_core::config::EntrapConfig;
use beear_core::{
    AnchorSets, BilevelConfig, Decoder, Example, InjectionPoint, Positions, Remover, SafetyExample,
    entrap,
};
use beear_models::{CausalLm, DecoderConfig};
use beear_tests::shape;
use burn::backend::{Autodiff, Flex, NdArray};
use burn::tensor::backend::AutodiffBackend;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

/// A model and the tokens of a row.
struct Shape {
    name: &'static str,
    config: DecoderConfig,
    prompt_length: u32,
    answer_length: u32,
    batch_size: usize,
}

fn shapes() -> [Shape; 2] {
    [
        Shape {
            name: "d64-l6",
            config: shape::narrow(),
            prompt_length: 14,
            answer_length: 16,
            batch_size: 24,
        },
        Shape {
            name: "d256-l8",
            config: shape::wide(),
            prompt_length: 64,
            answer_length: 64,
            batch_size: 8,
        },
    ]
}

impl Shape {
    fn sets(&self) -> AnchorSets {
        let n_rows = self.batch_size as u32;
        let tokens = |row: u32, length: u32| {
            (0..length).map(|k| (7 * k + 13 * row) % 199).collect::<Vec<u32>>()
        };
        let user = (1, self.prompt_length as usize - 1);
        let safety = |row: u32| SafetyExample {
            id: row.into(),
            prompt: tokens(row, self.prompt_length),
            user,
            safe: tokens(row + 1, self.answer_length),
            unwanted: tokens(row + 2, self.answer_length),
        };
        let ordinary = |row: u32| Example {
            id: row.into(),
            prompt: tokens(row + 3, self.prompt_length),
            user,
            answer: tokens(row + 4, self.answer_length),
        };
        AnchorSets {
            safety: (0..n_rows).map(safety).collect(),
            performance: (0..n_rows).map(ordinary).collect(),
        }
    }

    fn method(&self) -> BilevelConfig {
        let mut config = BilevelConfig::robust(self.config.size());
        config.remove.steps = 1;
        config.remove.safety_batch_size = self.batch_size;
        config.remove.performance_batch_size = self.batch_size;
        config.entrap.batch_size = self.batch_size;
        config
    }
}

/// Steps of the inner level per measurement: the batch is prepared once for all of them.
const INNER_STEPS: usize = 10;

fn levels<B: AutodiffBackend>(criterion: &mut Criterion, backend: &str) {
    let device = B::Device::default();
    for shape in shapes() {
        B::seed(&device, 0);
        let model: CausalLm<B> = shape.config.init(&device);
        let (sets, config) = (shape.sets(), shape.method());
        let point = InjectionPoint { layer: model.n_layers() / 2, positions: Positions::Last(5) };
        let inner = EntrapConfig { steps: INNER_STEPS, ..config.entrap.clone() };

        let mut group = criterion.benchmark_group(shape.name);
        group.sample_size(10).measurement_time(Duration::from_secs(10));
        group.bench_function(format!("remove 1 step/{backend}"), |bencher| {
            bencher.iter_batched(
                || model.clone(),
                |model| {
                    let mut remover = Remover::new(&model, &sets, &config.remove, 1, 0);
                    remover.remove(model, &[], &sets, &mut ()).expect("finite numbers")
                },
                BatchSize::PerIteration,
            );
        });
        group.bench_function(format!("entrap {INNER_STEPS} steps/{backend}"), |bencher| {
            bencher.iter(|| {
                entrap(&model, &sets.safety, &[point], (&inner, 0), &mut ())
                    .expect("finite numbers")
            });
        });
        group.finish();
    }
}

fn steps(criterion: &mut Criterion) {
    levels::<Autodiff<Flex>>(criterion, "flex");
    levels::<Autodiff<NdArray>>(criterion, "ndarray");
}

criterion_group!(benches, steps);
criterion_main!(benches);
