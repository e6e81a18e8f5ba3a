//! A perturbation that is being fitted, as numbers and tensors, and back.

use burn::tensor::backend::AutodiffBackend;
use serde::{Deserialize, Serialize};

use super::{Fit, Fitting};
use crate::config::EntrapConfig;
use crate::error::Error;
use crate::example::SafetyExample;
use crate::perturbation::{Spot, by_layer};
use crate::snapshot::{Saved, Tensors, malformed};
use crate::solver::TrainableDecoder;
use crate::solver::projected_adam::{ProjectedAdam, RowNumbers};
use crate::solver::worker::Worker;

/// Numbers of a [`Fitting`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FittingNumbers {
    /// Number of perturbations of the run before this one.
    pub(crate) count: usize,
    /// Losses of the steps so far.
    losses: Vec<f64>,
    /// The numbers of each `δ`, in the order that their tensors are numbered in.
    pub(crate) fits: Vec<FitNumbers>,
}

/// Numbers of the `δ` at one spot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FitNumbers {
    /// The place that the tensors of this number belong to.
    spot: Spot,
    pub(crate) rows: RowNumbers,
}

impl<B: AutodiffBackend, M: TrainableDecoder<B>> Fitting<B, M> {
    /// Adds the tensors of the perturbation that `count` others of the run precede below `name`, and returns
    /// the numbers.
    pub(crate) fn add_to(&self, count: usize, name: &str, tensors: &mut Tensors) -> FittingNumbers {
        let fit = |(k, fit): (usize, &Fit<B::InnerBackend>)| {
            let rows = fit.rows.add_to(&below(name, k), tensors);
            FitNumbers { spot: fit.spot, rows }
        };
        let fits = self.fits.iter().enumerate().map(fit).collect();
        FittingNumbers { count, losses: self.losses.clone(), fits }
    }

    /// Restores what [`add_to`](Self::add_to) stored below `name`; `spots` and the rest are the arguments of
    /// [`start`](Self::start).
    ///
    /// # Errors
    ///
    /// [`Error::MalformedSnapshot`] if the stored `δ`s are not those of `spots`, or have taken other steps.
    pub(crate) fn stored(
        model: &M,
        examples: &[SafetyExample],
        (spots, name): (&[Spot], &str),
        how: (&EntrapConfig, u64, Worker),
        (saved, numbers): (Saved<'_>, &FittingNumbers),
    ) -> Result<Self, Error> {
        let FittingNumbers { losses, fits, .. } = numbers;
        // `Fitting` has its `δ`s in this order, whatever the order of the snapshot.
        let spots_in_order = by_layer(spots.to_vec());
        let places = places_of(&spots_in_order, fits)
            .ok_or_else(|| malformed(format!("`{name}` acts at other spots")))?;
        let all_stepped = fits.iter().all(|fit| fit.rows.time == losses.len());
        if !all_stepped || losses.len() > how.0.steps {
            return Err(malformed(format!("`{name}` has taken other steps")));
        }
        let fitting = Self::with(model, examples, spots, how, |_, _, device| {
            let fit = |k: usize| {
                let FitNumbers { spot, rows } = &fits[k];
                let place = ([spot.site.n_tokens(), model.d_model()], device);
                let rows = ProjectedAdam::stored(&below(name, k), (saved, rows), place)?;
                Ok(Fit { spot: *spot, rows })
            };
            places.into_iter().map(fit).collect()
        })?;
        Ok(Self { losses: losses.clone(), ..fitting })
    }
}

/// Name of the `k`-th `δ` of the perturbation `name`.
fn below(name: &str, k: usize) -> String {
    format!("{name}.{k}")
}

/// The index in `fits` of the `δ` at each of `spots`; `None` unless every stored `δ` has its spot and every
/// spot its `δ`. Several `δ`s at one spot keep their order.
fn places_of(spots: &[Spot], fits: &[FitNumbers]) -> Option<Vec<usize>> {
    let mut unclaimed: Vec<usize> = (0..fits.len()).collect();
    let claim = |spot: &Spot| {
        let place = unclaimed.iter().position(|&k| fits[k].spot == *spot)?;
        Some(unclaimed.remove(place))
    };
    let places = spots.iter().map(claim).collect::<Option<Vec<usize>>>()?;
    unclaimed.is_empty().then_some(places)
}
