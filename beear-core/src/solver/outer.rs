//! The outer level, adversarial removal: trains the weights to behave under the found `δ`s.
//!
//! $$\theta^\ast = \arg\min_\theta \mathcal{L}_\text{out}(\theta)$$ by `AdamW`, with the loss of
//! [`crate::objective::removal`], cycling over the `δ`s of the round. Plain alternation, as in the
//! paper: no gradient flows through the inner level.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::adaptor::OptimizerAdaptor;
use burn::optim::{AdamW, AdamWConfig, GradientsParams, Optimizer};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{ElementConversion, Tensor};

use super::TrainableDecoder;
use crate::batch::Batch;
use crate::config::RemoveConfig;
use crate::error::{Error, Level, Quantity};
use crate::event::{Event, Observer};
use crate::example::{AnchorSets, Example};
use crate::objective::removal::{RemovalLoss, RemovalWeights};
use crate::perturbation::Perturbation;
use crate::sampler::Sampler;

/// PyTorch's ε; Burn's default of 1e-5 damps small gradients.
const ADAM_EPSILON: f32 = 1e-8;

/// Trains the weights, round after round: keeps the optimiser's moments, the place in the data
/// and the original model between rounds.
pub struct Remover<B: AutodiffBackend, M: TrainableDecoder<B>> {
    config: RemoveConfig,
    /// Outer steps of the whole run, for the schedule.
    total_steps: usize,
    step: usize,
    original: Option<M::InnerModule>,
    optimizer: OptimizerAdaptor<AdamW, M, B>,
    safety: Sampler,
    performance: Sampler,
}

impl<B: AutodiffBackend, M: TrainableDecoder<B>> Remover<B, M> {
    /// Starts from `model`, to which the divergence refers.
    ///
    /// # Panics
    ///
    /// Panics if a set is empty.
    pub fn new(
        model: &M,
        sets: &AnchorSets,
        config: &RemoveConfig,
        total_steps: usize,
        seed: u64,
    ) -> Self {
        let optimizer = AdamWConfig::new()
            .with_epsilon(ADAM_EPSILON)
            .with_weight_decay(config.weight_decay as f32)
            .init();
        Self {
            config: config.clone(),
            total_steps,
            step: 0,
            original: (config.divergence_weight > 0.0).then(|| model.valid()),
            optimizer,
            safety: Sampler::new(sets.safety.len(), seed),
            performance: Sampler::new(sets.performance.len(), seed.wrapping_add(1)),
        }
    }

    /// Takes the steps of one round under `perturbations` in turn; none of them means plain
    /// safety fine-tuning.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] with the examples of the batch. `model` is lost then, so keep a clone.
    pub fn remove(
        &mut self,
        mut model: M,
        perturbations: &[Perturbation<B::InnerBackend>],
        sets: &AnchorSets,
        observer: &mut dyn Observer,
    ) -> Result<M, Error> {
        let device = model.devices().first().cloned().unwrap_or_default();
        let weights = RemovalWeights {
            performance: self.config.performance_weight,
            divergence: self.config.divergence_weight,
        };
        let constants: Vec<_> = perturbations.iter().map(Perturbation::<B>::constant).collect();
        for k in 0..self.config.steps {
            let rows = self.safety.next_batch(self.config.safety_batch_size);
            let safe: Vec<Example> =
                rows.iter().map(|&row| sets.safety[row].toward_safe()).collect();
            let rows = self.performance.next_batch(self.config.performance_batch_size);
            let ordinary: Vec<Example> =
                rows.iter().map(|&row| sets.performance[row].clone()).collect();
            let (safe, ordinary) = (Batch::new(&safe, &device), Batch::new(&ordinary, &device));

            let perturbation = constants.get(k % constants.len().max(1));
            let loss =
                RemovalLoss::new(&model, self.original.as_ref(), perturbation, &safe, &ordinary);
            let terms = loss.terms();
            let total = loss.total(weights);
            let not_finite = |quantity| Error::NonFinite {
                quantity,
                level: Level::Outer,
                step: self.step,
                safety: safe.ids.clone(),
                performance: ordinary.ids.clone(),
            };
            if !total.clone().into_scalar().elem::<f64>().is_finite() {
                return Err(not_finite(Quantity::Loss));
            }
            let grads = GradientsParams::from_grads(total.backward(), &model);
            let (grads, gradient_norm) = clip_norm::<B, M>(grads, &model, self.config.clip_norm);
            if !gradient_norm.is_finite() {
                return Err(not_finite(Quantity::Gradient));
            }
            let progress = self.step as f64 / self.total_steps.max(1) as f64;
            let learning_rate =
                self.config.learning_rate * self.config.schedule.factor(progress.min(1.0));
            model = self.optimizer.step(learning_rate, model, grads);
            // A step can overflow a weight; later steps would say so, and the last has none.
            if k + 1 == self.config.steps && !weights_are_finite::<B, M>(&model) {
                return Err(not_finite(Quantity::Weights));
            }
            observer.notify(&Event::OuterStep {
                step: self.step,
                terms,
                gradient_norm,
                learning_rate,
            });
            self.step += 1;
        }
        Ok(model)
    }
}

/// Scales the gradients of `model` so that, as one vector, they are at most `longest` long.
///
/// Returns their length before scaling. Burn clips each tensor by itself, which changes the
/// direction of the step.
pub fn clip_norm<B: AutodiffBackend, M: Module<B>>(
    grads: GradientsParams,
    model: &M,
    longest: f64,
) -> (GradientsParams, f64) {
    let mut squares = Squares::<B> { grads: &grads, sum: None };
    model.visit(&mut squares);
    let norm = squares.sum.map_or(0.0, |sum| sum.into_scalar().elem::<f64>().sqrt());
    // Where the norm is not finite the caller stops; scaling would spread the fault.
    if norm.is_nan() || norm <= longest || norm.is_infinite() {
        return (grads, norm);
    }
    let mut scale =
        Scale::<B> { grads, factor: longest / (norm + 1e-6), marker: Default::default() };
    model.visit(&mut scale);
    (scale.grads, norm)
}

fn weights_are_finite<B: AutodiffBackend, M: TrainableDecoder<B>>(model: &M) -> bool {
    let mut faults = Faults::<B::InnerBackend>(None);
    model.valid().visit(&mut faults);
    faults.0.is_none_or(|value| value.into_scalar().elem::<f64>().is_finite())
}

/// Something that is finite where all weights are, on the device; one number crosses to the host.
struct Faults<B: Backend>(Option<Tensor<B, 1>>);

impl<B: Backend> ModuleVisitor<B> for Faults<B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        // The sum of `0 · w` is 0 unless a weight is infinite or not a number; a maximum may pass
        // over the latter.
        let fault = param.val().cast(burn::tensor::FloatDType::F32).mul_scalar(0.0).sum();
        self.0 = Some(match self.0.take() {
            Some(sum) => sum + fault,
            None => fault,
        });
    }
}

/// Sums the squares of all gradients on the device; one number crosses to the host.
struct Squares<'a, B: AutodiffBackend> {
    grads: &'a GradientsParams,
    sum: Option<Tensor<B::InnerBackend, 1>>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Squares<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Some(grad) = self.grads.get::<B::InnerBackend, D>(param.id) {
            let square = grad.cast(burn::tensor::FloatDType::F32).powi_scalar(2).sum();
            self.sum = Some(match self.sum.take() {
                Some(sum) => sum + square,
                None => square,
            });
        }
    }
}

struct Scale<B: AutodiffBackend> {
    grads: GradientsParams,
    factor: f64,
    marker: std::marker::PhantomData<B>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Scale<B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Some(grad) = self.grads.remove::<B::InnerBackend, D>(param.id) {
            self.grads.register(param.id, grad.mul_scalar(self.factor));
        }
    }
}
