//! The rivals BEEAR is compared with: what else a defender who knows no trigger could do with the
//! same rows.
//!
//! Each has one round: it trains the weights from the first step to the last, as its authors do,
//! and the [`Outcome`] holds what validation measured before and after. All train the weights by
//! the settings of [`RemoveConfig`](crate::RemoveConfig), so that a sweep names the same settings
//! for each.

pub mod fine_tuning;
pub mod latent_adversarial;
pub mod layer_consistency;
pub mod sample_perturbation;

use burn::tensor::backend::AutodiffBackend;

use crate::config::{BilevelConfig, ValidationBounds};
use crate::decoder::DecoderSize;
use crate::defence::Defence;
use crate::example::AnchorSets;
use crate::solver::TrainableDecoder;
use crate::solver::outer::OuterLevel;
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

/// A single round without perturbations, whatever validation measures: how all rivals go.
pub(crate) fn one_round(
    defence: &Defence,
    bounds: ValidationBounds,
    size: DecoderSize,
) -> BilevelConfig {
    BilevelConfig {
        rounds: 1,
        perturbations_per_round: 0,
        spots: Vec::new(),
        remove: defence.remove().clone(),
        bounds,
        seed: defence.seed(),
        patience: None,
        stop_above_loss: None,
        ..BilevelConfig::robust(size)
    }
}
