//! The inner level, backdoor embedding entrapment: fits `δ` with the weights frozen.
//!
//! $$\delta^\ast = \arg\min_\delta \mathcal{L}_\text{in}(\delta)$$ by Adam, with the loss of
//! [`crate::objective::entrapment`]. The layers below the lowest injection point run once per
//! batch, without autodiff; the weights above it require no gradients, so none are computed.

mod restore;

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Distribution, ElementConversion, Tensor};

use crate::batch::example::{Example, SafetyExample};
use crate::batch::sampler::{Sampler, cut};
use crate::config::{EntrapConfig, Initialisation};
use crate::decoder::Decoder;
use crate::decoder::TrainableDecoder;
use crate::error::{Error, Level, Quantity};
use crate::event::{Event, Observer};
use crate::objective::entrapment::{PreparedAnswer, entrapment_loss};
use crate::objective::hidden_norms::{Mean, mean_without_massive};
use crate::optim::projected_adam::ProjectedAdam;
use crate::parallel::rank::Rank;
use crate::parallel::threads::in_parallel;
use crate::perturbation::{Delta, InjectionPoint, Perturbation};
use crate::randomness::{Stream, seeded};

/// A found perturbation, with the losses that measure how well it elicits the unwanted behaviour.
#[derive(Clone, Debug)]
pub struct Entrapment<B: Backend> {
    /// Perturbation $\delta^\ast$.
    pub perturbation: Perturbation<B>,
    /// Inner loss of the first step, in nats per answer token.
    pub first_loss: f64,
    /// Mean inner loss of the last steps, over one pass over the examples at most.
    pub last_loss: f64,
}

/// Fits a fresh perturbation that makes `model` give the unwanted answers: a `δ` at each of
/// `injection_points`, fitted together.
///
/// `model` is borrowed and stays bit-identical.
///
/// # Errors
///
/// [`Error::NonFinite`] with the examples of the batch if the loss, the gradient or `δ` is NaN or
/// infinite.
///
/// # Panics
///
/// Panics if `examples` or `injection_points` is empty.
pub fn entrap<B: AutodiffBackend, M: TrainableDecoder<B>>(
    model: &M,
    examples: &[SafetyExample],
    injection_points: &[InjectionPoint],
    (config, seed): (&EntrapConfig, u64),
    observer: &mut dyn Observer,
) -> Result<Entrapment<B::InnerBackend>, Error> {
    let rank = Rank::ALONE.on_threads(config.threads);
    let mut run = InnerRun::start(model, examples, injection_points, (config, seed, rank))?;
    while !run.is_done() {
        run.step()?;
        observer.notify(&run.last_event());
    }
    let found = run.found();
    observer.notify(&found.event());
    Ok(found)
}

impl<B: Backend> Entrapment<B> {
    /// Returns the event that reports this result.
    pub(crate) fn event(&self) -> Event {
        let Self { perturbation, first_loss, last_loss } = self;
        let (injection_points, norm) = (perturbation.injection_points(), perturbation.norm());
        Event::Entrapped { injection_points, first_loss: *first_loss, last_loss: *last_loss, norm }
    }
}

/// A search in progress: the perturbation and its prepared batches.
pub(crate) struct InnerRun<B: AutodiffBackend, M> {
    frozen: M,
    batches: Vec<Prepared<B>>,
    deltas: Vec<DeltaOptimizer<B::InnerBackend>>,
    losses: Vec<f64>,
    n_steps: usize,
    away_weight: f64,
    rank: Rank,
    device: B::Device,
}

impl<B: AutodiffBackend, M: TrainableDecoder<B>> InnerRun<B, M> {
    /// Prepares the batches, and a fresh `δ` for each of `injection_points`.
    pub(crate) fn start(
        model: &M,
        examples: &[SafetyExample],
        injection_points: &[InjectionPoint],
        how: (&EntrapConfig, u64, Rank),
    ) -> Result<Self, Error> {
        Self::with(model, examples, injection_points, how, |inference, prepared, device| {
            start::<B, M>(inference, prepared, how, device)
        })
    }

    fn with(
        model: &M,
        examples: &[SafetyExample],
        injection_points: &[InjectionPoint],
        how: (&EntrapConfig, u64, Rank),
        deltas: impl FnOnce(
            &M::InnerModule,
            &Prepared<B>,
            &B::Device,
        ) -> Result<Vec<DeltaOptimizer<B::InnerBackend>>, Error>,
    ) -> Result<Self, Error> {
        let (config, _, rank) = how;
        let inference = model.valid();
        let frozen = M::from_inner(inference.clone()).no_grad();
        let device = model.devices().first().cloned().unwrap_or_default();
        let batches = prepare::<B, M>(&inference, examples, injection_points, how, &device);
        let deltas = deltas(&inference, &batches[0], &device)?;
        let losses = Vec::with_capacity(config.steps);
        let (n_steps, away_weight) = (config.steps, config.away_weight);
        Ok(Self { frozen, batches, deltas, losses, n_steps, away_weight, rank, device })
    }

    /// Returns true if all steps have been taken.
    pub(crate) fn is_done(&self) -> bool {
        self.losses.len() >= self.n_steps
    }

    /// Takes one Adam step.
    pub(crate) fn step(&mut self) -> Result<(), Error> {
        let step = self.losses.len();
        let prepared = &self.batches[step % self.batches.len()];
        let not_finite = |quantity| Error::NonFinite {
            quantity,
            level: Level::Inner,
            step,
            safety: prepared.ids.clone(),
            performance: Vec::new(),
        };
        // Models are sent to other threads by value.
        let parts = prepared.parts.iter().map(|part| (self.frozen.clone(), part));
        let parts = in_parallel(parts, |(frozen, part)| {
            part.gradients(&frozen, &self.deltas, self.away_weight)
        });
        let loss: f64 = parts.iter().map(|(loss, _)| loss).sum();
        let [value] = self.rank.sum_numbers::<B::InnerBackend, 1>([loss], &self.device)?;
        if !value.is_finite() {
            return Err(not_finite(Quantity::Loss));
        }
        let sums = parts.into_iter().map(|(_, gradients)| gradients).reduce(added);
        for (delta, grad) in self.deltas.iter_mut().zip(sums.expect("a batch has a part")) {
            delta.rows.step(self.rank.sum(grad)?).map_err(not_finite)?;
        }
        self.losses.push(value);
        Ok(())
    }

    /// Returns the event of the last step.
    ///
    /// # Panics
    ///
    /// Panics before the first step.
    pub(crate) fn last_event(&self) -> Event {
        let step = self.losses.len() - 1;
        Event::InnerStep { step, loss: self.losses[step] }
    }

    /// Returns the events of all steps.
    pub(crate) fn events(&self) -> impl Iterator<Item = Event> {
        let event = |(step, &loss): (usize, &f64)| Event::InnerStep { step, loss };
        self.losses.iter().enumerate().map(event)
    }

    /// Returns the result after all steps.
    pub(crate) fn found(self) -> Entrapment<B::InnerBackend> {
        let Self { batches, deltas, losses, .. } = self;
        let perturbation =
            Perturbation::new(deltas.into_iter().map(DeltaOptimizer::found).collect());
        let last = &losses[losses.len() - batches.len().min(losses.len())..];
        let last_loss = last.iter().sum::<f64>() / last.len() as f64;
        Entrapment { perturbation, first_loss: losses[0], last_loss }
    }
}

/// A `δ` with its optimiser.
struct DeltaOptimizer<B: Backend> {
    point: InjectionPoint,
    rows: ProjectedAdam<B>,
}

impl<B: Backend> DeltaOptimizer<B> {
    /// Returns `δ` as a leaf of the graph.
    fn tracked<A: AutodiffBackend<InnerBackend = B>>(&self) -> Delta<A> {
        Delta { point: self.point, values: self.rows.tracked() }
    }

    fn found(self) -> Delta<B> {
        Delta { point: self.point, values: self.rows.into_values() }
    }
}

/// Creates a `δ` for each injection point of a batch, with a step size relative to the hidden
/// states there.
fn start<B: AutodiffBackend, M: TrainableDecoder<B>>(
    inference: &M::InnerModule,
    batch: &Prepared<B>,
    (config, seed, rank): (&EntrapConfig, u64, Rank),
    device: &B::Device,
) -> Result<Vec<DeltaOptimizer<B::InnerBackend>>, Error> {
    let d_model = inference.d_model();
    let injection_points = batch.parts[0].unwanted.injection_points().iter();
    let fit = |(k, (point, mean)): (usize, (&InjectionPoint, Mean))| {
        let hidden_norm = rank.mean::<B::InnerBackend>(mean, device)?;
        let shape = [point.positions.n_tokens(), d_model];
        // The source of randomness may be shared by all devices, so only the first rank draws.
        let start = if rank.is_first() { config.initialisation } else { Initialisation::Zero };
        let values = initial_delta(start, shape, Stream::Start.seed(seed, k), device);
        let values = rank.sum(values)?;
        let learning_rate = config.step_size.per_coordinate(hidden_norm, d_model);
        let longest_row = config.norm_bound.map(|share| share * hidden_norm);
        Ok(DeltaOptimizer {
            point: *point,
            rows: ProjectedAdam::new(values, learning_rate, longest_row),
        })
    };
    injection_points.zip(batch.mean_hidden_norms(inference)).enumerate().map(fit).collect()
}

/// A batch, prepared for the injection points.
struct Prepared<B: AutodiffBackend> {
    /// Identifiers of the examples of the whole batch.
    ids: Vec<u64>,
    /// Parts of the batch, one per thread.
    parts: Vec<Part<B>>,
}

/// Prepared answers of some rows of a batch.
struct Part<B: AutodiffBackend> {
    unwanted: PreparedAnswer<B>,
    safe: Option<PreparedAnswer<B>>,
}

impl<B: AutodiffBackend> Prepared<B> {
    /// Returns the mean Euclidean norm of the unperturbed hidden states at each injection point,
    /// without massive activations.
    fn mean_hidden_norms<M: Decoder<B::InnerBackend>>(&self, model: &M) -> Vec<Mean> {
        let parts: Vec<_> =
            self.parts.iter().map(|part| part.unwanted.hidden_norms(model)).collect();
        let n_points = parts[0].len();
        let of_point = |k: usize| {
            parts.iter().map(|injection_points| &injection_points[k]).collect::<Vec<_>>()
        };
        (0..n_points).map(|k| mean_without_massive(&of_point(k))).collect()
    }
}

impl<B: AutodiffBackend> Part<B> {
    /// Returns the loss of these rows, and its gradient with respect to each `δ`:
    /// `[n_tokens, d_model]`.
    fn gradients<M: Decoder<B>>(
        &self,
        frozen: &M,
        deltas: &[DeltaOptimizer<B::InnerBackend>],
        away_weight: f64,
    ) -> (f64, Vec<Rows<B>>) {
        let perturbation =
            Perturbation::new(deltas.iter().map(DeltaOptimizer::tracked::<B>).collect());
        let safe = self.safe.as_ref().map(|safe| (safe, away_weight));
        let loss = entrapment_loss(frozen, &perturbation, &self.unwanted, safe);
        let value = loss.clone().into_scalar().elem();
        let grads = loss.backward();
        let by = |delta: &Delta<B>| delta.values.grad(&grads).expect("δ takes part in the loss");
        (value, perturbation.deltas().iter().map(by).collect())
    }
}

/// Rows of a `δ`, or its gradient, without autodiff: `[n_tokens, d_model]`.
type Rows<B> = Tensor<<B as AutodiffBackend>::InnerBackend, 2>;

/// Adds two lists of gradients, `δ` by `δ`.
fn added<B: Backend>(one: Vec<Tensor<B, 2>>, other: Vec<Tensor<B, 2>>) -> Vec<Tensor<B, 2>> {
    one.into_iter().zip(other).map(|(one, other)| one + other).collect()
}

/// Splits the examples into batches, as many as there are steps at most: in seeded order, with rows
/// of similar length if the config requests it.
fn prepare<B: AutodiffBackend, M: TrainableDecoder<B>>(
    inference: &M::InnerModule,
    examples: &[SafetyExample],
    injection_points: &[InjectionPoint],
    (config, seed, rank): (&EntrapConfig, u64, Rank),
    device: &B::Device,
) -> Vec<Prepared<B>> {
    let mut order = Sampler::new(examples.len(), seed).next_batch(examples.len());
    order.truncate(config.steps.saturating_mul(config.batch_size));
    let length = |row: usize| {
        let SafetyExample { prompt, unwanted, .. } = &examples[row];
        prompt.len() + unwanted.len().min(config.target_tokens.unwrap_or(usize::MAX))
    };
    let batch = |rows: &Vec<usize>| {
        let n_parts = rank.n_parts(rows.len());
        let batches = |choose: &dyn Fn(&SafetyExample) -> Example| {
            let rows: Vec<Example> = rows.iter().map(|&row| choose(&examples[row])).collect();
            rank.batches(&rows, n_parts, device)
        };
        let unwanted = batches(&|example| example.toward_unwanted(config.target_tokens));
        let safe = (config.away_weight > 0.0).then(|| batches(&|example| example.toward_safe()));
        let safe = safe.into_iter().flatten().map(Some).chain(std::iter::repeat(None));
        let parts = unwanted.into_iter().zip(safe).map(|answers| (inference.clone(), answers));
        let parts = in_parallel(parts, |(inference, (unwanted, safe))| {
            let answer = |batch| PreparedAnswer::new(&inference, batch, injection_points);
            Part { unwanted: answer(unwanted), safe: safe.map(answer) }
        });
        Prepared { ids: rows.iter().map(|&row| examples[row].id).collect(), parts }
    };
    let batches = cut(order, (config.batch_size, config.length_window), length);
    batches.iter().map(batch).collect()
}

fn initial_delta<B: Backend>(
    initialisation: Initialisation,
    shape: [usize; 2],
    seed: u64,
    device: &B::Device,
) -> Tensor<B, 2> {
    match initialisation {
        Initialisation::Zero => Tensor::zeros(shape, device),
        Initialisation::Normal(std) => {
            let draw = || Tensor::random(shape, Distribution::Normal(0.0, std), device);
            seeded::<B, _>(seed, device, draw)
        }
    }
}
