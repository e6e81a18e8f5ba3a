//! The interface of everything that trains the weights of a run: BEEAR's outer level and the baselines.

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

/// Builds an outer level before its first step on a model, at a share of the configured learning rates.
pub(crate) type OuterFactory<'a, B, M> =
    &'a dyn Fn(&M, &AnchorSets, f64) -> Box<dyn OuterLevel<B, M>>;

/// What takes the steps on the weights of a run, and is numbers and tensors between two of them.
pub(crate) trait OuterLevel<B: AutodiffBackend, M: TrainableDecoder<B>> {
    /// Takes one step, under `perturbation` if there is one; the last one of a round looks at the weights too.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] with the examples of the batch. `model` is lost then, so keep a clone.
    fn step(
        &mut self,
        model: M,
        how: (Option<&Perturbation<B::InnerBackend>>, bool),
        sets: &AnchorSets,
        observer: &mut dyn Observer,
    ) -> Result<M, Error>;

    /// Adds its tensors, the optimiser's among them, and returns the numbers.
    fn save(&self, model: &M, tensors: &mut Tensors) -> OuterNumbers;

    /// The same, gone on from what [`save`](Self::save) stored.
    ///
    /// # Errors
    ///
    /// [`Error::MalformedSnapshot`] if it is not of such a run.
    fn restore(
        self: Box<Self>,
        from: (&M, &AnchorSets),
        stored: (Saved<'_>, &OuterNumbers),
    ) -> Result<Box<dyn OuterLevel<B, M>>, Error>;
}

/// Adds the optimiser's tensors, and returns the numbers of an outer level without an attack.
pub(crate) fn save<B: AutodiffBackend, M: TrainableDecoder<B>>(
    (weight_step, rows): (&WeightStep<B, M>, &AnchorSampler),
    model: &M,
    tensors: &mut Tensors,
) -> OuterNumbers {
    let step = weight_step.save(model, tensors);
    OuterNumbers { step, rows: rows.clone(), attack: None }
}

/// `weight_step` and the rows of `sets` as they were.
///
/// # Errors
///
/// [`Error::MalformedSnapshot`] if they are not of such a run.
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
