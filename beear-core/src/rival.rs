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

use crate::config::VitalBounds;
use crate::error::Error;
use crate::event::{Event, Observer};
use crate::solver::TrainableDecoder;
use crate::solver::bilevel::{Outcome, RoundRecord, Stopped, excess};
use crate::watch::Watch;

/// Runs `train` as a single round, and measures the vitals before and after.
///
/// # Errors
///
/// [`Stopped`] with what `train` fails with, and `model` as it was.
pub(crate) fn in_one_round<B, M>(
    model: M,
    bounds: VitalBounds,
    watch: &mut dyn Watch<B::InnerBackend, M::InnerModule>,
    observer: &mut dyn Observer,
    train: impl FnOnce(M, &mut dyn Observer) -> Result<M, Error>,
) -> Result<Outcome<B, M>, Stopped<M>>
where
    B: AutodiffBackend,
    M: TrainableDecoder<B>,
{
    let initial = watch.vitals(&model.valid());
    observer.notify(&Event::Started { vitals: initial });
    let last_good = model.clone();
    let model = train(model, observer).map_err(|error| Stopped {
        error,
        last_good: Box::new(last_good),
        rounds: Vec::new(),
    })?;
    let vitals = watch.vitals(&model.valid());
    let within_bounds = excess(vitals, initial, bounds) <= 0.0;
    let round = RoundRecord { round: 0, entrapments: Vec::new(), vitals, within_bounds };
    observer.notify(&Event::RoundEnded { round: 0, vitals, within_bounds, kept: true });
    Ok(Outcome { model, kept_round: 0, perturbations: Vec::new(), initial, rounds: vec![round] })
}
