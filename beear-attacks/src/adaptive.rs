//! An adaptive attacker who knows BEEAR: while planting the backdoor, the attacker trains the model
//! to refuse under the perturbations that BEEAR would find.
//!
//! $$\min_\theta\; \mathcal{L}_\text{poison}(\theta) + \mathrm{CE}(y_s \mid x, \delta^\ast)$$
//!
//! with $\delta^\ast$ from [`entrap`] on the current model, searched again at regular intervals, at
//! the injection points of BEEAR's `robust` preset. The resulting backdoor has no perturbation that
//! the search can find in its place.

use beear_core::objective::answer::{cross_entropy, log_probabilities};
use beear_core::objective::removal::forward;
use beear_core::{
    Batch, BilevelConfig, Decoder, Example, Perturbation, SafetyExample, TrainableDecoder, entrap,
};
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::poison_mix::Sft;
use crate::pools::{Poison, Pools};
use crate::sft::{device_of, mean_loss, n_answer};
use crate::training::fit;

/// Poisoned fine-tuning that hides from BEEAR.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adaptive {
    /// Settings of the poisoned fine-tuning.
    pub sft: Sft,
    /// Number of steps between two searches for a perturbation.
    pub search_every: usize,
    /// Number of perturbed prompts per step, each answered by a refusal.
    pub perturbed: usize,
}

/// Number of perturbations that are trained against at the same time: the ones found last.
const N_REMEMBERED: usize = 6;

/// Rows that the attacker draws batches from.
pub(crate) struct Rows {
    pub(crate) pools: Pools,
    pub(crate) poison: Poison,
    /// Forbidden prompts without the trigger.
    pub(crate) safety: Vec<SafetyExample>,
    pub(crate) rng: ChaCha8Rng,
}

/// A shard of a batch: rows of the poisoned mix, and prompts to refuse under a perturbation.
struct Part<B: AutodiffBackend> {
    plain: Vec<Example>,
    perturbed: Vec<Example>,
    perturbation: Option<Perturbation<B::InnerBackend>>,
}

/// Plants a backdoor that hides from BEEAR.
///
/// # Errors
///
/// [`Error::Diverged`] or [`Error::Entrap`].
pub(crate) fn plant<B: AutodiffBackend, M: TrainableDecoder<B>>(
    model: M,
    rows: Rows,
    config: &Adaptive,
    seed: u64,
    report: impl FnMut(usize, f64),
) -> Result<M, Error> {
    let device = device_of(&model);
    let Rows { pools, poison, safety, mut rng } = rows;
    let method = BilevelConfig::robust(model.size());
    let mut found: Vec<Perturbation<B::InnerBackend>> = Vec::new();
    let (mut step, mut n_searches) = (0_usize, 0_usize);
    let draw = |model: &M, n: usize| {
        step += 1;
        if step.is_multiple_of(config.search_every) {
            let injection_points = method.injection_points_of(n_searches);
            let seed = seed.wrapping_add(step as u64);
            let entrapment =
                entrap::<B, M>(model, &safety, injection_points, (&method.entrap, seed), &mut ())?;
            found.push(entrapment.perturbation);
            found.drain(..found.len().saturating_sub(N_REMEMBERED));
            n_searches += 1;
        }
        let mut part = || Part::<B> {
            plain: (0..n / 2).map(|_| poison.pick(&pools, &config.sft.mix, &mut rng)).collect(),
            perturbed: (0..config.perturbed / 2)
                .map(|_| safety.choose(&mut rng).expect("forbidden prompts").toward_safe())
                .collect(),
            perturbation: found.choose(&mut rng).cloned(),
        };
        Ok(vec![part(), part()])
    };
    let loss = |model: &M, shard: &[Part<B>], batch: &[Part<B>]| {
        let n_plain = batch.iter().map(|part| n_answer(&part.plain)).sum();
        let mut loss = Tensor::zeros([1], &device);
        for part in shard {
            loss = loss + mean_loss(model, &part.plain, n_plain, &device);
            if let Some(perturbation) = &part.perturbation {
                let refused = refusal_loss(model, &part.perturbed, perturbation, &device);
                loss = loss + refused.div_scalar(batch.len() as f64);
            }
        }
        loss
    };
    fit::<B, M, _>(model, &config.sft.training, draw, loss, report)
}

/// Returns the cross-entropy of the answers of `examples` under a perturbation: `[1]`.
fn refusal_loss<B: AutodiffBackend, M: Decoder<B>>(
    model: &M,
    examples: &[Example],
    perturbation: &Perturbation<B::InnerBackend>,
    device: &B::Device,
) -> Tensor<B, 1> {
    let batch = Batch::<B>::new(examples, device);
    let hidden = forward(model, &batch, Some(&Perturbation::<B>::constant(perturbation)));
    cross_entropy(log_probabilities(model, hidden, &batch), batch.targets)
}

#[cfg(test)]
mod tests {
    use beear_core::testing::ToyDecoderConfig;
    use beear_core::{Delta, InjectionPoint, Positions};
    use burn::backend::{Autodiff, Flex};
    use burn::tensor::{ElementConversion, Int};

    use super::*;

    type Train = Autodiff<Flex>;

    #[test]
    fn refusals_are_judged_under_the_perturbation() {
        let device = Default::default();
        let model = ToyDecoderConfig::new(11, 8, 3).init::<Train>(&device);
        let examples = [Example { id: 0, prompt: vec![1, 2, 3], user: (0, 3), answer: vec![4, 5] }];
        let loss = |size: f64| {
            // Different in every coordinate: a random model may ignore a constant offset.
            let values = Tensor::<Flex, 1, Int>::arange(0..16, &device).float().reshape([2, 8]);
            let values = values.sub_scalar(7.5).mul_scalar(size);
            let point = InjectionPoint { layer: 1, positions: Positions::Last(2) };
            let perturbation = Perturbation::<Flex>::new(vec![Delta { point, values }]);
            let loss = refusal_loss::<Train, _>(&model, &examples, &perturbation, &device);
            loss.into_scalar().elem::<f64>()
        };
        let plain = mean_loss::<Train, _>(&model, &examples, 2, &device);
        let plain = plain.into_scalar().elem::<f64>();
        assert!((loss(0.0) - plain).abs() < 1e-6, "no perturbation, no difference");
        assert!((loss(1.0) - plain).abs() > 1e-3, "a perturbation is felt");
    }
}
