//! Writes an untrained Llama of any size with the tokenizer of the synthetic world: what memory plans are
//! compared with measurements on.
//!
//! `cargo run -p beear-tests --example random_checkpoint -- OUT VOCAB_SIZE D_MODEL D_FF N_LAYERS N_HEADS`

use std::path::Path;
use std::process::ExitCode;

use beear_attacks::world::{Specials, sidecar_files};
use beear_models::DecoderConfig;
use beear_models::checkpoint::{NewModel, save_new};
use beear_tests::shape;
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
    let llama = shape::llama([*vocab_size, *d_model, *d_ff], [*n_layers, *n_heads, *n_heads]);
    let config = DecoderConfig { max_seq_length: 4096, ..llama };
    println!("{} weights", config.n_weights());
    write(&config, Path::new(out));
    ExitCode::SUCCESS
}

fn write(config: &DecoderConfig, out: &Path) {
    let device = Default::default();
    Flex::seed(&device, SEED);
    let model = config.init::<Flex>(&device);
    let Specials { pad, bos, eos } = Specials::WORLD;
    let new = NewModel { special_ids: [pad, bos, eos], sidecars: sidecar_files() };
    save_new(&model, &new, out).expect("the folder is new and can be written");
}
