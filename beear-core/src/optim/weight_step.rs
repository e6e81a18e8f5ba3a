//! One `AdamW` step on the weights: the gradient clipped as one vector, the learning rate
//! scheduled, no NaN or infinite number applied.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::adaptor::OptimizerAdaptor;
use burn::optim::{GradientsParams, Optimizer};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{ElementConversion, Tensor};

use super::adamw::WideAdamW;
use super::saved_weights::{add_optimizer, stored_optimizer};
use crate::config::RemoveConfig;
use crate::decoder::TrainableDecoder;
use crate::error::{Error, Level, Quantity};
use crate::event::{Event, Observer};
use crate::objective::removal::RemovalTerms;
use crate::parallel::rank::Rank;
use crate::parallel::threads::sum_gradients;
use crate::randomness::{Stream, seeded};
use crate::state::snapshot::{Saved, Tensors};

/// State of the steps on the weights of one model, including the optimiser's moments.
pub(crate) struct WeightStep<B: AutodiffBackend, M: TrainableDecoder<B>> {
    config: RemoveConfig,
    /// Number of steps of the whole run, for the schedule.
    total_steps: usize,
    step: usize,
    seed: u64,
    optimizer: OptimizerAdaptor<WideAdamW, M, B>,
    rank: Rank,
}

/// A loss and its gradient with respect to the weights.
pub(crate) struct LossGradient {
    /// Total loss that the step minimises.
    pub(crate) total: f64,
    /// Terms of the loss, for the observer.
    pub(crate) terms: RemovalTerms,
    /// Gradient of the total loss.
    pub(crate) grads: GradientsParams,
}

impl LossGradient {
    /// Computes the gradient of `total`, `[1]`, by a backward pass.
    pub(crate) fn of<B: AutodiffBackend, M: TrainableDecoder<B>>(
        total: Tensor<B, 1>,
        terms: RemovalTerms,
        model: &M,
    ) -> Self {
        let value = total.clone().into_scalar().elem();
        Self { total: value, terms, grads: GradientsParams::from_grads(total.backward(), model) }
    }

    /// Sums losses and gradients over the parts of a batch.
    ///
    /// # Panics
    ///
    /// Panics if there are no parts.
    pub(crate) fn sum<B: AutodiffBackend, M: TrainableDecoder<B>>(
        parts: Vec<Self>,
        model: &M,
    ) -> Self {
        let (total, terms) =
            (parts.iter().map(|part| part.total).sum(), parts.iter().map(|part| part.terms));
        let terms = terms.reduce(RemovalTerms::plus).expect("a batch has a part");
        let grads = sum_gradients(model, parts.into_iter().map(|part| part.grads));
        Self { total, terms, grads }
    }
}

/// Gradient of a step with the examples behind it.
pub(crate) struct StepGradient<'a> {
    /// Loss of the step and its gradient.
    pub(crate) loss: LossGradient,
    /// Identifiers of the safety examples of the batch, including those of other ranks.
    pub(crate) safety: &'a [u64],
    /// Identifiers of the performance examples of the batch, including those of other ranks.
    pub(crate) performance: &'a [u64],
    /// True for the last step of a round: no later step detects NaN or infinite weights, so this
    /// step checks the weights themselves.
    pub(crate) is_last: bool,
}

impl<B: AutodiffBackend, M: TrainableDecoder<B>> WeightStep<B, M> {
    /// Creates the state before a run of `total_steps` steps, with stochastic rounding seeded by
    /// `seed`.
    pub(crate) fn new(config: &RemoveConfig, total_steps: usize, seed: u64) -> Self {
        let optimizer = WideAdamW::new(config).of_model();
        let rank = Rank::ALONE;
        Self { config: config.clone(), total_steps, step: 0, seed, optimizer, rank }
    }

    /// Sets the rank, over which losses and gradients are summed.
    pub(crate) fn among(self, rank: Rank) -> Self {
        Self { rank, ..self }
    }

    /// Returns the number of steps taken.
    pub(crate) fn n_steps(&self) -> usize {
        self.step
    }

    /// Saves the optimiser's state of the parameters of `model`, and returns the number of steps.
    pub(crate) fn save(&self, model: &M, tensors: &mut Tensors) -> usize {
        let mut records = self.optimizer.to_record();
        add_optimizer::<B, M>(model, |id| records.remove(&id), tensors);
        self.step
    }

    /// Restores the state after `step` steps that [`save`](Self::save) stored.
    ///
    /// # Errors
    ///
    /// [`Error::MalformedSnapshot`] if a tensor is missing or has another shape.
    pub(crate) fn restore(
        self,
        model: &M,
        (saved, step): (Saved<'_>, usize),
    ) -> Result<Self, Error> {
        let mut records = self.optimizer.to_record();
        if step > 0 {
            stored_optimizer::<B, M>(model, (saved, step), |id, record| {
                records.insert(id, record);
            })?;
        }
        Ok(Self { step, optimizer: self.optimizer.load_record(records), ..self })
    }

    /// Takes one step.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] with the examples of both batches.
    pub(crate) fn step(
        &mut self,
        model: M,
        gradient: StepGradient<'_>,
        observer: &mut dyn Observer,
    ) -> Result<M, Error> {
        let StepGradient { loss, safety, performance, is_last } = gradient;
        let LossGradient { total, terms, grads } = loss;
        let step = self.step;
        let not_finite = |quantity| Error::NonFinite {
            quantity,
            level: Level::Outer,
            step,
            safety: safety.to_vec(),
            performance: performance.to_vec(),
        };
        let device = model.devices().first().cloned().unwrap_or_default();
        let (total, terms) = self.summed((total, terms), &device)?;
        if !total.is_finite() {
            return Err(not_finite(Quantity::Loss));
        }
        let grads = self.rank.sum_gradients::<B::InnerBackend>(grads)?;
        let (grads, gradient_norm) = clip_norm::<B, M>(grads, &model, self.config.clip_norm);
        if !gradient_norm.is_finite() {
            return Err(not_finite(Quantity::Gradient));
        }
        let progress = step as f64 / self.total_steps.max(1) as f64;
        let learning_rate =
            self.config.learning_rate * self.config.schedule.factor(progress.min(1.0));
        let seed = self.seed_of_rounding(&model);
        let update = || self.optimizer.step(learning_rate, model, grads);
        let model = match seed {
            Some(seed) => seeded::<B, _>(seed, &device, update),
            None => update(),
        };
        // A step can overflow a weight. Later steps would detect it, but there is none after the
        // last.
        if is_last && !weights_are_finite::<B, M>(&model) {
            return Err(not_finite(Quantity::Weights));
        }
        observer.notify(&Event::OuterStep { step, terms, gradient_norm, learning_rate });
        self.step += 1;
        Ok(model)
    }

    /// Returns the loss and its terms, summed over all ranks.
    fn summed(
        &self,
        (total, terms): (f64, RemovalTerms),
        device: &B::Device,
    ) -> Result<(f64, RemovalTerms), Error> {
        let RemovalTerms { safety, performance, divergence, penalty } = terms;
        let numbers = [total, safety, performance, divergence];
        let sums = self.rank.sum_numbers::<B::InnerBackend, 4>(numbers, device)?;
        let [total, safety, performance, divergence] = sums;
        Ok((total, RemovalTerms { safety, performance, divergence, penalty }))
    }

    /// Returns the seed of stochastic rounding at this step, derived from the run's seed; `None` if
    /// no weight is rounded stochastically.
    fn seed_of_rounding(&self, model: &M) -> Option<u64> {
        let mut rounding = RoundsByChance { adamw: self.optimizer.optim(), found: false };
        model.visit(&mut rounding);
        rounding.found.then(|| Stream::Rounding.seed(self.seed, self.step))
    }
}

/// Returns true if a step on the weights of `model` uses stochastic rounding.
#[cfg(feature = "collective")]
pub(crate) fn rounds_by_chance<B: AutodiffBackend, M: TrainableDecoder<B>>(
    model: &M,
    config: &RemoveConfig,
) -> bool {
    let mut rounding = RoundsByChance { adamw: &WideAdamW::new(config), found: false };
    model.visit(&mut rounding);
    rounding.found
}

/// Visitor that finds a weight whose step draws from the backend's generator.
struct RoundsByChance<'a> {
    adamw: &'a WideAdamW,
    found: bool,
}

impl<B: Backend> ModuleVisitor<B> for RoundsByChance<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.found |= self.adamw.draws(param.val().dtype());
    }
}

/// Scales the gradients of `model` so that their norm as one vector is at most `longest`.
///
/// Returns also the norm before scaling. Burn clips each tensor separately, which changes the
/// direction of the step.
pub fn clip_norm<B: AutodiffBackend, M: Module<B>>(
    grads: GradientsParams,
    model: &M,
    longest: f64,
) -> (GradientsParams, f64) {
    let mut squares = Squares::<B> { grads: &grads, sum: None };
    model.visit(&mut squares);
    let norm = squares.sum.map_or(0.0, |sum| sum.into_scalar().elem::<f64>().sqrt());
    // If the norm is NaN or infinite, the caller stops; scaling would spread the fault.
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

/// Visitor that sums, on the device, a value that is finite if all weights are; one number is
/// copied to the host.
struct Faults<B: Backend>(Option<Tensor<B, 1>>);

impl<B: Backend> ModuleVisitor<B> for Faults<B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        // The sum of `0 · w` is 0 unless a weight is NaN or infinite; a maximum may ignore NaN.
        let fault = param.val().cast(burn::tensor::FloatDType::F32).mul_scalar(0.0).sum();
        self.0 = Some(match self.0.take() {
            Some(sum) => sum + fault,
            None => fault,
        });
    }
}

/// Visitor that sums the squares of all gradients on the device; one number is copied to the host.
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
