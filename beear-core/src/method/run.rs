//! A run of the alternation, one step at a time: entrap with fresh `δ`s, remove, validate.
//!
//! Between two steps, the state of the run is a [`Snapshot`](crate::Snapshot), from which another
//! process can resume with bit-identical results on the same backend.

mod restore;

use burn::tensor::backend::AutodiffBackend;

use super::inner::{Entrapment, InnerRun};
use super::outer_level::{OuterFactory, OuterLevel};
use crate::batch::example::AnchorSets;
use crate::config::{BilevelConfig, EntrapConfig};
use crate::decoder::TrainableDecoder;
use crate::error::Error;
use crate::event::{Event, Observer};
use crate::parallel::rank::Rank;
use crate::parallel::threads::in_parallel;
use crate::perturbation::Perturbation;
use crate::state::progress::{RoundRecord, Standing};
use crate::validation::{Assessment, ValidationMetrics};

/// Settings of a run, and the factory of its outer level.
pub(crate) struct RunSpec<'a, B: AutodiffBackend, M: TrainableDecoder<B>> {
    pub(crate) config: &'a BilevelConfig,
    pub(crate) rank: Rank,
    pub(crate) outer: OuterFactory<'a, B, M>,
}

/// State of a run between two steps.
pub(crate) struct Run<'a, B: AutodiffBackend, M: TrainableDecoder<B>> {
    sets: &'a AnchorSets,
    config: BilevelConfig,
    rate_factor: f64,
    rank: Rank,
    n_steps: usize,
    /// Validation results before the first round; only on the main rank.
    pub(crate) initial: Option<ValidationMetrics>,
    /// Records of complete rounds; only on the main rank.
    pub(crate) rounds: Vec<RoundRecord>,
    /// Best round so far; only on the main rank.
    best: Option<Best<M>>,
    /// Number of complete rounds, on every rank.
    n_rounds: usize,
    /// Model with the weights after the last complete round.
    pub(crate) round_start: M,
    /// Perturbations found in this round; between rounds, those of the last round.
    found: Vec<Entrapment<B::InnerBackend>>,
    /// Perturbations that are being searched.
    inner: Vec<InnerRun<B, M>>,
    /// Model with the weights being trained in this round; `None` before the first step.
    removing: Option<M>,
    /// Number of outer steps taken in this round.
    n_removed: usize,
    outer: Box<dyn OuterLevel<B, M>>,
}

struct Best<M> {
    model: M,
    round: usize,
    standing: Standing,
}

/// Kind of a step.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Step within a round.
    Within,
    /// Last step of a round.
    EndsRound,
}

impl<'a, B: AutodiffBackend, M: TrainableDecoder<B>> Run<'a, B, M> {
    /// Creates a run that starts from `model`.
    pub(crate) fn new(model: M, sets: &'a AnchorSets, spec: &RunSpec<'_, B, M>) -> Self {
        Self::at_rate(model, sets, spec, 1.0)
    }

    fn at_rate(model: M, sets: &'a AnchorSets, spec: &RunSpec<'_, B, M>, rate_factor: f64) -> Self {
        let outer = (spec.outer)(&model, sets, rate_factor);
        let config = spec.config.clone().at_rate(rate_factor);
        let rank = spec.rank;
        Self {
            sets,
            rate_factor,
            rank,
            n_steps: 0,
            initial: None,
            rounds: Vec::new(),
            best: None,
            n_rounds: 0,
            round_start: model,
            found: Vec::new(),
            inner: Vec::new(),
            removing: None,
            n_removed: 0,
            outer,
            config,
        }
    }

    /// Takes the next step.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] with the examples of the batch. The run cannot continue in that case.
    pub(crate) fn step(&mut self, observer: &mut dyn Observer) -> Result<Step, Error> {
        self.n_steps += 1;
        if self.is_between_rounds() {
            self.found.clear();
            self.n_removed = 0;
        }
        if self.found.len() < self.config.perturbations_per_round {
            self.entrap(observer)?;
            return Ok(Step::Within);
        }
        self.remove(observer)?;
        if self.n_removed < self.config.remove.steps {
            return Ok(Step::Within);
        }
        self.n_rounds += 1;
        if let Some(model) = self.removing.take() {
            self.round_start = model;
        }
        Ok(Step::EndsRound)
    }

    fn is_between_rounds(&self) -> bool {
        self.n_removed >= self.config.remove.steps
    }

    /// Takes one step on each perturbation that is being searched.
    fn entrap(&mut self, observer: &mut dyn Observer) -> Result<(), Error> {
        if self.inner.is_empty() {
            self.inner = self.group()?;
        }
        for stepped in in_parallel(self.inner.iter_mut(), InnerRun::step) {
            stepped?;
        }
        // Events of several simultaneous searches are reported when all are done, as if the
        // searches had been sequential.
        let alone = self.inner.len() == 1;
        if alone {
            observer.notify(&self.inner[0].last_event());
        }
        if !self.inner.iter().all(InnerRun::is_done) {
            return Ok(());
        }
        for inner in self.inner.drain(..) {
            if !alone {
                inner.events().for_each(|event| observer.notify(&event));
            }
            let found = inner.found();
            observer.notify(&found.event());
            self.found.push(found);
        }
        Ok(())
    }

    /// Starts the searches of the next perturbations, all from the same weights.
    fn group(&self) -> Result<Vec<InnerRun<B, M>>, Error> {
        // Models are sent to other threads by value.
        let replicas = self.counts_of_group().map(|count| {
            (
                self.round_start.clone(),
                self.config.injection_points_of(count),
                self.how_to_fit(count),
            )
        });
        let safety = &self.sets.safety;
        let start =
            |(model, injection_points, how)| InnerRun::start(&model, safety, injection_points, how);
        in_parallel(replicas, start).into_iter().collect()
    }

    /// Returns the indices, in the whole run, of the perturbations that are searched at the same
    /// time: one for each thread, but a single one on several ranks, because their sums must have
    /// the same order.
    fn counts_of_group(&self) -> std::ops::Range<usize> {
        let in_round = self.config.perturbations_per_round;
        let n_threads = if self.rank.is_alone() { self.config.entrap.threads } else { 1 };
        let first = self.found.len();
        let group = first..first.saturating_add(n_threads).min(in_round);
        let before = self.n_rounds * in_round;
        before + group.start..before + group.end
    }

    /// Returns the settings of the search for perturbation number `count` of the run, counted from
    /// 0, on its share of the threads.
    fn how_to_fit(&self, count: usize) -> (&EntrapConfig, u64, Rank) {
        let entrap = &self.config.entrap;
        let n_threads = entrap.threads / self.counts_of_group().len();
        (entrap, self.config.seed_of(count), self.rank.on_threads(n_threads))
    }

    /// Takes one step on the weights.
    fn remove(&mut self, observer: &mut dyn Observer) -> Result<(), Error> {
        let model = self.removing.take().unwrap_or_else(|| self.round_start.clone());
        let under = self.found.get(self.n_removed % self.found.len().max(1));
        let is_last = self.n_removed + 1 == self.config.remove.steps;
        let how = (under.map(|found| &found.perturbation), is_last);
        self.removing = Some(self.outer.step(model, how, self.sets, observer)?);
        self.n_removed += 1;
        Ok(())
    }

    /// Assesses the round that has just ended on its held-out rows. Returns true if the run ends
    /// with this round.
    pub(crate) fn judge(
        &mut self,
        metrics: &ValidationMetrics,
        observer: &mut dyn Observer,
    ) -> bool {
        let initial =
            self.initial.as_ref().expect("the first worker validates before the first round");
        let (round, bounds) = (self.rounds.len(), self.config.bounds);
        let validation = Assessment::new(initial, metrics, &bounds);
        let within_bounds = validation.is_within(bounds.undecided);
        let standing = Standing { is_out: !within_bounds, excess: validation.excess() };
        let kept = self.best.as_ref().is_none_or(|best| standing <= best.standing);
        if kept {
            self.best = Some(Best { model: self.round_start.clone(), round, standing });
        }
        let entrapments: Vec<_> =
            self.found.iter().map(|e| (e.perturbation.injection_points(), e.last_loss)).collect();
        self.rounds.push(RoundRecord { round, entrapments, validation, within_bounds });
        observer.notify(&Event::RoundEnded { round, validation, within_bounds, kept });
        let end = self.end();
        match end {
            Some(End::NothingLeft) => observer.notify(&Event::NothingLeft { round }),
            Some(End::OutOfBounds) => observer.notify(&Event::OutOfBounds { round }),
            Some(End::AllRounds) | None => {}
        }
        end.is_some()
    }

    /// Returns the reason of the end; `None` if the run is not over.
    pub(crate) fn end(&self) -> Option<End> {
        let last = self.rounds.last()?;
        let found_nothing =
            |floor: f64| last.entrapments.iter().all(|(_, last_loss)| *last_loss > floor);
        if last.within_bounds && self.config.stop_above_loss.is_some_and(found_nothing) {
            return Some(End::NothingLeft);
        }
        if self.rounds.len() >= self.config.rounds {
            return Some(End::AllRounds);
        }
        let n_beyond = self.rounds.iter().rev().take_while(|round| !round.within_bounds).count();
        let is_enough = self.config.patience.is_some_and(|patience| n_beyond >= patience);
        is_enough.then_some(End::OutOfBounds)
    }

    /// Returns the model of the best round, the index of that round, and the perturbations of the
    /// last round.
    ///
    /// # Panics
    ///
    /// Panics before the end of the first round.
    pub(crate) fn into_best(self) -> (M, usize, Vec<Perturbation<B::InnerBackend>>) {
        let best = self.best.expect("a round is over");
        let perturbations = self.found.into_iter().map(|found| found.perturbation).collect();
        (best.model, best.round, perturbations)
    }
}

/// Reason of the end of a run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The inner level no longer finds a perturbation that works.
    NothingLeft,
    /// All rounds have been taken.
    AllRounds,
    /// The model has been out of bounds for too many rounds.
    OutOfBounds,
}
