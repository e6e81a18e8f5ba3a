//! The interface of everything that trains the weights of a run: BEEAR's outer level and the
//! baselines.

use burn::tensor::backend::AutodiffBackend;

use crate::batch::example::AnchorSets;
use crate::batch::sampler::AnchorSampler;
use crate::decoder::TrainableDecoder;
use crate::error::Error;
use crate::event::Observer;
use crate::optim::weight_step::WeightStep;
use crate::perturbation::Perturbation;
use crate::state::progress::OuterNumbers;
use crate::state::snapshot::{Saved, Tensors, malformed};

/// Constructor of an outer level before its first step on a model, at a share of the configured
/// learning rates.
pub(crate) type OuterFactory<'a, B, M> =
    &'a dyn Fn(&M, &AnchorSets, f64) -> Box<dyn OuterLevel<B, M>>;

/// Trainer of the weights of a run; between two steps its state can be saved as numbers and
/// tensors.
pub(crate) trait OuterLevel<B: AutodiffBackend, M: TrainableDecoder<B>> {
    /// Takes one step, under `perturbation` if there is one; the last step of a round also checks
    /// the weights.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] with the examples of the batch. `model` is lost in that case, so keep a
    /// clone.
    fn step(
        &mut self,
        model: M,
        how: (Option<&Perturbation<B::InnerBackend>>, bool),
        sets: &AnchorSets,
        observer: &mut dyn Observer,
    ) -> Result<M, Error>;

    /// Saves the state: adds its tensors, including those of the optimiser, and returns its
    /// numbers.
    fn save(&self, model: &M, tensors: &mut Tensors) -> OuterNumbers;

    /// Restores the state that [`save`](Self::save) stored.
    ///
    /// # Errors
    ///
    /// [`Error::MalformedSnapshot`] if the state does not belong to such a run.
    fn restore(
        self: Box<Self>,
        from: (&M, &AnchorSets),
        stored: (Saved<'_>, &OuterNumbers),
    ) -> Result<Box<dyn OuterLevel<B, M>>, Error>;
}

/// Saves an outer level without an attack: adds the optimiser's tensors, and returns the numbers.
pub(crate) fn save<B: AutodiffBackend, M: TrainableDecoder<B>>(
    (weight_step, rows): (&WeightStep<B, M>, &AnchorSampler),
    model: &M,
    tensors: &mut Tensors,
) -> OuterNumbers {
    let step = weight_step.save(model, tensors);
    OuterNumbers { step, rows: rows.clone(), attack: None }
}

/// Restores `weight_step` and the sampler of the rows of `sets`.
///
/// # Errors
///
/// [`Error::MalformedSnapshot`] if the state does not belong to such a run.
pub(crate) fn restore<B: AutodiffBackend, M: TrainableDecoder<B>>(
    weight_step: WeightStep<B, M>,
    (model, sets): (&M, &AnchorSets),
    (saved, numbers): (Saved<'_>, &OuterNumbers),
) -> Result<(WeightStep<B, M>, AnchorSampler), Error> {
    if !numbers.rows.fits(sets) {
        return Err(malformed("the sets have other numbers of rows"));
    }
    Ok((weight_step.restore(model, (saved, numbers.step))?, numbers.rows.clone()))
}
