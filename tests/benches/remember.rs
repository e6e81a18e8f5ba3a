//! What an inner step saves by remembering the tokens before `δ`: ratios measured in one run.
//!
//! `cargo bench -p beear-tests --bench remember`
//!
//! A step is the loss of a batch of 8 and the gradient of `δ` on the last 5 tokens of the prompt, over the
//! layer, the length of the prompt and the length of the answer.

use std::time::Duration;

use beear_core::objective::entrapment::{PreparedAnswer, entrapment_loss};
use beear_core::{Batch, Decoder, Delta, Example, InjectionPoint, Perturbation, Positions};
use beear_models::CausalLm;
use beear_tests::shape;
use burn::backend::{Autodiff, Flex};
use burn::module::{AutodiffModule, Module};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

type Train = Autodiff<Flex>;

const BATCH_SIZE: u32 = 8;

/// The same number of prompt tokens in every row, and of answer tokens.
fn batch(prompt_length: u32, answer_length: u32) -> Batch<Train> {
    let tokens = |row: u32, length: u32| (0..length).map(|k| (7 * k + 13 * row) % 199).collect();
    let example = |row: u32| Example {
        id: row.into(),
        prompt: tokens(row, prompt_length),
        user: (1, prompt_length as usize),
        answer: tokens(row + 2, answer_length),
    };
    let examples: Vec<Example> = (0..BATCH_SIZE).map(example).collect();
    Batch::new(&examples, &Default::default())
}

fn prefill(criterion: &mut Criterion) {
    let device = Default::default();
    for (name, config) in [("d64-l6", shape::narrow()), ("d256-l8", shape::wide())] {
        <Train as Backend>::seed(&device, 0);
        let model: CausalLm<Train> = config.init(&device);
        let inference = model.valid();
        let frozen = CausalLm::<Train>::from_inner(inference.clone()).no_grad();
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10).measurement_time(Duration::from_secs(3));
        let n_layers = model.n_layers();
        for (layer, prompt_length, answer_length) in [
            (n_layers / 3, 16, 6),
            (n_layers / 3, 64, 6),
            (n_layers / 3, 64, 32),
            (n_layers / 3, 160, 6),
            (2 * n_layers / 3, 64, 6),
        ] {
            let injection_points = [InjectionPoint { layer, positions: Positions::Last(5) }];
            let shape = [5, model.d_model()];
            let of = |prepare: fn(&_, _, &[InjectionPoint]) -> PreparedAnswer<Train>| {
                prepare(&inference, batch(prompt_length, answer_length), &injection_points)
            };
            let point = format!("layer {layer}, prompt {prompt_length}, answer {answer_length}");
            for (how, answer) in
                [("whole", of(PreparedAnswer::whole)), ("remembered", of(PreparedAnswer::new))]
            {
                group.bench_function(BenchmarkId::new(how, &point), |bencher| {
                    bencher.iter(|| {
                        let values = Tensor::zeros(shape, &device).require_grad();
                        let delta = Delta { point: injection_points[0], values };
                        let perturbation = Perturbation::new(vec![delta]);
                        let loss = entrapment_loss(&frozen, &perturbation, &answer, None);
                        perturbation.deltas()[0].values.grad(&loss.backward())
                    });
                });
            }
        }
        group.finish();
    }
}

criterion_group!(benches, prefill);
criterion_main!(benches);
