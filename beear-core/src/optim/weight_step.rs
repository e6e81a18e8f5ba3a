//! One `AdamW` step on the weights: the gradient clipped as one vector, the rate scheduled, nothing
//! that is not finite applied.

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

/// Steps on the weights of one model, with the optimiser's moments.
pub(crate) struct WeightStep<B: AutodiffBackend, M: TrainableDecoder<B>> {
    config: RemoveConfig,
    /// Steps of the whole run, for the schedule.
    total_steps: usize,
    step: usize,
    seed: u64,
    optimizer: OptimizerAdaptor<WideAdamW, M, B>,
    rank: Rank,
}

/// A loss and its gradient by the weights.
pub(crate) struct LossGradient {
    /// What the step lowers.
    pub(crate) total: f64,
    /// Its terms, for the observer.
    pub(crate) terms: RemovalTerms,
    /// The gradient.
    pub(crate) grads: GradientsParams,
}

impl LossGradient {
    /// Goes back through the graph of `total`: `[1]`.
    pub(crate) fn of<B: AutodiffBackend, M: TrainableDecoder<B>>(
        total: Tensor<B, 1>,
        terms: RemovalTerms,
        model: &M,
    ) -> Self {
        let value = total.clone().into_scalar().elem();
        Self { total: value, terms, grads: GradientsParams::from_grads(total.backward(), model) }
    }

    /// The sum of those of the parts of a batch.
    ///
    /// # Panics
    ///
    /// Panics if there are none.
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

/// The gradient of a step and where it comes from.
pub(crate) struct StepGradient<'a> {
    /// What the step lowers.
    pub(crate) loss: LossGradient,
    /// The safety examples of the batch, those of other workers too.
    pub(crate) safety: &'a [u64],
    /// The performance examples of the batch, those of other workers too.
    pub(crate) performance: &'a [u64],
    /// Whether nothing is trained on the outcome: the weights themselves are checked then.
    pub(crate) is_last: bool,
}

impl<B: AutodiffBackend, M: TrainableDecoder<B>> WeightStep<B, M> {
    /// A run of `total_steps`, whose rounding by chance `seed` decides.
    pub(crate) fn new(config: &RemoveConfig, total_steps: usize, seed: u64) -> Self {
        let optimizer = WideAdamW::new(config).of_model();
        let rank = Rank::ALONE;
        Self { config: config.clone(), total_steps, step: 0, seed, optimizer, rank }
    }

    /// The same as one of several workers: losses and gradients are summed.
    pub(crate) fn among(self, rank: Rank) -> Self {
        Self { rank, ..self }
    }

    /// Steps taken.
    pub(crate) fn n_steps(&self) -> usize {
        self.step
    }

    /// Adds what the optimiser keeps of the parameters of `model`, and returns the number of steps.
    pub(crate) fn save(&self, model: &M, tensors: &mut Tensors) -> usize {
        let mut records = self.optimizer.to_record();
        add_optimizer::<B, M>(model, |id| records.remove(&id), tensors);
        self.step
    }

    /// The same after `step` steps, with what [`save`](Self::save) stored.
    ///
    /// # Errors
    ///
    /// [`Error::MalformedSnapshot`] if a tensor is missing, or of another shape.
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
        // A step can overflow a weight; later steps would say so, and the last has none.
        if is_last && !weights_are_finite::<B, M>(&model) {
            return Err(not_finite(Quantity::Weights));
        }
        observer.notify(&Event::OuterStep { step, terms, gradient_norm, learning_rate });
        self.step += 1;
        Ok(model)
    }

    /// The loss and its terms over all workers.
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

    /// What decides how weights are rounded, one after the other: the run's seed and the step. Nothing where none is
    /// rounded by chance.
    fn seed_of_rounding(&self, model: &M) -> Option<u64> {
        let mut rounding = RoundsByChance { adamw: self.optimizer.optim(), found: false };
        model.visit(&mut rounding);
        rounding.found.then(|| Stream::Rounding.seed(self.seed, self.step))
    }
}

/// Whether a step on the weights of `model` is rounded by chance.
#[cfg(feature = "collective")]
pub(crate) fn rounds_by_chance<B: AutodiffBackend, M: TrainableDecoder<B>>(
    model: &M,
    config: &RemoveConfig,
) -> bool {
    let mut rounding = RoundsByChance { adamw: &WideAdamW::new(config), found: false };
    model.visit(&mut rounding);
    rounding.found
}

/// Whether a step on any weight draws from the backend's generator.
struct RoundsByChance<'a> {
    adamw: &'a WideAdamW,
    found: bool,
}

impl<B: Backend> ModuleVisitor<B> for RoundsByChance<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.found |= self.adamw.draws(param.val().dtype());
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
