//! The universal perturbation `δ` that stands in for an unknown trigger.
//!
//! BEEAR searches hidden states instead of tokens: one `δ`, shared by every prompt, is added at
//! boundary `l` of the decoder, at chosen positions of each prompt:
//!
//! $$F^l_\theta(x, \delta) = F_{\theta_{l+1 \to L}}\big(F_{\theta_{1 \to l}}(x) + \delta\big)$$
//!
//! with `layer` = $l$ and `values` = $\delta$. The inner level fits `δ` to elicit the unwanted
//! behaviour; the outer level trains the decoder against it. The paper has one `δ`; a
//! [`Perturbation`] may have several that act together.
//!
//! Zeng et al., [BEEAR](https://arxiv.org/abs/2406.17092), EMNLP 2024.

mod stored;

pub use stored::{from_safetensors, to_safetensors};

use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::decoder::Context;
use crate::decoder::Decoder;
use crate::positions::Positions;

/// A place in the network where a perturbation acts: a layer boundary and prompt positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct InjectionPoint {
    /// Number of decoder layers that run before `δ` is added.
    pub layer: usize,
    /// Prompt positions that `δ` covers.
    pub positions: Positions,
}

/// Sorts `injection_points` in the order of the parts of a [`Perturbation`]: by ascending layer,
/// and in the given order within a layer.
pub(crate) fn by_layer(mut injection_points: Vec<InjectionPoint>) -> Vec<InjectionPoint> {
    injection_points.sort_by_key(|point| point.layer);
    injection_points
}

/// A `δ` at one injection point.
#[derive(Clone, Debug)]
pub struct Delta<B: Backend> {
    /// Injection point where `δ` is added.
    pub point: InjectionPoint,
    /// Values added, in f32 or wider: `[n_tokens, d_model]`.
    pub values: Tensor<B, 2>,
}

impl<B: Backend> Delta<B> {
    /// Adds `δ` to `hidden`, the same `δ` in every row of the batch.
    ///
    /// # Shapes
    ///
    /// - `hidden`: `[batch_size, seq_length, d_model]`
    /// - `placement`: `[batch_size * seq_length, n_tokens]`, see [`Positions::placement_matrix`]
    /// - `output`: `[batch_size, seq_length, d_model]`
    ///
    /// # Panics
    ///
    /// Panics if the shapes disagree.
    #[must_use]
    pub fn apply(&self, hidden: Tensor<B, 3>, placement: Tensor<B, 2>) -> Tensor<B, 3> {
        let [batch_size, seq_length, d_model] = hidden.dims();
        let [n_tokens, width] = self.values.dims();
        assert_eq!(width, d_model, "values: [n_tokens, d_model]");
        let shape = [batch_size * seq_length, n_tokens];
        assert_eq!(placement.dims(), shape, "placement: [batch_size * seq_length, n_tokens]");

        let dtype = hidden.dtype();
        let added = placement.cast(self.values.dtype()).matmul(self.values.clone()).cast(dtype);
        hidden + added.reshape([batch_size, seq_length, d_model])
    }
}

/// A perturbation of the hidden states: one `δ`, or several that act together.
#[derive(Clone, Debug)]
pub struct Perturbation<B: Backend> {
    /// Parts in ascending order of layers.
    deltas: Vec<Delta<B>>,
}

impl<B: Backend> Perturbation<B> {
    /// Joins `deltas` into one perturbation.
    ///
    /// # Panics
    ///
    /// Panics if `deltas` is empty.
    #[must_use]
    pub fn new(mut deltas: Vec<Delta<B>>) -> Self {
        assert!(!deltas.is_empty(), "a perturbation has a δ");
        deltas.sort_by_key(|delta| delta.point.layer);
        Self { deltas }
    }

    /// Returns the parts, in ascending order of layers.
    #[must_use]
    pub fn deltas(&self) -> &[Delta<B>] {
        &self.deltas
    }

    /// Returns the injection points of the parts, in ascending order of layers.
    #[must_use]
    pub fn injection_points(&self) -> Vec<InjectionPoint> {
        self.deltas.iter().map(|delta| delta.point).collect()
    }

    /// Returns the lowest perturbed layer: hidden states up to this boundary do not depend on `δ`.
    #[must_use]
    pub fn first_layer(&self) -> usize {
        self.deltas[0].point.layer
    }

    /// Returns the placement of each part in `batch`, for [`forward_above`](Self::forward_above).
    #[must_use]
    pub fn placements(&self, batch: &Batch<B>) -> Vec<Tensor<B, 2>> {
        self.deltas.iter().map(|delta| delta.point.positions.placement_matrix(batch)).collect()
    }

    /// Computes $F_{\theta_{l+1 \to L}}$ of the perturbed hidden states, where `l` is
    /// [`first_layer`](Self::first_layer).
    ///
    /// # Shapes
    ///
    /// - `hidden`: `[batch_size, seq_length, d_model]`, unperturbed, at boundary `l`
    /// - `placements`: one `[batch_size * seq_length, n_tokens]` per part
    /// - `output`: `[batch_size, seq_length, d_model]`, at the last boundary
    ///
    /// # Panics
    ///
    /// Panics if the numbers of placements and parts differ, or the shapes disagree.
    pub fn forward_above<M: Decoder<B>>(
        &self,
        model: &M,
        hidden: Tensor<B, 3>,
        context: &Context<B>,
        placements: &[Tensor<B, 2>],
    ) -> Tensor<B, 3> {
        assert_eq!(placements.len(), self.deltas.len(), "one placement per part");
        let layers: Vec<usize> = self.deltas.iter().map(|delta| delta.point.layer).collect();
        forward_changing(model, hidden, context, &layers, |k, hidden| {
            self.deltas[k].apply(hidden, placements[k].clone())
        })
    }

    /// Returns the Euclidean norm of all parts as one vector.
    #[must_use]
    pub fn norm(&self) -> f64 {
        let square = |delta: &Delta<B>| -> f64 {
            let sum = delta.values.clone().powi_scalar(2).sum();
            burn::tensor::ElementConversion::elem(sum.into_scalar())
        };
        self.deltas.iter().map(square).sum::<f64>().sqrt()
    }
}

impl<B: AutodiffBackend> Perturbation<B> {
    /// Converts a perturbation found without autodiff into a constant of the training graph.
    #[must_use]
    pub fn constant(found: &Perturbation<B::InnerBackend>) -> Self {
        let lift = |delta: &Delta<B::InnerBackend>| Delta {
            point: delta.point,
            values: Tensor::from_inner(delta.values.clone()),
        };
        Self { deltas: found.deltas.iter().map(lift).collect() }
    }
}

/// Runs the layers above the first of `layers`, starting from the hidden states there; `change`
/// modifies the hidden states at the `k`-th of `layers`. Layers are in ascending order, and may
/// repeat.
pub(crate) fn forward_changing<B: Backend, M: Decoder<B>>(
    model: &M,
    mut hidden: Tensor<B, 3>,
    context: &Context<B>,
    layers: &[usize],
    change: impl Fn(usize, Tensor<B, 3>) -> Tensor<B, 3>,
) -> Tensor<B, 3> {
    let mut reached = layers[0];
    for (k, &layer) in layers.iter().enumerate() {
        if reached < layer {
            hidden = context.forward_layers(model, hidden, reached..layer);
            reached = layer;
        }
        hidden = change(k, hidden);
    }
    context.forward_layers(model, hidden, reached..model.n_layers())
}

#[cfg(test)]
mod tests {
    use burn::backend::{Autodiff, Flex};
    use burn::tensor::{Int, TensorData};

    use super::*;
    use crate::batch::example::Example;
    use crate::testing::ToyDecoderConfig;

    type Cpu = Flex;

    /// Returns a batch with prompts of 3 and 2 tokens.
    fn batch<B: Backend>() -> Batch<B> {
        let row = |length: usize| Example {
            id: 0,
            prompt: vec![1; length],
            user: (0, length),
            answer: vec![2],
        };
        Batch::new(&[row(3), row(2)], &Default::default())
    }

    /// Returns hidden states `[2, 3, 2]`, their placement, and `δ = [[10, 20]]` on the last token.
    fn fixture<B: Backend>() -> (Tensor<B, 3>, Tensor<B, 2>, Delta<B>) {
        let device = B::Device::default();
        let positions = Positions::Last(1);
        let hidden = Tensor::<B, 1, Int>::arange(0..12, &device).float().reshape([2, 3, 2]);
        let values = Tensor::from_data([[10.0, 20.0]], &device);
        let delta = Delta { point: InjectionPoint { layer: 1, positions }, values };
        (hidden, positions.placement_matrix(&batch::<B>()), delta)
    }

    #[test]
    fn only_the_last_prompt_token_moves() {
        let (hidden, placement, delta) = fixture::<Cpu>();
        let output = delta.apply(hidden, placement);
        let expected = TensorData::from([
            [[0.0, 1.0], [2.0, 3.0], [14.0, 25.0]],
            [[6.0, 7.0], [18.0, 29.0], [10.0, 11.0]],
        ]);
        output.into_data().assert_eq(&expected, false);
    }

    #[test]
    fn the_gradient_of_delta_sums_over_the_batch() {
        let (hidden, placement, mut delta) = fixture::<Autodiff<Cpu>>();
        delta.values = delta.values.require_grad();
        let grads = delta.apply(hidden, placement).sum().backward();
        let grad = delta.values.grad(&grads).expect("δ requires gradients");
        grad.into_data().assert_eq(&TensorData::from([[2.0, 2.0]]), false);
    }

    #[test]
    #[should_panic(expected = "values")]
    fn a_delta_of_another_width_is_refused() {
        let (hidden, placement, mut delta) = fixture::<Cpu>();
        delta.values = Tensor::zeros([1, 3], &hidden.device());
        let _ = delta.apply(hidden, placement);
    }

    #[test]
    fn parts_act_together_whatever_order_they_come_in() {
        let device = Default::default();
        let model = ToyDecoderConfig::new(5, 2, 3).init::<Cpu>(&device);
        let (hidden, _, low) = fixture::<Cpu>();
        let values = Tensor::from_data([[-3.0, 5.0], [0.5, 2.0]], &device);
        let high =
            Delta { point: InjectionPoint { layer: 2, positions: Positions::First(2) }, values };
        let batch = batch::<Cpu>();
        let run = |deltas: Vec<Delta<Cpu>>| {
            let both = Perturbation::new(deltas);
            let placements = both.placements(&batch);
            let context = Context::whole(&batch.mask_pad);
            both.forward_above(&model, hidden.clone(), &context, &placements).into_data()
        };
        let placement = |positions: Positions| positions.placement_matrix(&batch);
        let by_hand = low.apply(hidden.clone(), placement(Positions::Last(1)));
        let by_hand = model.forward_layers(by_hand, &batch.mask_pad, 1..2);
        let by_hand = high.apply(by_hand, placement(Positions::First(2)));
        let by_hand = model.forward_layers(by_hand, &batch.mask_pad, 2..3).into_data();
        run(vec![low.clone(), high.clone()]).assert_eq(&by_hand, true);
        run(vec![high.clone(), low.clone()]).assert_eq(&by_hand, true);
        assert_ne!(run(vec![low]), by_hand);
    }

    #[test]
    fn the_norm_joins_the_parts() {
        let device = Default::default();
        let delta = |row: [f64; 2]| Delta::<Cpu> {
            point: InjectionPoint { layer: 1, positions: Positions::All },
            values: Tensor::from_data([row], &device),
        };
        let perturbation = Perturbation::new(vec![delta([2.0, 3.0]), delta([6.0, 0.0])]);
        assert!((perturbation.norm() - 7.0).abs() < 1e-6);
    }
}
