//! Saving and restoring of a search in progress, as numbers and tensors.

use burn::tensor::backend::AutodiffBackend;

use super::{DeltaOptimizer, InnerRun};
use crate::batch::example::SafetyExample;
use crate::config::EntrapConfig;
use crate::decoder::TrainableDecoder;
use crate::error::Error;
use crate::optim::projected_adam::ProjectedAdam;
use crate::parallel::rank::Rank;
use crate::perturbation::{InjectionPoint, by_layer};
use crate::state::progress::{DeltaNumbers, InnerNumbers};
use crate::state::snapshot::{Saved, Tensors, malformed};

impl<B: AutodiffBackend, M: TrainableDecoder<B>> InnerRun<B, M> {
    /// Saves perturbation number `count` of the run, counted from 0: adds its tensors under the
    /// prefix `name`, and returns its numbers.
    pub(crate) fn save(&self, count: usize, name: &str, tensors: &mut Tensors) -> InnerNumbers {
        let save = |(k, delta): (usize, &DeltaOptimizer<B::InnerBackend>)| {
            let rows = delta.rows.save(&below(name, k), tensors);
            DeltaNumbers { point: delta.point, rows }
        };
        let deltas = self.deltas.iter().enumerate().map(save).collect();
        InnerNumbers { count, losses: self.losses.clone(), deltas }
    }

    /// Restores a perturbation that [`save`](Self::save) stored under the prefix `name`; the other
    /// arguments are those of [`start`](Self::start).
    ///
    /// # Errors
    ///
    /// [`Error::MalformedSnapshot`] if the stored `δ`s do not match `injection_points`, or have
    /// taken another number of steps.
    pub(crate) fn restore(
        model: &M,
        examples: &[SafetyExample],
        (injection_points, name): (&[InjectionPoint], &str),
        how: (&EntrapConfig, u64, Rank),
        (saved, numbers): (Saved<'_>, &InnerNumbers),
    ) -> Result<Self, Error> {
        let InnerNumbers { losses, deltas, .. } = numbers;
        // `InnerRun` has its `δ`s in this order, whatever the order of the snapshot.
        let points_in_order = by_layer(injection_points.to_vec());
        let places = places_of(&points_in_order, deltas)
            .ok_or_else(|| malformed(format!("`{name}` acts at other injection points")))?;
        let all_stepped = deltas.iter().all(|fit| fit.rows.time == losses.len());
        if !all_stepped || losses.len() > how.0.steps {
            return Err(malformed(format!("`{name}` has taken other steps")));
        }
        let run = Self::with(model, examples, injection_points, how, |_, _, device| {
            let fit = |k: usize| {
                let DeltaNumbers { point, rows } = &deltas[k];
                let place = ([point.positions.n_tokens(), model.d_model()], device);
                let rows = ProjectedAdam::restore(&below(name, k), (saved, rows), place)?;
                Ok(DeltaOptimizer { point: *point, rows })
            };
            places.into_iter().map(fit).collect()
        })?;
        Ok(Self { losses: losses.clone(), ..run })
    }
}

/// Returns the name of the `k`-th `δ` of the perturbation `name`.
fn below(name: &str, k: usize) -> String {
    format!("{name}.{k}")
}

/// Returns the index in `deltas` of the `δ` at each of `injection_points`; `None` unless stored
/// `δ`s and injection points match one to one. Several `δ`s at one injection point keep their
/// order.
fn places_of(injection_points: &[InjectionPoint], deltas: &[DeltaNumbers]) -> Option<Vec<usize>> {
    let mut unclaimed: Vec<usize> = (0..deltas.len()).collect();
    let claim = |point: &InjectionPoint| {
        let place = unclaimed.iter().position(|&k| deltas[k].point == *point)?;
        Some(unclaimed.remove(place))
    };
    let places = injection_points.iter().map(claim).collect::<Option<Vec<usize>>>()?;
    unclaimed.is_empty().then_some(places)
}
