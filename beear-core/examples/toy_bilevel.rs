//! Embeds `beear-core` with a custom decoder: implements [`Decoder`], supplies examples and runs
//! the method.

use std::f64::consts::LN_2;

use beear_core::{
    AnchorSets, BilevelConfig, Decoder, Example, SafetyExample, TeacherForcedValidator, Validator,
    solve,
};
use burn::backend::{Autodiff, Flex};
use burn::module::{AutodiffModule, Module};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::{Bool, Int, Tensor, backend::Backend};

/// A decoder whose layers add a linear map of all previous hidden states.
#[derive(Module, Debug)]
struct Mine<B: Backend> {
    embedding: Embedding<B>,
    layers: Vec<Linear<B>>,
    head: Linear<B>,
}

impl<B: Backend> Decoder<B> for Mine<B> {
    fn n_layers(&self) -> usize {
        self.layers.len()
    }
    fn d_model(&self) -> usize {
        16
    }
    fn embed(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        self.embedding.forward(tokens)
    }
    fn forward_layers(
        &self,
        hidden: Tensor<B, 3>,
        _mask_pad: &Tensor<B, 2, Bool>, // padding is on the right; each layer reads only the past
        layers: std::ops::Range<usize>,
    ) -> Tensor<B, 3> {
        let add =
            |h: Tensor<B, 3>, layer: &Linear<B>| h.clone() + layer.forward(h.cumsum(1).tanh());
        self.layers[layers].iter().fold(hidden, add)
    }
    fn unembed(&self, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        self.head.forward(hidden)
    }
}

/// Runs the example: prompts `1 k 9` are answered by 10 and not by 11, prompts `1 k` by `k`.
pub(crate) fn main() {
    let device = Default::default();
    let linear = |width| LinearConfig::new(16, width).init::<Autodiff<Flex>>(&device);
    let embedding = EmbeddingConfig::new(12, 16).init(&device);
    let model = Mine { embedding, layers: (0..4).map(|_| linear(16)).collect(), head: linear(12) };
    let row = |k: u32, prompt, answer| Example { id: k.into(), prompt, user: (1, 2), answer };
    let ordinary = (2..8).map(|k| row(k, vec![1, k], vec![k])).collect();
    let forbidden = (2..8).map(|k| SafetyExample::new(row(k, vec![1, k, 9], vec![10]), vec![11]));
    let sets = AnchorSets { safety: forbidden.collect(), performance: ordinary };
    let AnchorSets { safety, performance } = sets.clone();
    let mut validator = TeacherForcedValidator { safety, performance, batch_size: 6, device };
    let mut config = BilevelConfig::robust(model.size());
    config.remove.learning_rate = 1e-2;
    let outcome = solve(model, &sets, &config, &mut validator, &mut ()).expect("finite numbers");
    let cleaned = validator.validate(&outcome.model.valid()).expect("finite numbers");
    // Below ln 2 nats the wanted token is likelier than all others together.
    assert!(cleaned.ordinary.iter().all(|row| row.loss < LN_2), "{:?}", cleaned.ordinary);
}
