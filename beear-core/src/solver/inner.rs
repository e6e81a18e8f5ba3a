//! The inner level, backdoor embedding entrapment: fits one `δ` with the weights frozen.
//!
//! $$\delta^\ast = \arg\min_\delta \mathcal{L}_\text{in}(\delta)$$ by Adam, with the loss of
//! [`crate::objective::entrapment`]. The layers below the spot run once per batch, without
//! autodiff; the weights above it require no gradients, so none are computed.

use burn::optim::{Adam, AdamConfig, SimpleOptimizer};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Distribution, ElementConversion, Tensor};

use super::TrainableDecoder;
use crate::batch::Batch;
use crate::config::{EntrapConfig, Initialisation, StepSize};
use crate::error::{Error, Quantity};
use crate::event::{Event, Observer};
use crate::example::{Example, SafetyExample};
use crate::objective::entrapment::{PreparedAnswer, entrapment_loss};
use crate::perturbation::{Perturbation, Spot};
use crate::sampler::Sampler;

/// PyTorch's ε; Burn's default of 1e-5 damps the small gradients of `δ`.
const ADAM_EPSILON: f32 = 1e-8;

/// A found `δ` and how well it elicits the unwanted behaviour.
#[derive(Clone, Debug)]
pub struct Entrapment<B: Backend> {
    /// The perturbation $\delta^\ast$.
    pub perturbation: Perturbation<B>,
    /// Inner loss of the first step, nats per answer token.
    pub first_loss: f64,
    /// Mean inner loss of the last steps, one pass over the examples at most.
    pub last_loss: f64,
}

/// The answers of one batch, prepared for one spot.
struct Prepared<B: AutodiffBackend> {
    unwanted: PreparedAnswer<B>,
    safe: Option<PreparedAnswer<B>>,
}

/// Fits a fresh `δ` at `spot` that makes `model` give the unwanted answers.
///
/// `model` is borrowed and left bit-identical.
///
/// # Errors
///
/// [`Error::NonFinite`] with the examples of the batch if the loss or the gradient leaves the
/// real line.
///
/// # Panics
///
/// Panics if `examples` is empty.
pub fn entrap<B: AutodiffBackend, M: TrainableDecoder<B>>(
    model: &M,
    examples: &[SafetyExample],
    spot: Spot,
    (config, seed): (&EntrapConfig, u64),
    observer: &mut dyn Observer,
) -> Result<Entrapment<B::InnerBackend>, Error> {
    let inference = model.valid();
    let frozen = M::from_inner(inference.clone()).no_grad();
    let device = model.devices().first().cloned().unwrap_or_default();
    let batches = prepare::<B, M>(&inference, examples, spot, (config, seed), &device);

    let hidden_norm = batches[0].unwanted.mean_hidden_norm();
    let learning_rate = match config.step_size {
        StepSize::Absolute(size) => size,
        StepSize::RelativeToHidden(share) => share * hidden_norm,
    };
    let longest_row = config.norm_bound.map(|share| share * hidden_norm);
    let shape = [spot.site.n_tokens(), model.d_model()];
    let mut delta = initial_delta::<B::InnerBackend>(config.initialisation, shape, seed, &device);
    let adam: Adam = AdamConfig::new().with_epsilon(ADAM_EPSILON).build();
    let mut state = None;
    let mut losses = Vec::with_capacity(config.steps);

    for step in 0..config.steps {
        let prepared = &batches[step % batches.len()];
        let not_finite =
            |quantity| Error::NonFinite { quantity, step, ids: prepared.unwanted.ids().to_vec() };
        let tracked = Tensor::<B, 2>::from_inner(delta.clone()).require_grad();
        let perturbation = Perturbation { spot, delta: tracked };
        let safe = prepared.safe.as_ref().map(|safe| (safe, config.away_weight));
        let loss = entrapment_loss(&frozen, &perturbation, &prepared.unwanted, safe);
        let value = loss.clone().into_scalar().elem::<f64>();
        if !value.is_finite() {
            return Err(not_finite(Quantity::Loss));
        }
        let grads = loss.backward();
        let grad = perturbation.delta.grad(&grads).expect("δ takes part in the loss");
        if !is_finite(&grad) {
            return Err(not_finite(Quantity::Gradient));
        }
        (delta, state) = adam.step(learning_rate, delta, grad, state);
        if let Some(longest) = longest_row {
            delta = project_rows(delta, longest);
        }
        if !is_finite(&delta) {
            return Err(not_finite(Quantity::Delta));
        }
        losses.push(value);
        observer.notify(&Event::InnerStep { step, loss: value });
    }

    let first_loss = losses[0];
    let last = &losses[losses.len() - batches.len().min(losses.len())..];
    let last_loss = last.iter().sum::<f64>() / last.len() as f64;
    let norm = delta.clone().powi_scalar(2).sum().into_scalar().elem::<f64>().sqrt();
    observer.notify(&Event::Entrapped { spot, first_loss, last_loss, norm });
    Ok(Entrapment { perturbation: Perturbation { spot, delta }, first_loss, last_loss })
}

/// Splits the examples into batches, in seeded order, as many as there are steps at most.
fn prepare<B: AutodiffBackend, M: TrainableDecoder<B>>(
    inference: &M::InnerModule,
    examples: &[SafetyExample],
    spot: Spot,
    (config, seed): (&EntrapConfig, u64),
    device: &B::Device,
) -> Vec<Prepared<B>> {
    let order = Sampler::new(examples.len(), seed).next_batch(examples.len());
    let answer = |rows: &[usize], choose: &dyn Fn(&SafetyExample) -> Example| {
        let rows: Vec<Example> = rows.iter().map(|&row| choose(&examples[row])).collect();
        PreparedAnswer::new(inference, Batch::new(&rows, device), spot)
    };
    order
        .chunks(config.batch_size)
        .take(config.steps)
        .map(|rows| Prepared {
            unwanted: answer(rows, &|example| example.toward_unwanted(config.target_tokens)),
            safe: (config.away_weight > 0.0)
                .then(|| answer(rows, &|example| example.toward_safe())),
        })
        .collect()
}

fn initial_delta<B: Backend>(
    initialisation: Initialisation,
    shape: [usize; 2],
    seed: u64,
    device: &B::Device,
) -> Tensor<B, 2> {
    match initialisation {
        Initialisation::Zero => Tensor::zeros(shape, device),
        Initialisation::Normal(std) => {
            B::seed(device, seed);
            Tensor::random(shape, Distribution::Normal(0.0, std), device)
        }
    }
}

/// Shortens every row that is longer than `longest`.
fn project_rows<B: Backend>(delta: Tensor<B, 2>, longest: f64) -> Tensor<B, 2> {
    let norms = delta.clone().powi_scalar(2).sum_dim(1).sqrt(); // [n_tokens, 1]
    let scale = norms.clamp_min(longest).recip().mul_scalar(longest);
    delta * scale
}

fn is_finite<B: Backend, const D: usize>(values: &Tensor<B, D>) -> bool {
    // A sum of squares is finite where every value is; one number crosses to the host.
    values.clone().powi_scalar(2).sum().into_scalar().elem::<f64>().is_finite()
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;

    #[test]
    fn projection_shortens_long_rows_and_leaves_short_ones() {
        let delta = Tensor::<Flex, 2>::from_data([[3.0, 4.0], [0.3, 0.4]], &Default::default());
        let rows = project_rows(delta, 1.0).into_data();
        let expected = burn::tensor::TensorData::from([[0.6_f32, 0.8], [0.3, 0.4]]);
        rows.assert_approx_eq(&expected, burn::tensor::Tolerance::<f32>::absolute(1e-6));
    }
}
