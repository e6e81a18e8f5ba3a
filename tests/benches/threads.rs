//! What a second thread, and weights that are in one autodiff graph from the start, save: ratios measured in one run.
//!
//! `cargo bench -p beear-tests --bench threads`
//!
//! Prompts of 48 tokens, answers of 16, batches of 8, the shapes of `benches/pytorch/workloads.json`. `gradient` is loss and
//! gradient of half a batch on each of two threads, with replicas made before.

use std::time::Duration;

use beear_cli::backend::heap;
use beear_core::config::{EntrapConfig, RemoveConfig};
use beear_core::objective::answer::{cross_entropy, log_probabilities};
use beear_core::objective::removal::forward;
use beear_core::parallel::threads::{in_parallel, join_graphs, replica};
use beear_core::{
    AnchorSets, Batch, BilevelConfig, Decoder, Delta, Example, InjectionPoint, Perturbation,
    Positions, Remover, SafetyExample, entrap,
};
use beear_models::CausalLm;
use beear_tests::shape;
use burn::backend::{Autodiff, Flex};
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

type Train = Autodiff<Flex>;
type Model = CausalLm<Train>;

const N_ROWS: u32 = 8;

const SIZES: [(&str, [usize; 3], [usize; 3]); 3] = [
    ("0.3M", [200, 64, 168], [6, 4, 2]),
    ("5M", [2048, 256, 688], [6, 4, 2]),
    ("50M", [4096, 640, 1728], [10, 10, 5]),
];

fn row(row: u32) -> Example {
    let tokens = |row: u32, length: u32| (0..length).map(|k| (7 * k + 13 * row) % 199).collect();
    Example { id: row.into(), prompt: tokens(row, 48), user: (1, 48), answer: tokens(row + 2, 16) }
}

fn sets() -> AnchorSets {
    let safety = |k: u32| {
        let Example { id, prompt, user, answer } = row(k);
        SafetyExample { id, prompt, user, safe: answer.clone(), unwanted: answer }
    };
    AnchorSets {
        safety: (0..N_ROWS).map(safety).collect(),
        performance: (N_ROWS..2 * N_ROWS).map(row).collect(),
    }
}

fn levels(criterion: &mut Criterion) {
    let sets = sets();
    for (name, sizes, layers) in SIZES {
        let model = model(sizes, layers);
        let usual = BilevelConfig::robust(model.size());
        let point = InjectionPoint { layer: model.n_layers() / 3, positions: Positions::Last(5) };
        let values = Tensor::full([5, model.d_model()], 0.01, &Default::default());
        let under = [Perturbation::new(vec![Delta { point, values }])];
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10).measurement_time(Duration::from_secs(5));
        for threads in [1, 2] {
            let config =
                EntrapConfig { steps: 5, batch_size: 8, target_tokens: None, ..usual.entrap };
            let config = EntrapConfig { threads, ..config };
            group.bench_function(format!("inner steps, {threads} threads"), |bencher| {
                let how = (&config, 0);
                bencher.iter(|| entrap(&model, &sets.safety, &[point], how, &mut ()).map(|_| ()));
            });
            let config = RemoveConfig { steps: 1, threads, ..usual.remove.clone() };
            let config = RemoveConfig { safety_batch_size: 8, performance_batch_size: 8, ..config };
            let mut remover = Remover::new(&model, &sets, &config, 1, 0);
            group.bench_function(format!("outer step, {threads} threads"), |bencher| {
                bencher.iter_batched(
                    || model.clone(),
                    |model| remover.remove(model, &under, &sets, &mut ()).map(|_| ()),
                    BatchSize::PerIteration,
                );
            });
        }
        group.finish();
    }
}

fn graphs(criterion: &mut Criterion) {
    let [(name, sizes, layers), ..] = SIZES;
    let model = model(sizes, layers);
    let halves: Vec<Vec<Example>> =
        [0..4, 4..8].map(|rows| rows.map(row).collect()).into_iter().collect();
    let mut group = criterion.benchmark_group(format!("{name}, gradient"));
    group.measurement_time(Duration::from_secs(5));
    for name in ["apart", "joined"] {
        let replica = |model: &Model| {
            let replica = replica::<Train, _>(model);
            if name == "joined" {
                join_graphs::<Train, _>(&replica);
            }
            replica
        };
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || halves.iter().map(|half| (replica(&model), half)).collect::<Vec<_>>(),
                |parts| {
                    in_parallel(parts, |(model, half)| {
                        let batch = Batch::new(half, &Default::default());
                        let answers =
                            log_probabilities(&model, forward(&model, &batch, None), &batch);
                        let grads = cross_entropy(answers, batch.targets).backward();
                        GradientsParams::from_grads(grads, &model)
                    })
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn model(sizes: [usize; 3], layers: [usize; 3]) -> Model {
    let device = Default::default();
    Train::seed(&device, 0);
    let model: Model = shape::llama(sizes, layers).init(&device);
    heap::suit(model.num_params());
    model
}

// The smallest model first: large ones have one heap for all threads.
criterion_group!(benches, graphs, levels);
criterion_main!(benches);
