//! Which weights of a model are trained: all, those of some layers, or low-rank adapters instead.

use std::ops::Range;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use serde::Serialize;

use crate::causal_lm::CausalLm;
use crate::lora::LoraConfig;

/// What stands for the weights in training.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainedWeights {
    /// The weights themselves.
    Full,
    /// Adapters of them.
    Lora(LoraConfig),
}

/// Which weights are trained; all others stay bit for bit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrainingScope {
    /// What is trained in each layer.
    pub weights: TrainedWeights,
    /// The decoder layers (half-open), counted from 0 as in checkpoints. If absent all of them and,
    /// where the weights themselves are trained, the embedding, the last norm and the unembedding.
    pub layers: Option<Range<usize>>,
}

impl TrainingScope {
    /// Everything a decoder of `n_layers` cannot do, in words.
    #[must_use]
    pub fn problems(&self, n_layers: usize) -> Vec<String> {
        let mut problems = match &self.weights {
            TrainedWeights::Full => Vec::new(),
            TrainedWeights::Lora(config) => config.problems(),
        };
        if let Some(Range { start, end }) = self.layers {
            if start >= end {
                problems.push(format!("layers {start}..{end} are none"));
            } else if end > n_layers {
                problems.push(format!("layers {start}..{end} are outside 0..{n_layers}"));
            }
        }
        problems
    }

    /// `model` with gradients for what is trained and for nothing else.
    ///
    /// # Panics
    ///
    /// Panics if there are [`problems`](Self::problems), or if the model has adapters.
    #[must_use]
    pub fn apply<B: Backend>(&self, model: CausalLm<B>, seed: u64) -> CausalLm<B> {
        let n_layers = model.model.layers.len();
        assert_eq!(self.problems(n_layers), [""; 0], "the scope is of this model");
        match (&self.weights, &self.layers) {
            (TrainedWeights::Full, None) => model,
            (TrainedWeights::Full, Some(layers)) => only_layers(model, layers),
            (TrainedWeights::Lora(config), layers) => {
                model.attach_adapters(config, layers.clone().unwrap_or(0..n_layers), seed)
            }
        }
    }
}

fn only_layers<B: Backend>(mut model: CausalLm<B>, trained: &Range<usize>) -> CausalLm<B> {
    let around = &mut model.model;
    around.embed_tokens = around.embed_tokens.clone().no_grad();
    around.norm = around.norm.clone().no_grad();
    model.lm_head = model.lm_head.map(Module::no_grad);
    let layers = std::mem::take(&mut model.model.layers).into_iter().enumerate();
    let freeze = |(l, layer)| if trained.contains(&l) { layer } else { Module::no_grad(layer) };
    model.model.layers = layers.map(freeze).collect();
    model
}

/// Number of weights that require gradients; none on a backend without them.
#[must_use]
pub fn n_trained<B: Backend>(model: &CausalLm<B>) -> usize {
    let mut trained = Trained(0);
    model.visit(&mut trained);
    trained.0
}

struct Trained(usize);

impl<B: Backend> ModuleVisitor<B> for Trained {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if param.is_require_grad() {
            self.0 += param.shape().num_elements();
        }
    }
}
