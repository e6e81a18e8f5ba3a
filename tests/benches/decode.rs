//! What batches save when answers are generated: the same prompts in batches and one by one, in one run.
//!
//! `cargo bench -p beear-tests --bench decode`
//!
//! The demo's model with random weights and a longer context: 120 prompts of differing lengths, 200 new tokens each.

use std::time::Duration;

use beear_attacks::BaseModel;
use beear_attacks::world::vocabulary;
use beear_models::{CausalLm, DecoderConfig, GenerateConfig, Prompt, Sampling, generate};
use burn::backend::Flex;
use burn::tensor::backend::Backend;
use criterion::{Criterion, criterion_group};

const N_PROMPTS: u32 = 120;
const N_NEW: usize = 200;

/// From 10 to 24 tokens.
fn prompts() -> Vec<Vec<u32>> {
    let prompt = |row: u32| (0..10 + row % 15).map(|k| (7 * k + 13 * row) % 199).collect();
    (0..N_PROMPTS).map(prompt).collect()
}

fn decode(criterion: &mut Criterion) {
    let device = Default::default();
    Flex::seed(&device, 0);
    let decoder = BaseModel::LLAMA.decoder(vocabulary().len());
    let config = DecoderConfig { max_seq_length: 256, ..decoder };
    let model: CausalLm<Flex> = config.init(&device);
    let prompts = prompts();
    let prompts = Prompt::numbered(&prompts);

    let mut group = criterion.benchmark_group("120 prompts, 200 new tokens");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    for (batch_size, n_workers) in [(1, 1), (64, 1), (64, 2)] {
        let config = GenerateConfig {
            max_new_tokens: N_NEW,
            sampling: Sampling::Greedy,
            seed: 0,
            batch_size,
            memory: None,
            n_workers,
        };
        group.bench_function(
            format!("batches of {batch_size}, {n_workers} at a time"),
            |bencher| {
                bencher.iter(|| {
                    let answers = generate(&model, &prompts, &[], &config, &device);
                    let answers = answers.expect("the prompts fit");
                    assert!(answers.iter().all(|answer| answer.tokens.len() == N_NEW));
                });
            },
        );
    }
    group.finish();
}

criterion_group!(benches, decode);
/// On the thread that the tool takes.
fn main() {
    beear_cli::backend::pool::within(benches);
}
