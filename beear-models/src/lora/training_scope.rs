//! Scope of training: all weights of a model, those of some layers, or low-rank adapters.

use std::ops::Range;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use serde::Serialize;

use crate::activations::GradientsOf;
use crate::config::DecoderConfig;
use crate::lora::LoraConfig;
use crate::nn::causal_lm::CausalLm;

/// Kind of trained weights.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainedWeights {
    /// Weights of the model itself.
    Full,
    /// Low-rank adapters of the weights.
    Lora(LoraConfig),
}

/// Selection of the trained weights; all others remain bit for bit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrainingScope {
    /// Kind of weights trained in each layer.
    pub weights: TrainedWeights,
    /// Trained decoder layers (half-open), counted from 0 as in checkpoints. `None` for all layers
    /// and, if the weights themselves are trained, the embedding, the last norm and the
    /// unembedding.
    pub layers: Option<Range<usize>>,
}

impl TrainingScope {
    /// Scope of every weight.
    pub const ALL: Self = Self { weights: TrainedWeights::Full, layers: None };

    /// Lists in words all conflicts with a decoder of `n_layers`.
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

    /// Returns, for the decoder layers below, within and above the trained ones, their number and
    /// the gradients computed in each; none below.
    #[must_use]
    pub fn gradients_in_layers(&self, n_layers: usize) -> [(usize, Option<GradientsOf<'_>>); 3] {
        let Range { start, end } = self.layers.clone().unwrap_or(0..n_layers);
        let trained = match &self.weights {
            TrainedWeights::Full => GradientsOf::Weights,
            TrainedWeights::Lora(config) => GradientsOf::Adapters(config),
        };
        [
            (start, None),
            (end.saturating_sub(start), Some(trained)),
            (n_layers.saturating_sub(end), Some(GradientsOf::HiddenStates)),
        ]
    }

    /// Returns the gradients computed in the last norm and the unembedding.
    #[must_use]
    pub fn gradients_in_head(&self) -> GradientsOf<'_> {
        if *self == Self::ALL { GradientsOf::Weights } else { GradientsOf::HiddenStates }
    }

    /// Returns the number of trained weights in a decoder of this shape.
    #[must_use]
    pub fn n_trained(&self, config: &DecoderConfig) -> usize {
        let n_layers = self.layers.as_ref().map_or(config.n_layers, ExactSizeIterator::len);
        match &self.weights {
            TrainedWeights::Full if self.layers.is_none() => config.n_weights(),
            TrainedWeights::Full => n_layers.saturating_mul(config.n_layer_weights()),
            TrainedWeights::Lora(lora) => n_layers.saturating_mul(lora.n_layer_weights(config)),
        }
    }

    /// Returns an upper bound of the number of weights of the largest trained tensor.
    #[must_use]
    pub fn largest_trained(&self, config: &DecoderConfig) -> u64 {
        match &self.weights {
            TrainedWeights::Full => config.largest_tensor(),
            TrainedWeights::Lora(lora) => lora.largest_matrix(config) as u64,
        }
    }

    /// Enables gradients in `model` for the trained weights and nothing else.
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

/// Counts the weights that require gradients; 0 on a backend without autodiff.
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

#[cfg(test)]
mod tests {
    use beear_core::event::Event;
    use beear_core::{AnchorSets, BilevelConfig, Example, RemoveConfig, Remover, SafetyExample};
    use burn::backend::Autodiff;
    use burn::module::AutodiffModule;
    use burn::tensor::TensorData;

    use super::*;
    use crate::checkpoint::tests::{Cpu, config, weights};
    use crate::lora::tests::small;

    type Train = Autodiff<Cpu>;

    fn lora(layers: Option<Range<usize>>) -> TrainingScope {
        TrainingScope { weights: TrainedWeights::Lora(small()), layers }
    }

    fn sets() -> AnchorSets {
        let example = |id, prompt: &[u32], answer: &[u32]| Example {
            id,
            prompt: prompt.to_vec(),
            user: (0, prompt.len()),
            answer: answer.to_vec(),
        };
        AnchorSets {
            safety: vec![SafetyExample::new(example(1, &[1, 4, 2], &[3, 5]), vec![6, 2])],
            performance: vec![example(2, &[5, 2], &[1, 6, 4])],
        }
    }

    /// Trains `model` for two steps of the outer level.
    fn trained(model: CausalLm<Train>) -> CausalLm<Train> {
        let config = RemoveConfig {
            steps: 2,
            learning_rate: 1e-2,
            safety_batch_size: 1,
            performance_batch_size: 1,
            ..BilevelConfig::robust(config().size()).remove
        };
        let mut remover = Remover::new(&model, &sets(), &config, 2, 0);
        let observer = &mut |_: &Event| ();
        remover.remove(model, &[], &sets(), observer).unwrap()
    }

    /// Returns the weights with their paths in the module.
    fn named(model: &CausalLm<Train>) -> Vec<(String, TensorData)> {
        struct Named(Vec<String>, Vec<String>);
        impl<B: Backend> ModuleVisitor<B> for Named {
            fn enter_module(&mut self, name: &str, _container_type: &str) {
                self.0.push(name.to_owned());
            }
            fn exit_module(&mut self, _name: &str, _container_type: &str) {
                self.0.pop();
            }
            fn visit_float<const D: usize>(&mut self, _param: &Param<Tensor<B, D>>) {
                self.1.push(self.0.join("."));
            }
        }
        let mut names = Named(Vec::new(), Vec::new());
        model.visit(&mut names);
        names.1.into_iter().zip(weights(model)).collect()
    }

    /// Returns the paths of the weights that training changes in `scope`.
    fn changed(scope: &TrainingScope) -> Vec<String> {
        let model = scope.apply(config().init::<Train>(&Default::default()), 1);
        let before = named(&model);
        let after = named(&trained(model));
        let pairs = before.into_iter().zip(after);
        pairs.filter(|(before, after)| before != after).map(|(before, _)| before.0).collect()
    }

    #[test]
    fn the_outer_level_changes_adapters_and_nothing_beside_them() {
        let changed = changed(&lora(None));
        assert_eq!(changed.len(), 12, "both matrices of three projections of two layers");
        assert!(changed.iter().all(|name| name.contains(".adapter.lora_")), "{changed:?}");
    }

    #[test]
    fn the_outer_level_changes_the_chosen_layers_and_nothing_around_them() {
        let full = |layers| TrainingScope { weights: TrainedWeights::Full, layers };
        // Seven projections and two norms per layer; embedding, norm and head around them.
        assert_eq!(changed(&full(None)).len(), 21);
        let layer = changed(&full(Some(1..2)));
        assert_eq!(layer.len(), 9);
        assert!(layer.iter().all(|name| name.starts_with("model.layers.1.")), "{layer:?}");
        let adapters = changed(&lora(Some(0..1)));
        assert_eq!(adapters.len(), 6);
        assert!(adapters.iter().all(|name| name.starts_with("model.layers.0.")), "{adapters:?}");
    }

    #[test]
    fn trained_weights_are_counted() {
        let init = || config().init::<Train>(&Default::default());
        let assert_counted = |scope: &TrainingScope, expected: usize| {
            assert_eq!(n_trained(&scope.apply(init(), 1)), expected);
            assert_eq!(scope.n_trained(&config()), expected, "from the shape alone");
        };
        assert_counted(&TrainingScope::ALL, config().n_weights());
        // Queries 8 to 12 and output 12 to 8, keys and values 8 to 6, three MLP projections of 8
        // and 5, two norms of 8.
        let layer = 2 * 8 * 12 + 2 * 8 * 6 + 3 * 8 * 5 + 2 * 8;
        assert_counted(&TrainingScope { layers: Some(0..1), ..TrainingScope::ALL }, layer);
        // Rank 2 at 8 to 12, 12 to 8 and 5 to 8.
        assert_counted(&lora(Some(0..1)), 2 * (20 + 20 + 13));
        assert_counted(&lora(None), 2 * 2 * (20 + 20 + 13));
        assert_eq!(lora(None).largest_trained(&config()), 2 * 12);
        assert_eq!(n_trained(&init().valid()), 0, "nothing is trained without gradients");
    }

    #[test]
    fn gradients_reach_down_to_the_first_trained_layer() {
        let full = TrainingScope { layers: Some(1..3), ..TrainingScope::ALL };
        let (weights, hidden) = (Some(GradientsOf::Weights), Some(GradientsOf::HiddenStates));
        assert_eq!(full.gradients_in_layers(7), [(1, None), (2, weights), (4, hidden)]);
        assert_eq!(full.gradients_in_head(), GradientsOf::HiddenStates);
        assert_eq!(TrainingScope::ALL.gradients_in_head(), GradientsOf::Weights);
        let adapters = Some(GradientsOf::Adapters(&small()));
        assert_eq!(lora(None).gradients_in_layers(7), [(0, None), (7, adapters), (0, hidden)]);
    }

    #[test]
    fn every_problem_is_named() {
        let scope = TrainingScope {
            weights: TrainedWeights::Lora(LoraConfig { rank: 0, targets: vec![], alpha: f64::NAN }),
            layers: Some(1..3),
        };
        assert_eq!(scope.problems(2).len(), 4, "{:?}", scope.problems(2));
        assert_eq!(lora(None).problems(2), [""; 0]);
    }
}
