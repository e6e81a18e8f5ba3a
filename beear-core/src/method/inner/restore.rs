//! A perturbation that is being fitted, as numbers and tensors, and back.

use burn::tensor::backend::AutodiffBackend;

use super::{DeltaOptimizer, InnerRun};
use crate::batch::example::SafetyExample;
use crate::config::EntrapConfig;
use crate::decoder::TrainableDecoder;
use crate::error::Error;
use crate::optim::projected_adam::ProjectedAdam;
use crate::parallel::rank::Rank;
use crate::perturbation::{Spot, by_layer};
use crate::state::progress::{DeltaNumbers, InnerNumbers};
use crate::state::snapshot::{Saved, Tensors, malformed};

impl<B: AutodiffBackend, M: TrainableDecoder<B>> InnerRun<B, M> {
    /// Adds the tensors of the perturbation that `count` others of the run precede below `name`, and returns
    /// the numbers.
    pub(crate) fn save(&self, count: usize, name: &str, tensors: &mut Tensors) -> InnerNumbers {
        let save = |(k, delta): (usize, &DeltaOptimizer<B::InnerBackend>)| {
            let rows = delta.rows.save(&below(name, k), tensors);
            DeltaNumbers { spot: delta.spot, rows }
        };
        let deltas = self.deltas.iter().enumerate().map(save).collect();
        InnerNumbers { count, losses: self.losses.clone(), deltas }
    }

    /// Restores what [`save`](Self::save) stored below `name`; `spots` and the rest are the arguments of
    /// [`start`](Self::start).
    ///
    /// # Errors
    ///
    /// [`Error::MalformedSnapshot`] if the stored `δ`s are not those of `spots`, or have taken other steps.
    pub(crate) fn restore(
        model: &M,
        examples: &[SafetyExample],
        (spots, name): (&[Spot], &str),
        how: (&EntrapConfig, u64, Rank),
        (saved, numbers): (Saved<'_>, &InnerNumbers),
    ) -> Result<Self, Error> {
        let InnerNumbers { losses, deltas, .. } = numbers;
        // `InnerRun` has its `δ`s in this order, whatever the order of the snapshot.
        let spots_in_order = by_layer(spots.to_vec());
        let places = places_of(&spots_in_order, deltas)
            .ok_or_else(|| malformed(format!("`{name}` acts at other spots")))?;
        let all_stepped = deltas.iter().all(|fit| fit.rows.time == losses.len());
        if !all_stepped || losses.len() > how.0.steps {
            return Err(malformed(format!("`{name}` has taken other steps")));
        }
        let run = Self::with(model, examples, spots, how, |_, _, device| {
            let fit = |k: usize| {
                let DeltaNumbers { spot, rows } = &deltas[k];
                let place = ([spot.site.n_tokens(), model.d_model()], device);
                let rows = ProjectedAdam::restore(&below(name, k), (saved, rows), place)?;
                Ok(DeltaOptimizer { spot: *spot, rows })
            };
            places.into_iter().map(fit).collect()
        })?;
        Ok(Self { losses: losses.clone(), ..run })
    }
}

/// Name of the `k`-th `δ` of the perturbation `name`.
fn below(name: &str, k: usize) -> String {
    format!("{name}.{k}")
}

/// The index in `deltas` of the `δ` at each of `spots`; `None` unless every stored `δ` has its spot and every
/// spot its `δ`. Several `δ`s at one spot keep their order.
fn places_of(spots: &[Spot], deltas: &[DeltaNumbers]) -> Option<Vec<usize>> {
    let mut unclaimed: Vec<usize> = (0..deltas.len()).collect();
    let claim = |spot: &Spot| {
        let place = unclaimed.iter().position(|&k| deltas[k].spot == *spot)?;
        Some(unclaimed.remove(place))
    };
    let places = spots.iter().map(claim).collect::<Option<Vec<usize>>>()?;
    unclaimed.is_empty().then_some(places)
}
