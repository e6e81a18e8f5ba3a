//! Prints the logits of a checkpoint as a JSON matrix, one row per token: what
//! `transformers_roundtrip.py` compares with those of transformers.
//!
//! `cargo run -p beear-tests --example logits -- DIR TOKEN_ID...`

use std::path::Path;
use std::process::ExitCode;

use beear_models::{CausalLm, Checkpoint};
use burn::backend::Flex;
use burn::tensor::{Bool, Int, Tensor, TensorData};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let ids = arguments.iter().skip(1).map(|text| text.parse::<i64>());
    match (arguments.first(), ids.collect::<Result<Vec<_>, _>>()) {
        (Some(dir), Ok(ids)) if !ids.is_empty() => {
            println!("{}", serde_json::json!(logits(Path::new(dir), ids)));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("usage: logits DIR TOKEN_ID...");
            ExitCode::from(2)
        }
    }
}

fn logits(dir: &Path, ids: Vec<i64>) -> Vec<Vec<f32>> {
    let device = Default::default();
    let checkpoint = Checkpoint::open(dir).expect("the folder is a model");
    let model: CausalLm<Flex> = checkpoint.load(&device).expect("the weights are whole");
    let shape = [1, ids.len()];
    let tokens = Tensor::<Flex, 2, Int>::from_data(TensorData::new(ids, shape), &device);
    let mask_pad = Tensor::<Flex, 2, Bool>::from_data(
        TensorData::new(vec![false; shape.into_iter().product()], shape),
        &device,
    );
    let values: Vec<f32> = model.forward(tokens, &mask_pad).into_data().iter::<f32>().collect();
    values.chunks(model.config().vocab_size).map(<[f32]>::to_vec).collect()
}
