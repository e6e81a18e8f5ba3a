//! Every defence behind one interface: the same sets, validator and observer, a cleaned model.

use burn::tensor::backend::AutodiffBackend;
use serde::Serialize;

use crate::config::{BilevelConfig, RemoveConfig, ValidationBounds};
use crate::decoder::DecoderSize;
use crate::error::Error;
use crate::event::Observer;
use crate::example::AnchorSets;
use crate::rival::fine_tuning::FineTuningConfig;
use crate::rival::latent_adversarial::LatentAdversarialConfig;
use crate::rival::layer_consistency::LayerConsistencyConfig;
use crate::rival::{Rival, one_round};
use crate::snapshot::Saved;
use crate::solver::TrainableDecoder;
use crate::solver::bilevel::{Outcome, Stopped, begin, lead, validate_sets};
use crate::solver::run::How;
use crate::solver::worker::Worker;
use crate::validation::Validator;

/// A defence with its settings.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Defence {
    /// BEEAR, by either preset or settings of one's own.
    Beear(BilevelConfig),
    /// Latent adversarial training.
    LatentAdversarial(LatentAdversarialConfig),
    /// Layer consistency.
    LayerConsistency(LayerConsistencyConfig),
    /// Plain safety fine-tuning.
    FineTuning(FineTuningConfig),
}

/// Settings that every defence has.
struct Common<'a> {
    seed: u64,
    remove: &'a RemoveConfig,
    bounds: &'a ValidationBounds,
}

impl Defence {
    /// Source of all randomness.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.common().seed
    }

    /// How the weights are trained.
    #[must_use]
    pub fn remove(&self) -> &RemoveConfig {
        self.common().remove
    }

    /// Bounds on what the model must preserve.
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

    /// Most steps it takes on the weights.
    #[must_use]
    pub fn n_weight_steps(&self) -> usize {
        let n_rounds = if let Self::Beear(config) = self { config.rounds } else { 1 };
        n_rounds * self.remove().steps
    }

    /// Judges every value against the decoder.
    ///
    /// # Errors
    ///
    /// [`Error::LayerOutOfRange`] for the first such layer, else [`Error::InvalidConfig`] with
    /// every problem.
    pub fn validate(&self, n_layers: usize) -> Result<(), Error> {
        match self {
            Self::Beear(config) => config.validate(n_layers),
            Self::LatentAdversarial(config) => config.validate(n_layers),
            Self::LayerConsistency(config) => config.validate(n_layers),
            Self::FineTuning(config) => config.validate(),
        }
    }

    /// Cleans `model`. A rival of BEEAR has one round and no perturbations to show.
    ///
    /// # Errors
    ///
    /// [`Stopped`] with [`Error::NonFinite`], or with the input's mistake before the first step.
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

    /// Goes on with a run of [`run`](Self::run), from the same `model` and sets, as if it had never stopped: on the same
    /// backend and machine the outcome is the same bit for bit.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run), and [`Error::MalformedSnapshot`] if `saved` is not of such a run.
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
        let round = |bounds| one_round(self, bounds, size);
        let (config, rival) = match self {
            Self::Beear(config) => (config.clone(), None),
            Self::LatentAdversarial(config) => {
                (round(config.bounds), Some(Rival::LatentAdversarial(config)))
            }
            Self::LayerConsistency(config) => {
                (round(config.bounds), Some(Rival::LayerConsistency(config)))
            }
            Self::FineTuning(config) => (round(config.bounds), None),
        };
        let how = How { config: &config, worker: Worker::ALONE, rival };
        lead(begin(model, sets, how, saved)?, Worker::ALONE, validator, observer)
    }
}
