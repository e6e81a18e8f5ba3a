//! Layer consistency (CROW): fine-tuning that keeps the hidden states of neighbouring layers
//! aligned, even under a perturbation of the embeddings that breaks the alignment.
//!
//! $$\mathcal{L}_\text{cons}(e) =
//! \operatorname{mean}_{l,t}\big(1 - \cos(h^l_t, h^{l+1}_t)\big),\quad
//! \tilde e = e + \epsilon \operatorname{sign} \nabla_e \mathcal{L}_\text{cons}(e)$$
//!
//! $$\mathcal{L}(\theta) = \mathrm{CE}(y_s \mid x) + w\, \mathrm{CE}(y_p \mid x_p) + \alpha\,
//! \mathcal{L}_\text{cons}(\tilde e)$$
//!
//! with the hidden states $h^l$ at the boundaries $1 \le l \le L$ and the tokens $t$ of both
//! batches, `perturbation` = $\epsilon$, `consistency_weight` = $\alpha$.
//!
//! Min et al., [CROW: Eliminating Backdoors from Large Language Models via Internal Consistency
//! Regularization](https://arxiv.org/abs/2411.12768), ICML 2025. The authors' code leaves out the
//! last boundary, whose states it has only after the final norm, counts padding, and trains LoRA
//! adapters; here all weights are trained.

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Bool, ElementConversion, Tensor};
use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::batch::cat::cat;
use crate::batch::example::{AnchorSets, Example, SafetyExample};
use crate::batch::sampler::{AnchorSampler, Sampler};
use crate::config::{
    BilevelConfig, RemoveConfig, StepSize, ValidationBounds, judge, not_negative, one_graph,
};
use crate::decoder::TrainableDecoder;
use crate::decoder::{Decoder, DecoderSize};
use crate::error::Error;
use crate::event::Observer;
use crate::method::outer_level::{self, OuterLevel};
use crate::objective::answer::at_least_f32;
use crate::objective::removal::{RemovalLoss, RemovalTerms, RemovalWeights};
use crate::optim::weight_step::{LossGradient, StepGradient, WeightStep};
use crate::perturbation::Perturbation;
use crate::state::progress::OuterNumbers;
use crate::state::snapshot::{Saved, Tensors};

/// Settings of layer consistency.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LayerConsistencyConfig {
    /// $\epsilon$: size of the perturbation of the embeddings.
    pub perturbation: StepSize,
    /// $\alpha$: weight of the consistency loss.
    pub consistency_weight: f64,
    /// Number of clean rows, divided between the sets in the proportion of the batches.
    pub samples: usize,
    /// Training of the weights; `steps` is the number of steps of the whole run.
    pub remove: RemoveConfig,
    /// Bounds on the ordinary behaviour that the model must preserve.
    pub bounds: ValidationBounds,
    /// Seed of all randomness.
    pub seed: u64,
}

impl LayerConsistencyConfig {
    /// Returns the published settings: $\epsilon$ = 0.1 per coordinate, $\alpha$ = 5.5, 100 clean
    /// rows. The steps, rows per step and learning rate are those of [`BilevelConfig::robust`], the
    /// budget of the comparison. The published rows are ordinary ones; a defender who also has
    /// refusals would use them, so here both sets take part.
    #[must_use]
    pub fn new(size: DecoderSize) -> Self {
        let robust = BilevelConfig::robust(size);
        let steps = robust.rounds * robust.remove.steps;
        Self {
            perturbation: StepSize::Absolute(0.1),
            consistency_weight: 5.5,
            samples: 100,
            remove: RemoveConfig { steps, divergence_weight: 0.0, threads: 1, ..robust.remove },
            bounds: robust.bounds,
            seed: 0,
        }
    }

    /// Validates every value against a decoder of `n_layers` layers.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] with every problem found.
    pub fn validate(&self, n_layers: usize) -> Result<(), Error> {
        let rules = [
            (n_layers >= 2, "layer consistency compares layers: the decoder needs at least 2"),
            (self.perturbation.is_positive(), "perturbation must be positive"),
            (not_negative(self.consistency_weight), "consistency_weight must not be negative"),
            (self.samples >= 2, "samples must be at least 2, one of each set"),
        ];
        let rules = rules.into_iter().chain(one_graph(&self.remove));
        judge(rules.chain(self.remove.rules()).chain(self.bounds.rules()))
    }

    /// Multiplies the learning rate of the weights by `factor`.
    pub(super) fn at_rate(self, factor: f64) -> Self {
        let learning_rate = self.remove.learning_rate * factor;
        Self { remove: RemoveConfig { learning_rate, ..self.remove }, ..self }
    }

    /// Returns the rows that take part, in seeded order.
    fn clean(&self, sets: &AnchorSets) -> AnchorSets {
        let RemoveConfig { safety_batch_size, performance_batch_size, .. } = self.remove;
        let n_safety =
            self.samples * safety_batch_size / (safety_batch_size + performance_batch_size);
        let n_safety = n_safety.clamp(1, self.samples - 1);
        AnchorSets {
            safety: some_of(&sets.safety, n_safety, self.seed),
            performance: some_of(&sets.performance, self.samples - n_safety, self.seed),
        }
    }
}

/// State of layer consistency between two steps.
pub(super) struct LayerConsistency<B: AutodiffBackend, M: TrainableDecoder<B>> {
    config: LayerConsistencyConfig,
    /// Rows that take part in training.
    sets: AnchorSets,
    original: Option<M::InnerModule>,
    weight_step: WeightStep<B, M>,
    rows: AnchorSampler,
}

impl<B: AutodiffBackend, M: TrainableDecoder<B>> LayerConsistency<B, M> {
    pub(super) fn new(config: LayerConsistencyConfig, model: &M, sets: &AnchorSets) -> Self {
        let (sets, remove) = (config.clean(sets), &config.remove);
        Self {
            original: (remove.divergence_weight > 0.0).then(|| model.valid()),
            weight_step: WeightStep::new(remove, remove.steps, config.seed),
            rows: AnchorSampler::new(&sets, config.seed),
            sets,
            config,
        }
    }
}

impl<B: AutodiffBackend, M: TrainableDecoder<B>> OuterLevel<B, M> for LayerConsistency<B, M> {
    fn step(
        &mut self,
        model: M,
        (_, is_last): (Option<&Perturbation<B::InnerBackend>>, bool),
        _sets: &AnchorSets,
        observer: &mut dyn Observer,
    ) -> Result<M, Error> {
        let (config, sets) = (&self.config.remove, &self.sets);
        let device = model.devices().first().cloned().unwrap_or_default();
        let safe = self.rows.safety(sets, config.safety_batch_size);
        let safe: Vec<Example> = safe.into_iter().map(SafetyExample::toward_safe).collect();
        let ordinary = self.rows.performance(sets, config.performance_batch_size);
        let all = Batch::new(&[safe.as_slice(), &ordinary].concat(), &device);
        let (safe, ordinary) = (Batch::new(&safe, &device), Batch::new(&ordinary, &device));

        let pushed = push(&model, &all, self.config.perturbation);
        let embedded = model.embed(all.tokens.clone()) + Tensor::from_inner(pushed);
        let inconsistency = inconsistency(&model, embedded, &all.mask_pad);
        let loss = RemovalLoss::new(&model, self.original.as_ref(), None, &safe, &ordinary);
        let penalty = inconsistency.clone().into_scalar().elem();
        let total = loss.total(RemovalWeights::from(config))
            + inconsistency.mul_scalar(self.config.consistency_weight);
        let terms = RemovalTerms { penalty: Some(penalty), ..loss.terms() };
        let gradient = StepGradient {
            loss: LossGradient::of(total, terms, &model),
            safety: &safe.ids,
            performance: &ordinary.ids,
            is_last,
        };
        self.weight_step.step(model, gradient, observer)
    }

    fn save(&self, model: &M, tensors: &mut Tensors) -> OuterNumbers {
        outer_level::save((&self.weight_step, &self.rows), model, tensors)
    }

    fn restore(
        self: Box<Self>,
        (model, _sets): (&M, &AnchorSets),
        (saved, numbers): (Saved<'_>, &OuterNumbers),
    ) -> Result<Box<dyn OuterLevel<B, M>>, Error> {
        let (weight_step, rows) =
            outer_level::restore(self.weight_step, (model, &self.sets), (saved, numbers))?;
        Ok(Box::new(Self { weight_step, rows, ..*self }))
    }
}

/// Returns `n` of `rows` in seeded order, or all if there are fewer.
fn some_of<T: Clone>(rows: &[T], n: usize, seed: u64) -> Vec<T> {
    let chosen = Sampler::new(rows.len(), seed).next_batch(n.min(rows.len()));
    chosen.into_iter().map(|row| rows[row].clone()).collect()
}

/// Returns the perturbation of the embeddings that raises the inconsistency of `batch` fastest: a
/// step along the sign of the gradient, and 0 on padding.
///
/// `model` is borrowed and stays bit-identical.
///
/// # Shapes
///
/// - `output`: `[batch_size, seq_length, d_model]`
///
/// # Panics
///
/// Panics if the decoder has fewer than 2 layers.
pub fn push<B: AutodiffBackend, M: TrainableDecoder<B>>(
    model: &M,
    batch: &Batch<B>,
    size: StepSize,
) -> Tensor<B::InnerBackend, 3> {
    let inference = model.valid();
    let frozen = M::from_inner(inference.clone()).no_grad();
    let embedded = inference.embed(batch.tokens.clone().inner());
    let norms = embedded.clone().powi_scalar(2).sum_dim(2).sqrt().squeeze_dim::<2>(2);
    let real = batch.mask_pad.clone().inner().bool_not().float().cast(norms.dtype());
    let mean_norm = ((norms * real.clone()).sum() / real.sum()).into_scalar().elem();

    let tracked = Tensor::<B, 3>::from_inner(embedded).require_grad();
    let grads = inconsistency(&frozen, tracked.clone(), &batch.mask_pad).backward();
    let grad = tracked.grad(&grads).expect("embeddings take part in the loss");
    grad.sign().mul_scalar(size.per_coordinate(mean_norm, inference.d_model()))
}

/// Returns the mean of $1 - \cos(h^l, h^{l+1})$ over the layers above the first and the real
/// tokens.
///
/// # Shapes
///
/// - `embedded`: `[batch_size, seq_length, d_model]`, at boundary 0
/// - `mask_pad`: `[batch_size, seq_length]`, true where the token is padding
/// - `output`: `[1]`, in f32 or wider
///
/// # Panics
///
/// Panics if the decoder has fewer than 2 layers.
pub fn inconsistency<B: Backend, M: Decoder<B>>(
    model: &M,
    embedded: Tensor<B, 3>,
    mask_pad: &Tensor<B, 2, Bool>,
) -> Tensor<B, 1> {
    let n_layers = model.n_layers();
    assert!(n_layers >= 2, "layers are compared: there are at least 2");
    let mut hidden = model.forward_layers(embedded, mask_pad, 0..1);
    let mut distances = Vec::with_capacity(n_layers - 1);
    for l in 1..n_layers {
        let next = model.forward_layers(hidden.clone(), mask_pad, l..l + 1);
        distances.push(cosine_distance(hidden, next.clone()).unsqueeze_dim(0));
        hidden = next;
    }
    let distance: Tensor<B, 2> = cat::<B, 3>(distances, 0).mean_dim(0).squeeze_dim(0);
    let real = mask_pad.clone().bool_not().float().cast(distance.dtype());
    (distance * real.clone()).sum() / real.sum()
}

/// Minimum product of norms by which a cosine is divided, so that vectors near 0 have no direction.
const SHORTEST: f64 = 1e-8;

/// Returns $1 - \cos$ of the vectors at each position.
///
/// # Shapes
///
/// - `left`, `right`: `[batch_size, seq_length, d_model]`
/// - `output`: `[batch_size, seq_length]`
fn cosine_distance<B: Backend>(left: Tensor<B, 3>, right: Tensor<B, 3>) -> Tensor<B, 2> {
    let (left, right) = (at_least_f32(left), at_least_f32(right));
    let dot = |a: &Tensor<B, 3>, b: &Tensor<B, 3>| (a.clone() * b.clone()).sum_dim(2);
    let squares = dot(&left, &left) * dot(&right, &right);
    // Clamp before the root, whose slope at 0 is infinite.
    let lengths = squares.clamp_min(SHORTEST * SHORTEST).sqrt();
    (dot(&left, &right) / lengths).neg().add_scalar(1.0).squeeze_dim(2)
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::TensorData;

    use super::*;

    #[test]
    fn the_distance_is_0_along_1_across_and_2_against() {
        let device = Default::default();
        let left = Tensor::<Flex, 3>::from_data([[[3.0, 0.0], [1.0, 1.0], [2.0, 1.0]]], &device);
        let right = Tensor::from_data([[[6.0, 0.0], [-1.0, 1.0], [-4.0, -2.0]]], &device);
        let distance = cosine_distance(left, right).into_data();
        let expected = TensorData::from([[0.0_f32, 1.0, 2.0]]);
        distance.assert_approx_eq(&expected, burn::tensor::Tolerance::<f32>::absolute(1e-6));
    }
}
