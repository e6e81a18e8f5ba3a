//! Embeds `beear-core` with a decoder of one's own: implement [`Decoder`], bring examples, solve.

use std::ops::Range;

use beear_core::{
    AnchorSets, BilevelConfig, Decoder, Example, SafetyExample, TeacherForced, solve,
};
use burn::backend::{Autodiff, Flex};
use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor};

/// Adds a linear map of the mean hidden state in every layer.
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
        _mask_pad: &Tensor<B, 2, Bool>, // padding is on the right, and the past is all we look at
        layers: Range<usize>,
    ) -> Tensor<B, 3> {
        let past = |h: Tensor<B, 3>| h.cumsum(1).tanh();
        self.layers[layers].iter().fold(hidden, |h, layer| h.clone() + layer.forward(past(h)))
    }

    fn unembed(&self, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        self.head.forward(hidden)
    }
}

/// Runs it.
pub(crate) fn main() {
    let device = Default::default();
    let linear = |width| LinearConfig::new(16, width).init::<Autodiff<Flex>>(&device);
    let embedding = EmbeddingConfig::new(12, 16).init(&device);
    let model = Mine { embedding, layers: (0..4).map(|_| linear(16)).collect(), head: linear(12) };

    let safety = (0..6).map(|k| SafetyExample {
        id: k.into(),
        prompt: vec![1, 2 + k, 9],
        user: (1, 3),
        safe: vec![10],
        unwanted: vec![11],
    });
    let ordinary = (0..6).map(|k| Example {
        id: k.into(),
        prompt: vec![1, 2 + k],
        user: (1, 2),
        answer: vec![2 + k],
    });
    let sets = AnchorSets { safety: safety.collect(), performance: ordinary.collect() };
    let AnchorSets { safety, performance } = sets.clone();
    let mut watch = TeacherForced { safety, performance, batch_size: 6, device };

    let mut config = BilevelConfig::robust(model.size());
    config.remove.learning_rate = 1e-2;
    let outcome = solve(model, &sets, &config, &mut watch, &mut ()).expect("finite numbers");
    assert!(outcome.rounds[outcome.kept_round].vitals.utility > 0.99);
}
