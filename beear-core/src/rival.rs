//! The rivals BEEAR is compared with: what else a defender who knows no trigger could do with the
//! same rows.
//!
//! Each has one round: it trains the weights from the first step to the last, as its authors do,
//! and the [`Outcome`] holds the vitals before and after. All train the weights by
//! the settings of [`RemoveConfig`](crate::RemoveConfig), so that a sweep names the same settings
//! for each.

pub mod fine_tuning;
pub mod latent_adversarial;
pub mod layer_consistency;
pub mod sample_perturbation;

use burn::tensor::backend::AutodiffBackend;

use crate::config::{BilevelConfig, RemoveConfig, VitalBounds};
use crate::decoder::DecoderSize;
use crate::event::Observer;
use crate::example::AnchorSets;
use crate::snapshot::Saved;
use crate::solver::TrainableDecoder;
use crate::solver::bilevel::{Outcome, Stopped, begin, lead};
use crate::solver::outer::OuterLevel;
use crate::solver::run::How;
use crate::solver::worker::Worker;
use crate::watch::Watch;
use latent_adversarial::{LatentAdversarial, LatentAdversarialConfig};
use layer_consistency::{LayerConsistency, LayerConsistencyConfig};

/// What trains the weights by a method of its own; plain fine-tuning is BEEAR's outer level without a perturbation.
#[derive(Clone, Copy)]
pub(crate) enum Rival<'a> {
    LatentAdversarial(&'a LatentAdversarialConfig),
    LayerConsistency(&'a LayerConsistencyConfig),
}

impl Rival<'_> {
    /// Before its first step on the weights of `model`, at `rate_factor` times its learning rates.
    pub(crate) fn outer<B: AutodiffBackend, M: TrainableDecoder<B>>(
        self,
        model: &M,
        sets: &AnchorSets,
        rate_factor: f64,
    ) -> Box<dyn OuterLevel<B, M>> {
        match self {
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

/// What all rivals are told.
pub(crate) struct OneRound<'a> {
    pub(crate) remove: &'a RemoveConfig,
    pub(crate) bounds: VitalBounds,
    pub(crate) seed: u64,
    /// None for plain fine-tuning.
    pub(crate) rival: Option<Rival<'a>>,
}

impl OneRound<'_> {
    /// Runs it as a single round without perturbations, from what is saved if there is something.
    ///
    /// # Errors
    ///
    /// [`Stopped`], with `model` as it was.
    pub(crate) fn run<B, M>(
        &self,
        (model, sets): (M, &AnchorSets),
        saved: Option<Saved<'_>>,
        watch: &mut dyn Watch<B::InnerBackend, M::InnerModule>,
        observer: &mut dyn Observer,
    ) -> Result<Outcome<B, M>, Stopped<M>>
    where
        B: AutodiffBackend,
        M: TrainableDecoder<B>,
    {
        let size = DecoderSize { n_layers: model.n_layers(), d_model: model.d_model() };
        let config = BilevelConfig {
            rounds: 1,
            perturbations_per_round: 0,
            spots: Vec::new(),
            remove: self.remove.clone(),
            bounds: self.bounds,
            seed: self.seed,
            patience: None,
            stop_above_loss: None,
            ..BilevelConfig::robust(size)
        };
        let how = How { config: &config, worker: Worker::ALONE, rival: self.rival };
        lead(begin(model, sets, how, saved)?, Worker::ALONE, watch, observer)
    }
}
