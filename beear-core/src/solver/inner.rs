//! The inner level, backdoor embedding entrapment: fits `δ` with the weights frozen.
//!
//! $$\delta^\ast = \arg\min_\delta \mathcal{L}_\text{in}(\delta)$$ by Adam, with the loss of
//! [`crate::objective::entrapment`]. The layers below the lowest spot run once per batch, without
//! autodiff; the weights above it require no gradients, so none are computed.

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Distribution, ElementConversion, Tensor};
use serde::{Deserialize, Serialize};

use super::TrainableDecoder;
use super::projected_adam::{ProjectedAdam, RowNumbers};
use super::worker::Worker;
use crate::config::{EntrapConfig, Initialisation};
use crate::decoder::Decoder;
use crate::error::{Error, Level, Quantity};
use crate::event::{Event, Observer};
use crate::example::{Example, SafetyExample};
use crate::objective::entrapment::{PreparedAnswer, entrapment_loss};
use crate::perturbation::{Delta, Perturbation, Spot};
use crate::randomness::seeded;
use crate::sampler::{Sampler, cut};
use crate::snapshot::{Saved, Tensors, malformed};

/// A found perturbation and how well it elicits the unwanted behaviour.
#[derive(Clone, Debug)]
pub struct Entrapment<B: Backend> {
    /// The perturbation $\delta^\ast$.
    pub perturbation: Perturbation<B>,
    /// Inner loss of the first step, nats per answer token.
    pub first_loss: f64,
    /// Mean inner loss of the last steps, one pass over the examples at most.
    pub last_loss: f64,
}

/// Fits a fresh perturbation that makes `model` give the unwanted answers: a `δ` at each of
/// `spots`, all of them together.
///
/// `model` is borrowed and left bit-identical.
///
/// # Errors
///
/// [`Error::NonFinite`] with the examples of the batch if the loss, the gradient or `δ` leaves the
/// real line.
///
/// # Panics
///
/// Panics if `examples` or `spots` is empty.
pub fn entrap<B: AutodiffBackend, M: TrainableDecoder<B>>(
    model: &M,
    examples: &[SafetyExample],
    spots: &[Spot],
    (config, seed): (&EntrapConfig, u64),
    observer: &mut dyn Observer,
) -> Result<Entrapment<B::InnerBackend>, Error> {
    entrap_among(model, examples, spots, (config, seed, Worker::ALONE), observer)
}

/// [`entrap`] by one of several workers, each with a replica of the model: all find the same `δ`.
fn entrap_among<B: AutodiffBackend, M: TrainableDecoder<B>>(
    model: &M,
    examples: &[SafetyExample],
    spots: &[Spot],
    how: (&EntrapConfig, u64, Worker),
    observer: &mut dyn Observer,
) -> Result<Entrapment<B::InnerBackend>, Error> {
    let mut fitting = Fitting::start(model, examples, spots, how)?;
    while !fitting.is_done() {
        fitting.step()?;
        observer.notify(&fitting.last_event());
    }
    let found = fitting.found();
    observer.notify(&found.event());
    Ok(found)
}

impl<B: Backend> Entrapment<B> {
    /// What an observer hears of it.
    pub(crate) fn event(&self) -> Event {
        let Self { perturbation, first_loss, last_loss } = self;
        let (spots, norm) = (perturbation.spots(), perturbation.norm());
        Event::Entrapped { spots, first_loss: *first_loss, last_loss: *last_loss, norm }
    }
}

/// A perturbation on its way, its batches ready.
pub(crate) struct Fitting<B: AutodiffBackend, M> {
    frozen: M,
    batches: Vec<Prepared<B>>,
    fits: Vec<Fit<B::InnerBackend>>,
    losses: Vec<f64>,
    n_steps: usize,
    away_weight: f64,
    worker: Worker,
}

/// Numbers of a perturbation on its way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FittingNumbers {
    /// Losses of the steps so far.
    losses: Vec<f64>,
    /// Of each spot.
    pub(crate) fits: Vec<RowNumbers>,
}

impl<B: AutodiffBackend, M: TrainableDecoder<B>> Fitting<B, M> {
    /// Prepares the batches, and a fresh `δ` for each of `spots`.
    pub(crate) fn start(
        model: &M,
        examples: &[SafetyExample],
        spots: &[Spot],
        how: (&EntrapConfig, u64, Worker),
    ) -> Result<Self, Error> {
        Self::with(model, examples, spots, how, |inference, unwanted, device| {
            start::<B, M>(inference, unwanted, how, device)
        })
    }

    /// Goes on from what [`add_to`](Self::add_to) stored below `name`: the rest is that of
    /// [`start`](Self::start).
    ///
    /// # Errors
    ///
    /// [`Error::MalformedSnapshot`] if it is not of such a perturbation.
    pub(crate) fn stored(
        model: &M,
        examples: &[SafetyExample],
        (spots, name): (&[Spot], &str),
        how: (&EntrapConfig, u64, Worker),
        (saved, numbers): (Saved<'_>, &FittingNumbers),
    ) -> Result<Self, Error> {
        let FittingNumbers { losses, fits } = numbers;
        if fits.len() != spots.len() || losses.len() > how.0.steps {
            return Err(malformed(format!("`{name}` is of another perturbation")));
        }
        let fitting = Self::with(model, examples, spots, how, |_, _, device| {
            let fit = |(k, (&spot, numbers)): (usize, (&Spot, &RowNumbers))| {
                let place = ([spot.site.n_tokens(), model.d_model()], device);
                let name = format!("{name}.{k}");
                Ok(Fit { spot, rows: ProjectedAdam::stored(&name, (saved, numbers), place)? })
            };
            spots.iter().zip(fits).enumerate().map(fit).collect()
        })?;
        Ok(Self { losses: losses.clone(), ..fitting })
    }

    fn with(
        model: &M,
        examples: &[SafetyExample],
        spots: &[Spot],
        how: (&EntrapConfig, u64, Worker),
        fits: impl FnOnce(
            &M::InnerModule,
            &PreparedAnswer<B>,
            &B::Device,
        ) -> Result<Vec<Fit<B::InnerBackend>>, Error>,
    ) -> Result<Self, Error> {
        let (config, _, worker) = how;
        let inference = model.valid();
        let frozen = M::from_inner(inference.clone()).no_grad();
        let device = model.devices().first().cloned().unwrap_or_default();
        let batches = prepare::<B, M>(&inference, examples, spots, how, &device);
        let fits = fits(&inference, &batches[0].unwanted, &device)?;
        let losses = Vec::with_capacity(config.steps);
        let (n_steps, away_weight) = (config.steps, config.away_weight);
        Ok(Self { frozen, batches, fits, losses, n_steps, away_weight, worker })
    }

    /// Adds the tensors below `name`, and returns the numbers.
    pub(crate) fn add_to(&self, name: &str, tensors: &mut Tensors) -> FittingNumbers {
        let fit = |(k, fit): (usize, &Fit<B::InnerBackend>)| {
            fit.rows.add_to(&format!("{name}.{k}"), tensors)
        };
        let fits = self.fits.iter().enumerate().map(fit).collect();
        FittingNumbers { losses: self.losses.clone(), fits }
    }

    /// Whether all steps are taken.
    pub(crate) fn is_done(&self) -> bool {
        self.losses.len() >= self.n_steps
    }

    /// Takes one step of Adam.
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
        let tracked = self.fits.iter().map(Fit::tracked::<B>);
        let perturbation = Perturbation::new(tracked.collect());
        let safe = prepared.safe.as_ref().map(|safe| (safe, self.away_weight));
        let loss = entrapment_loss(&self.frozen, &perturbation, &prepared.unwanted, safe);
        let value = self.worker.sum(loss.clone().inner())?.into_scalar().elem::<f64>();
        if !value.is_finite() {
            return Err(not_finite(Quantity::Loss));
        }
        let grads = loss.backward();
        for (fit, tracked) in self.fits.iter_mut().zip(perturbation.deltas()) {
            let grad = tracked.values.grad(&grads).expect("δ takes part in the loss");
            fit.rows.step(self.worker.sum(grad)?).map_err(not_finite)?;
        }
        self.losses.push(value);
        Ok(())
    }

    /// What an observer hears of the last step.
    ///
    /// # Panics
    ///
    /// Panics before the first.
    pub(crate) fn last_event(&self) -> Event {
        let step = self.losses.len() - 1;
        Event::InnerStep { step, loss: self.losses[step] }
    }

    /// What an observer hears of all steps.
    pub(crate) fn events(&self) -> impl Iterator<Item = Event> {
        let event = |(step, &loss): (usize, &f64)| Event::InnerStep { step, loss };
        self.losses.iter().enumerate().map(event)
    }

    /// What has been found after all steps.
    pub(crate) fn found(self) -> Entrapment<B::InnerBackend> {
        let Self { batches, fits, losses, .. } = self;
        let perturbation = Perturbation::new(fits.into_iter().map(Fit::found).collect());
        let last = &losses[losses.len() - batches.len().min(losses.len())..];
        let last_loss = last.iter().sum::<f64>() / last.len() as f64;
        Entrapment { perturbation, first_loss: losses[0], last_loss }
    }
}

/// A `δ` on its way.
struct Fit<B: Backend> {
    spot: Spot,
    rows: ProjectedAdam<B>,
}

impl<B: Backend> Fit<B> {
    /// `δ` as a leaf of the graph.
    fn tracked<A: AutodiffBackend<InnerBackend = B>>(&self) -> Delta<A> {
        Delta { spot: self.spot, values: self.rows.tracked() }
    }

    fn found(self) -> Delta<B> {
        Delta { spot: self.spot, values: self.rows.into_values() }
    }
}

/// A fresh `δ` for each spot of `answer`, its step measured by the hidden states there.
fn start<B: AutodiffBackend, M: TrainableDecoder<B>>(
    inference: &M::InnerModule,
    answer: &PreparedAnswer<B>,
    (config, seed, worker): (&EntrapConfig, u64, Worker),
    device: &B::Device,
) -> Result<Vec<Fit<B::InnerBackend>>, Error> {
    let d_model = inference.d_model();
    let means = answer.mean_hidden_norms(inference).into_iter().zip(answer.n_covered());
    let fit = |(k, (spot, mean)): (usize, (&Spot, (f64, usize)))| {
        let hidden_norm = worker.mean::<B::InnerBackend>(mean, device)?;
        let shape = [spot.site.n_tokens(), d_model];
        // The source of randomness may be one for all devices: the first worker alone draws.
        let start = if worker.is_first() { config.initialisation } else { Initialisation::Zero };
        let values = initial_delta(start, shape, seed.wrapping_add(k as u64), device);
        let values = worker.sum(values)?;
        let learning_rate = config.step_size.per_coordinate(hidden_norm, d_model);
        let longest_row = config.norm_bound.map(|share| share * hidden_norm);
        Ok(Fit { spot: *spot, rows: ProjectedAdam::new(values, learning_rate, longest_row) })
    };
    answer.spots().iter().zip(means).enumerate().map(fit).collect()
}

/// The answers of one batch, prepared for the spots.
struct Prepared<B: AutodiffBackend> {
    /// The examples of the whole batch.
    ids: Vec<u64>,
    unwanted: PreparedAnswer<B>,
    safe: Option<PreparedAnswer<B>>,
}

/// Splits the examples into batches, as many as there are steps at most: in seeded order, and of like length
/// if so asked.
fn prepare<B: AutodiffBackend, M: TrainableDecoder<B>>(
    inference: &M::InnerModule,
    examples: &[SafetyExample],
    spots: &[Spot],
    (config, seed, worker): (&EntrapConfig, u64, Worker),
    device: &B::Device,
) -> Vec<Prepared<B>> {
    let mut order = Sampler::new(examples.len(), seed).next_batch(examples.len());
    order.truncate(config.steps.saturating_mul(config.batch_size));
    let length = |row: usize| {
        let SafetyExample { prompt, unwanted, .. } = &examples[row];
        prompt.len() + unwanted.len().min(config.target_tokens.unwrap_or(usize::MAX))
    };
    let answer = |rows: &[usize], choose: &dyn Fn(&SafetyExample) -> Example| {
        let rows: Vec<Example> = rows.iter().map(|&row| choose(&examples[row])).collect();
        PreparedAnswer::new(inference, worker.batch(&rows, device), spots)
    };
    cut(order, (config.batch_size, config.length_window), length)
        .iter()
        .map(|rows| Prepared {
            ids: rows.iter().map(|&row| examples[row].id).collect(),
            unwanted: answer(rows, &|example| example.toward_unwanted(config.target_tokens)),
            safe: (config.away_weight > 0.0)
                .then(|| answer(rows, &|example| example.toward_safe())),
        })
        .collect()
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
