//! Writes an untrained Llama of any size with the tokenizer of the synthetic world: what memory plans are
//! compared with measurements on.
//!
//! `cargo run -p beear-tests --example random_checkpoint -- OUT VOCAB_SIZE D_MODEL D_FF N_LAYERS N_HEADS`

use std::path::Path;
use std::process::ExitCode;

use beear_attacks::world::{Specials, sidecar_files};
use beear_models::checkpoint::{NewModel, save_new};
use beear_models::{DecoderConfig, Family, RopeScaling};
use burn::backend::Flex;
use burn::tensor::backend::Backend;

/// The same numbers give the same weights.
const SEED: u64 = 1;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let sizes = arguments.iter().skip(1).map(|text| text.parse::<usize>());
    let sizes: Vec<usize> = sizes.flatten().collect();
    let (Some(out), [vocab_size, d_model, d_ff, n_layers, n_heads]) = (arguments.first(), &*sizes)
    else {
        eprintln!("usage: random_checkpoint OUT VOCAB_SIZE D_MODEL D_FF N_LAYERS N_HEADS");
        return ExitCode::from(2);
    };
    let config = shape([*vocab_size, *d_model, *d_ff], [*n_layers, *n_heads]);
    println!("{} weights", config.n_weights());
    write(&config, Path::new(out));
    ExitCode::SUCCESS
}

fn shape(
    [vocab_size, d_model, d_ff]: [usize; 3],
    [n_layers, n_heads]: [usize; 2],
) -> DecoderConfig {
    DecoderConfig {
        family: Family::Llama,
        vocab_size,
        d_model,
        d_ff,
        n_layers,
        n_heads,
        n_kv_heads: n_heads,
        head_dim: d_model / n_heads,
        max_seq_length: 4096,
        norm_epsilon: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        sliding_window: None,
        tied_embeddings: false,
    }
}

fn write(config: &DecoderConfig, out: &Path) {
    let device = Default::default();
    Flex::seed(&device, SEED);
    let model = config.init::<Flex>(&device);
    let Specials { pad, bos, eos } = Specials::WORLD;
    let new = NewModel { special_ids: [pad, bos, eos], sidecars: sidecar_files() };
    save_new(&model, &new, out).expect("the folder is new and can be written");
}
