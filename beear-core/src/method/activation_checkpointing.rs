//! The gradient of the outer loss with the activations of one layer in memory at a time.
//!
//! The forward pass stores only the hidden states at every boundary. The backward pass proceeds
//! from the answers down to the embedding: it recomputes each layer with autodiff and takes the
//! gradient of the layer. Chen et al., [Training Deep Nets with Sublinear Memory
//! Cost](https://arxiv.org/abs/1604.06174), with a decoder layer as a segment. The two batches are
//! processed one after the other, and answers pass through the unembedding in chunks of
//! [`ANSWER_CHUNK`] positions, so that the logits of all answers never exist at once.

use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{ElementConversion, IndexingUpdateOp, Tensor};

use super::removal_gradient::RemovalTask;
use crate::batch::Batch;
use crate::decoder::Decoder;
use crate::decoder::TrainableDecoder;
use crate::objective::answer::{cross_entropy, kl_divergence, log_probabilities_at, predicting};
use crate::objective::removal::{RemovalTerms, forward};
use crate::optim::weight_step::LossGradient;
use crate::perturbation::Perturbation;

/// Number of positions that pass through the unembedding at a time: 16 MiB of logits in f32 with
/// 32000 tokens, and as much for each operation on the logits that the backward pass stores.
pub const ANSWER_CHUNK: usize = 128;

/// Returns the gradient of the outer loss, equal to that of a single graph up to the order of sums.
pub(crate) fn checkpointed_gradient<B: AutodiffBackend, M: TrainableDecoder<B>>(
    model: &M,
    task: RemovalTask<'_, B, M::InnerModule>,
) -> LossGradient {
    let RemovalTask { original, perturbation, safe, performance, weights } = task;
    let mut pass = Pass { model, inference: model.valid(), grads: GradientsAccumulator::new() };
    let boundaries = pass.boundaries(safe, perturbation);
    let asked = Asked { batch: safe, weight: 1.0, reference: None };
    let (safety, _) = pass.descend(boundaries, asked);

    let boundaries = pass.boundaries(performance, None);
    let reference = original.map(|original| {
        let batch = performance.inner();
        let hidden = predicting(forward(original, &batch, None), &batch);
        Reference { original, hidden, weight: weights.divergence }
    });
    let asked = Asked { batch: performance, weight: weights.performance, reference };
    let (performance, divergence) = pass.descend(boundaries, asked);

    let terms = RemovalTerms { safety, performance, divergence, penalty: None };
    let total = safety + weights.performance * performance + weights.divergence * divergence;
    LossGradient { total, terms, grads: pass.grads.grads() }
}

/// Loss of the answers of a batch: its terms and their weights.
struct Asked<'a, B: AutodiffBackend, N> {
    batch: &'a Batch<B>,
    /// Weight of the cross-entropy.
    weight: f64,
    reference: Option<Reference<'a, B, N>>,
}

/// Reference of the divergence.
struct Reference<'a, B: AutodiffBackend, N> {
    original: &'a N,
    /// Hidden states of the original model at the positions that predict an answer token:
    /// `[n_answer, d_model]`.
    hidden: Tensor<B::InnerBackend, 2>,
    /// Weight of the divergence.
    weight: f64,
}

/// Hidden states without autodiff: `[batch_size, seq_length, d_model]`.
type Hidden<B> = Tensor<<B as AutodiffBackend>::InnerBackend, 3>;

/// State of a backward pass, with the accumulated gradients of several losses.
struct Pass<'a, B: AutodiffBackend, M: TrainableDecoder<B>> {
    model: &'a M,
    inference: M::InnerModule,
    grads: GradientsAccumulator<M>,
}

impl<B: AutodiffBackend, M: TrainableDecoder<B>> Pass<'_, B, M> {
    /// Returns the hidden states at each boundary, with the perturbation added at its injection
    /// points.
    fn boundaries(
        &self,
        batch: &Batch<B>,
        perturbation: Option<&Perturbation<B::InnerBackend>>,
    ) -> Vec<Hidden<B>> {
        let batch = batch.inner();
        let deltas = perturbation.map_or(&[][..], Perturbation::deltas);
        let perturbed = |layer: usize, hidden: Hidden<B>| {
            deltas
                .iter()
                .filter(|delta| delta.point.layer == layer)
                .fold(hidden, |hidden, delta| {
                    delta.apply(hidden, delta.point.positions.placement_matrix(&batch))
                })
        };
        let mut hidden = self.inference.embed(batch.tokens.clone());
        let mut boundaries = vec![hidden.clone()];
        for layer in 0..self.inference.n_layers() {
            hidden = self.inference.forward_layers(hidden, &batch.mask_pad, layer..layer + 1);
            hidden = perturbed(layer + 1, hidden);
            boundaries.push(hidden.clone());
        }
        boundaries
    }

    /// Propagates the gradient from the answers down to the embedding. Returns the cross-entropy
    /// and the divergence.
    fn descend(
        &mut self,
        mut boundaries: Vec<Hidden<B>>,
        asked: Asked<'_, B, M::InnerModule>,
    ) -> (f64, f64) {
        let batch = asked.batch;
        let last = boundaries.pop().expect("there is a boundary above the last layer");
        let (losses, mut grad) = self.answers(last, asked);
        while let Some(below) = boundaries.pop() {
            let below = Tensor::from_inner(below).require_grad();
            let layer = boundaries.len();
            let above = self.model.forward_layers(below.clone(), &batch.mask_pad, layer..layer + 1);
            let mut grads = through(above, grad).backward();
            grad = below.grad_remove(&mut grads).expect("a layer reads what is below it");
            self.collect(grads);
        }
        let embedded = self.model.embed(batch.tokens.clone());
        self.collect(through(embedded, grad).backward());
        losses
    }

    /// Returns the losses of the answers, and the gradient with respect to the hidden states at the
    /// last boundary.
    fn answers(
        &mut self,
        hidden: Hidden<B>,
        asked: Asked<'_, B, M::InnerModule>,
    ) -> ((f64, f64), Hidden<B>) {
        let Asked { batch, weight, reference } = asked;
        let (shape, device) = (hidden.shape(), hidden.device());
        let [batch_size, seq_length, d_model] = shape.dims();
        let index = batch.answer_index.clone().inner();
        let rows = predicting(hidden, &batch.inner());
        let [n_answer, _] = rows.dims();
        let (mut surprise, mut divergence, mut by_rows) = (0.0, 0.0, Vec::new());
        for start in (0..n_answer).step_by(ANSWER_CHUNK) {
            let range = start..(start + ANSWER_CHUNK).min(n_answer);
            let share = batch.share * range.len() as f64 / n_answer as f64;
            let chunk = Tensor::from_inner(rows.clone().slice(range.clone())).require_grad();
            let new = log_probabilities_at(self.model, chunk.clone());
            let targets = batch.targets.clone().slice(range.clone());
            let loss = cross_entropy(new.clone(), targets).mul_scalar(share);
            surprise += number(&loss);
            let mut total = loss.mul_scalar(weight);
            if let Some(Reference { original, hidden, weight }) = &reference {
                let old = log_probabilities_at(*original, hidden.clone().slice(range));
                let loss = kl_divergence(Tensor::from_inner(old), new).mul_scalar(share);
                divergence += number(&loss);
                total = total + loss.mul_scalar(*weight);
            }
            let mut grads = total.backward();
            by_rows.push(chunk.grad_remove(&mut grads).expect("logits are of hidden states"));
            self.collect(grads);
        }
        let grad = Tensor::zeros([batch_size * seq_length, d_model], (&device, rows.dtype()));
        let grad = grad.select_assign(0, index, Tensor::cat(by_rows, 0), IndexingUpdateOp::Add);
        ((surprise, divergence), grad.reshape(shape))
    }

    /// Accumulates the gradients of the weights from one piece of the model.
    fn collect(&mut self, grads: B::Gradients) {
        let grads = GradientsParams::from_grads(grads, self.model);
        self.grads.accumulate(self.model, grads);
    }
}

/// Returns a scalar whose gradient with respect to `output` is `grad`.
fn through<B: AutodiffBackend>(output: Tensor<B, 3>, grad: Hidden<B>) -> Tensor<B, 1> {
    (output * Tensor::from_inner(grad)).sum()
}

fn number<B: AutodiffBackend>(value: &Tensor<B, 1>) -> f64 {
    value.clone().into_scalar().elem()
}

#[cfg(test)]
mod tests {
    use burn::backend::{Autodiff, NdArray};
    use burn::module::{AutodiffModule, Module, ModuleMapper, ModuleVisitor, Param};

    use super::*;
    use crate::batch::example::Example;
    use crate::method::removal_gradient::whole_gradient;
    use crate::objective::removal::RemovalWeights;
    use crate::perturbation::{Delta, InjectionPoint};
    use crate::positions::Positions;
    use crate::testing::{ToyDecoder, ToyDecoderConfig};

    type Double = Autodiff<NdArray<f64>>;
    type Inner = NdArray<f64>;
    type Toy = ToyDecoder<Double>;

    /// Tolerance of sums of a few hundred numbers near 1.
    const F64_SUMS: f64 = 1e-12;

    struct Numbers<'a>(&'a GradientsParams, Vec<Option<Vec<f64>>>);

    impl ModuleVisitor<Double> for Numbers<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<Double, D>>) {
            let grad = self.0.get::<Inner, D>(param.id);
            self.1.push(grad.map(|grad| grad.into_data().iter().collect()));
        }
    }

    fn numbers(model: &Toy, loss: &LossGradient) -> Vec<Option<Vec<f64>>> {
        let mut numbers = Numbers(&loss.grads, Vec::new());
        model.visit(&mut numbers);
        numbers.1
    }

    /// Returns a batch of `n` rows; the longest answers need a second chunk.
    fn batch(n: usize) -> Batch<Double> {
        let row = |k: usize| Example {
            id: k as u64,
            prompt: vec![1 + k as u32, 2, 3],
            user: (0, 3),
            answer: (0..50 + k as u32).map(|t| t % 7).collect(),
        };
        Batch::new(&(0..n).map(row).collect::<Vec<_>>(), &Default::default())
    }

    fn perturbation() -> Perturbation<Inner> {
        let delta = |layer, positions, value: f64| Delta {
            point: InjectionPoint { layer, positions },
            values: Tensor::full([2, 6], value, &Default::default()),
        };
        let (low, high) = (delta(1, Positions::Last(2), 0.3), delta(3, Positions::First(2), -0.2));
        Perturbation::new(vec![low, delta(1, Positions::First(2), 0.1), high])
    }

    fn both_ways(model: &Toy, original: Option<&ToyDecoder<Inner>>) -> [LossGradient; 2] {
        let (safe, performance, perturbation) = (batch(2), batch(4), perturbation());
        const { assert!(4 * 50 > ANSWER_CHUNK) };
        let weights = RemovalWeights { performance: 3.0, divergence: 0.7 };
        let task = || RemovalTask {
            original,
            perturbation: Some(&perturbation),
            safe: &safe,
            performance: &performance,
            weights,
        };
        [whole_gradient(model, task()), checkpointed_gradient(model, task())]
    }

    fn assert_alike(model: &Toy, [whole, checkpointed]: [LossGradient; 2]) {
        assert!((whole.total - checkpointed.total).abs() < F64_SUMS);
        let terms = |loss: &LossGradient| {
            [loss.terms.safety, loss.terms.performance, loss.terms.divergence]
        };
        for (one, other) in terms(&whole).into_iter().zip(terms(&checkpointed)) {
            assert!((one - other).abs() < F64_SUMS, "{one} {other}");
        }
        for (one, other) in numbers(model, &whole).iter().zip(numbers(model, &checkpointed)) {
            assert_eq!(one.is_some(), other.is_some());
            for (one, other) in one.iter().flatten().zip(other.iter().flatten()) {
                assert!((one - other).abs() < F64_SUMS, "{one} {other}");
            }
        }
    }

    fn toy() -> Toy {
        ToyDecoderConfig::new(8, 6, 3).init(&Default::default())
    }

    /// Freezes some parameters, starting with those of the embedding.
    struct FreezeFirst(usize);

    impl ModuleMapper<Double> for FreezeFirst {
        fn map_float<const D: usize>(
            &mut self,
            param: Param<Tensor<Double, D>>,
        ) -> Param<Tensor<Double, D>> {
            let frozen = self.0 > 0;
            self.0 = self.0.saturating_sub(1);
            param.set_require_grad(!frozen)
        }
    }

    #[test]
    fn the_gradient_is_that_of_one_graph() {
        let model = toy();
        let losses = both_ways(&model, Some(&toy().valid()));
        assert!(losses[0].terms.divergence > 0.01, "another model diverges");
        assert!(numbers(&model, &losses[0]).iter().all(Option::is_some), "all weights learn");
        assert_alike(&model, losses);
        let losses = both_ways(&model, None);
        assert!(losses[1].terms.divergence.abs() < F64_SUMS);
        assert_alike(&model, losses);
    }

    #[test]
    fn frozen_weights_get_none() {
        let model = toy().map(&mut FreezeFirst(5)); // the embedding and the lowest layer
        let losses = both_ways(&model, None);
        let found = numbers(&model, &losses[1]);
        assert!(found.iter().any(Option::is_some) && found.iter().any(Option::is_none));
        assert_alike(&model, losses);
    }
}
