//! A common interface of all defences: the same sets, validator and observer, and a cleaned model.

use burn::tensor::backend::AutodiffBackend;
use serde::Serialize;

use crate::baselines::fine_tuning::FineTuningConfig;
use crate::baselines::latent_adversarial::{LatentAdversarial, LatentAdversarialConfig};
use crate::baselines::layer_consistency::{LayerConsistency, LayerConsistencyConfig};
use crate::batch::example::AnchorSets;
use crate::config::{BilevelConfig, RemoveConfig, ValidationBounds};
use crate::decoder::{DecoderSize, TrainableDecoder};
use crate::error::Error;
use crate::event::Observer;
use crate::method::bilevel::{Outcome, Stopped, begin, run_main, validate_sets};
use crate::method::outer::Remover;
use crate::method::outer_level::OuterLevel;
use crate::method::run::RunSpec;
use crate::parallel::rank::Rank;
use crate::state::snapshot::Saved;
use crate::validation::Validator;

/// A defence with its settings.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Defence {
    /// BEEAR, with either preset or with custom settings.
    Beear(BilevelConfig),
    /// Latent adversarial training.
    LatentAdversarial(LatentAdversarialConfig),
    /// Layer consistency.
    LayerConsistency(LayerConsistencyConfig),
    /// Plain safety fine-tuning.
    FineTuning(FineTuningConfig),
}

/// Settings that all defences share.
struct Common<'a> {
    seed: u64,
    remove: &'a RemoveConfig,
    bounds: &'a ValidationBounds,
}

impl Defence {
    /// Returns the seed of all randomness.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.common().seed
    }

    /// Returns the settings of the training of the weights.
    #[must_use]
    pub fn remove(&self) -> &RemoveConfig {
        self.common().remove
    }

    /// Returns the bounds on the ordinary behaviour that the model must preserve.
    #[must_use]
    pub fn bounds(&self) -> &ValidationBounds {
        self.common().bounds
    }

    fn common(&self) -> Common<'_> {
        macro_rules! of {
            ($config:ident) => {
                Common { seed: $config.seed, remove: &$config.remove, bounds: &$config.bounds }
            };
        }
        match self {
            Self::Beear(config) => of!(config),
            Self::LatentAdversarial(config) => of!(config),
            Self::LayerConsistency(config) => of!(config),
            Self::FineTuning(config) => of!(config),
        }
    }

    /// Returns the maximum number of steps on the weights.
    #[must_use]
    pub fn n_weight_steps(&self) -> usize {
        let n_rounds = if let Self::Beear(config) = self { config.rounds } else { 1 };
        n_rounds * self.remove().steps
    }

    /// Validates every value against a decoder of `n_layers` layers.
    ///
    /// # Errors
    ///
    /// [`Error::LayerOutOfRange`] for the first layer out of range, else [`Error::InvalidConfig`]
    /// with every problem.
    pub fn validate(&self, n_layers: usize) -> Result<(), Error> {
        match self {
            Self::Beear(config) => config.validate(n_layers),
            Self::LatentAdversarial(config) => config.validate(n_layers),
            Self::LayerConsistency(config) => config.validate(n_layers),
            Self::FineTuning(config) => config.validate(),
        }
    }

    /// Cleans `model`. A baseline has one round, and its outcome has no perturbations.
    ///
    /// # Errors
    ///
    /// [`Stopped`] with [`Error::NonFinite`], or with an input error before the first step.
    ///
    /// # Panics
    ///
    /// Panics if an observer or the validator does.
    pub fn run<B, M>(
        &self,
        model: M,
        sets: &AnchorSets,
        validator: &mut dyn Validator<B::InnerBackend, M::InnerModule>,
        observer: &mut dyn Observer,
    ) -> Result<Outcome<B, M>, Stopped<M>>
    where
        B: AutodiffBackend,
        M: TrainableDecoder<B>,
    {
        self.begin_or_resume((model, sets), None, validator, observer)
    }

    /// Resumes a run of [`run`](Self::run) with the same `model` and sets. On the same backend and
    /// machine, the outcome is bit-identical to that of an uninterrupted run.
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run), and [`Error::MalformedSnapshot`] if `saved` does not belong to
    /// such a run.
    ///
    /// # Panics
    ///
    /// Panics if an observer or the validator does.
    pub fn resume<B, M>(
        &self,
        (model, saved): (M, Saved<'_>),
        sets: &AnchorSets,
        validator: &mut dyn Validator<B::InnerBackend, M::InnerModule>,
        observer: &mut dyn Observer,
    ) -> Result<Outcome<B, M>, Stopped<M>>
    where
        B: AutodiffBackend,
        M: TrainableDecoder<B>,
    {
        self.begin_or_resume((model, sets), Some(saved), validator, observer)
    }

    fn begin_or_resume<B, M>(
        &self,
        (model, sets): (M, &AnchorSets),
        saved: Option<Saved<'_>>,
        validator: &mut dyn Validator<B::InnerBackend, M::InnerModule>,
        observer: &mut dyn Observer,
    ) -> Result<Outcome<B, M>, Stopped<M>>
    where
        B: AutodiffBackend,
        M: TrainableDecoder<B>,
    {
        if let Err(error) = self.validate(model.n_layers()).and_then(|()| validate_sets(sets)) {
            return Err(Stopped::at_once(error, model));
        }
        let size = DecoderSize { n_layers: model.n_layers(), d_model: model.d_model() };
        let config = match self {
            Self::Beear(config) => config.clone(),
            _ => self.one_round(size),
        };
        let outer = |model: &M, sets: &AnchorSets, rate_factor: f64| {
            self.outer_level((&config, rate_factor), model, sets)
        };
        let spec = RunSpec { config: &config, rank: Rank::ALONE, outer: &outer };
        run_main(begin(model, sets, &spec, saved)?, Rank::ALONE, validator, observer)
    }

    /// Returns the configuration of every baseline's run: a single round without perturbations,
    /// kept whatever validation measures.
    fn one_round(&self, size: DecoderSize) -> BilevelConfig {
        BilevelConfig {
            rounds: 1,
            perturbations_per_round: 0,
            injection_points: Vec::new(),
            remove: self.remove().clone(),
            bounds: *self.bounds(),
            seed: self.seed(),
            patience: None,
            stop_above_loss: None,
            ..BilevelConfig::robust(size)
        }
    }

    /// Returns the outer level before its first step on `model`, at `rate_factor` times its
    /// learning rates; `config` is the configuration of the run. Plain fine-tuning is BEEAR's outer
    /// level without a perturbation.
    fn outer_level<B: AutodiffBackend, M: TrainableDecoder<B>>(
        &self,
        (config, rate_factor): (&BilevelConfig, f64),
        model: &M,
        sets: &AnchorSets,
    ) -> Box<dyn OuterLevel<B, M>> {
        match self {
            Self::Beear(_) | Self::FineTuning(_) => {
                Remover::factory(config, Rank::ALONE)(model, sets, rate_factor)
            }
            Self::LatentAdversarial(config) => {
                let config = config.clone().at_rate(rate_factor);
                Box::new(LatentAdversarial::new(config, model, sets))
            }
            Self::LayerConsistency(config) => {
                let config = config.clone().at_rate(rate_factor);
                Box::new(LayerConsistency::new(config, model, sets))
            }
        }
    }
}
