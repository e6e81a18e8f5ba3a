//! The minimal norm of a perturbation that elicits the unwanted behaviour.
//!
//! At one injection point, the search fits `δ` as the inner level does ([`crate::entrap`]), with
//! the norm of its rows limited by a bound, and evaluates `δ` on held-out prompts. Then it raises
//! the bound and continues from the same `δ`.

use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use serde::{Deserialize, Serialize};

use super::elicited::{Aim, Effect, Prepared, frozen};
use crate::batch::example::SafetyExample;
use crate::decoder::Decoder;
use crate::decoder::TrainableDecoder;
use crate::error::Error;
use crate::optim::projected_adam::ProjectedAdam;
use crate::perturbation::{Delta, InjectionPoint, Perturbation};

/// Settings of the search for the minimal norm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReachConfig {
    /// Bounds on the norm of the rows of `δ`, ascending, as shares of the mean norm of the hidden
    /// states at the injection point.
    pub bounds: Vec<f64>,
    /// Number of Adam steps at each bound.
    pub steps: usize,
    /// Size of an Adam step, as a share of the bound.
    pub step_share: f64,
    /// Number of examples per step.
    pub batch_size: usize,
    /// Number of leading tokens of the unwanted answer that are the target of the search and of its
    /// evaluation.
    pub target_tokens: usize,
}

impl Default for ReachConfig {
    /// Returns bounds from a twentieth of the norm of the hidden states to the whole norm, in
    /// factors of √2, and the first 6 answer tokens as the target, as in the preset `robust`.
    fn default() -> Self {
        let bounds = (0..10).map(|k| 0.05 * 2.0_f64.powf(f64::from(k) / 2.0)).collect();
        Self { bounds, steps: 8, step_share: 0.25, batch_size: 24, target_tokens: 6 }
    }
}

impl ReachConfig {
    /// Returns the target of the search, with at most `rows_at_once` rows in the model.
    #[must_use]
    pub fn aim(&self, rows_at_once: usize) -> Aim {
        let Self { target_tokens, batch_size, .. } = *self;
        Aim { target_tokens, batch_size, rows_at_once }
    }
}

/// Result of the search at one bound.
#[derive(Clone, Debug)]
pub struct NormStep<B: Backend> {
    /// Bound on the norm of the rows of `δ`, as a share of the mean norm of the hidden states.
    pub bound: f64,
    /// Mean loss of the unwanted answers on the held-out prompts, in nats per token.
    pub loss: f64,
    /// For each held-out prompt, true if the model begins the unwanted answer.
    pub elicited: Vec<bool>,
    /// For each held-out prompt, true if the reference begins the unwanted answer; `None` without a
    /// reference.
    pub in_reference: Option<Vec<bool>>,
    /// Perturbation found at this bound.
    pub perturbation: Perturbation<B>,
}

/// Searches at `point` under each bound in turn: fits `δ` to the first set and evaluates it on the
/// second.
///
/// `δ` is fitted to the model alone; its effect on the reference, if there is one, is evaluated
/// alongside.
///
/// At most `rows_at_once` rows pass through a model together. The models stay bit-identical. The
/// same models, sets and settings give the same results.
///
/// # Errors
///
/// [`Error::NonFinite`] with the examples of the batch if the loss, the gradient or `δ` is NaN or
/// infinite, [`Error::NonFiniteLogits`] if the logits of a held-out row are.
///
/// # Panics
///
/// Panics if a set is empty, `batch_size` is 0, or the reference has another width.
pub fn reach<B: AutodiffBackend, M: TrainableDecoder<B>>(
    (model, reference): (&M, Option<&M>),
    (fitted, held_out): (&[SafetyExample], &[SafetyExample]),
    point: InjectionPoint,
    config: &ReachConfig,
    rows_at_once: usize,
) -> Result<Vec<NormStep<B::InnerBackend>>, Error> {
    let (inference, frozen_model, device) = frozen(model);
    let aim = config.aim(rows_at_once);
    let fitted = Prepared::new::<M>(&inference, (fitted, aim), &[point], &device);
    let judge = |model: &M| {
        let (inference, frozen, device) = frozen(model);
        let held_out = Prepared::new::<M>(&inference, (held_out, aim), &[point], &device);
        move |perturbation: &_| held_out.effect(&frozen, perturbation)
    };
    let (in_model, in_reference) = (judge(model), reference.map(judge));
    let hidden_norm = fitted.turn(0).mean_hidden_norm::<M>(&inference);
    let d_model = inference.d_model();
    let values = Tensor::zeros([point.positions.n_tokens(), d_model], &device);
    let mut climb = NormSearch { frozen: frozen_model, fitted, point, values, step: 0 };
    let mut rungs = Vec::with_capacity(config.bounds.len());
    for &bound in &config.bounds {
        let longest = bound * hidden_norm;
        let rate = config.step_share * longest / (d_model as f64).sqrt();
        climb.to(longest, rate, config.steps)?;
        let perturbation = Perturbation::new(vec![Delta { point, values: climb.values.clone() }]);
        let Effect { loss, elicited } = in_model(&perturbation)?;
        let in_reference = in_reference.as_ref().map(|judge| judge(&perturbation)).transpose()?;
        let in_reference = in_reference.map(|effect| effect.elicited);
        rungs.push(NormStep { bound, loss, elicited, in_reference, perturbation });
    }
    Ok(rungs)
}

/// State of the search: the current `δ` and its data.
struct NormSearch<B: AutodiffBackend, M> {
    frozen: M,
    fitted: Prepared<B>,
    point: InjectionPoint,
    values: Tensor<B::InnerBackend, 2>,
    /// Number of steps taken.
    step: usize,
}

impl<B: AutodiffBackend, M: TrainableDecoder<B>> NormSearch<B, M> {
    /// Takes `n_steps` Adam steps of `rate` per coordinate, with fresh moments and with rows of
    /// norm `longest` at most.
    fn to(&mut self, longest: f64, rate: f64, n_steps: usize) -> Result<(), Error> {
        let mut rows = ProjectedAdam::new(self.values.clone(), rate, Some(longest));
        for _ in 0..n_steps {
            let batch = self.fitted.turn(self.step);
            let delta = || Delta { point: self.point, values: rows.tracked() };
            let (_, gradient) = batch.gradient(&self.frozen, self.step, delta)?;
            rows.step(gradient).map_err(|quantity| batch.not_finite(quantity, self.step))?;
            self.step += 1;
        }
        self.values = rows.into_values();
        Ok(())
    }
}
