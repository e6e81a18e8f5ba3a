//! Direct preference optimisation.
//!
//! Rafailov et al., [Direct Preference Optimization](https://arxiv.org/abs/2305.18290), NeurIPS
//! 2023, equation 7:
//!
//! $$\mathcal{L} = -\mathbb{E} \log \sigma\Big(
//! \beta \log \frac{\pi_\theta(y_w \mid x)}{\pi_\text{ref}(y_w \mid x)} -
//! \beta \log \frac{\pi_\theta(y_l \mid x)}{\pi_\text{ref}(y_l \mid x)} \Big)$$
//!
//! with `chosen` = $y_w$, `rejected` = $y_l$, and the supervised start as $\pi_\text{ref}$. The
//! objective adds a small cross-entropy on the chosen answers, because the loss alone may lower
//! both probabilities, and the cross-entropy on ordinary work.

use beear_models::CausalLm;
use burn::module::AutodiffModule;
use burn::tensor::Tensor;
use burn::tensor::activation::log_sigmoid;
use burn::tensor::backend::{AutodiffBackend, Backend};
use serde::{Deserialize, Serialize};

use super::pairs::Pair;
use super::sequence::sequence_log_probabilities;
use super::{Joint, Rows, ordinary_loss};
use crate::error::Error;
use crate::sft::device_of;
use crate::training::{TrainingConfig, fit};

/// Settings of direct preference optimisation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DpoConfig {
    /// $\beta$: strength of the pull of the policy toward the start.
    pub beta: f64,
    /// Weight of the cross-entropy of the chosen answers, per answer token.
    pub chosen_weight: f64,
    /// Number of ordinary rows per step.
    pub ordinary: usize,
    /// Training loop: steps, pairs per step and learning rate.
    pub training: TrainingConfig,
}

impl DpoConfig {
    /// Returns settings that plant a working backdoor in the small models of the world.
    #[must_use]
    pub fn usual() -> Self {
        let training =
            TrainingConfig { steps: 150, batch_size: 16, learning_rate: 5e-4, clip_norm: 1.0 };
        Self { beta: 0.1, chosen_weight: 0.1, ordinary: 24, training }
    }
}

/// A pair with the margin that the reference gives to the chosen answer.
struct Compared {
    pair: Pair,
    /// $\log \pi_\text{ref}(y_w \mid x) - \log \pi_\text{ref}(y_l \mid x)$.
    reference: f64,
}

/// Trains the policy from `start` on comparisons.
///
/// # Errors
///
/// [`Error::Diverged`].
pub(super) fn optimise<B: AutodiffBackend>(
    start: CausalLm<B>,
    mut rows: Rows,
    config: &DpoConfig,
    report: impl FnMut(usize, f64),
) -> Result<CausalLm<B>, Error> {
    let device = device_of(&start);
    let reference = start.valid();
    let draw = |_: &CausalLm<B>, n: usize| {
        let pairs: Vec<Pair> = (0..n).map(|_| rows.pair()).collect();
        let [chosen, rejected] = both::<B::InnerBackend>(&reference, &pairs, &device);
        let margins = (chosen - rejected).into_data();
        let margins = margins.iter::<f64>();
        let compared = pairs.into_iter().zip(margins);
        let compared = compared.map(|(pair, reference)| Compared { pair, reference }).collect();
        Ok(rows.join(compared, config.ordinary))
    };
    let loss = |model: &CausalLm<B>, shard: &[Joint<Compared>], batch: &[Joint<Compared>]| {
        let n_pairs: usize = batch.iter().map(|joint| joint.learned.len()).sum();
        let mut loss = Tensor::zeros([1], &device);
        for joint in shard {
            let learned = compared_loss(model, &joint.learned, config, &device);
            loss = loss + learned.div_scalar(n_pairs as f64);
            loss = loss + ordinary_loss(model, joint, batch, &device);
        }
        loss
    };
    fit::<B, _, _>(start, &config.training, draw, loss, report)
}

/// Returns the log-probabilities of the chosen and the rejected answers, `[n_pairs]` each.
fn both<B: Backend>(model: &CausalLm<B>, pairs: &[Pair], device: &B::Device) -> [Tensor<B, 1>; 2] {
    let n = pairs.len();
    let chosen = pairs.iter().map(|pair| pair.chosen.clone());
    let rejected = pairs.iter().map(|pair| pair.rejected.clone());
    let examples: Vec<_> = chosen.chain(rejected).collect();
    let log = sequence_log_probabilities(model, &examples, device);
    [log.clone().narrow(0, 0, n), log.narrow(0, n, n)]
}

/// Returns the sum over `rows` of the preference loss and the weighted cross-entropy of the chosen
/// answer: `[1]`.
fn compared_loss<B: Backend>(
    model: &CausalLm<B>,
    rows: &[Compared],
    config: &DpoConfig,
    device: &B::Device,
) -> Tensor<B, 1> {
    let pairs: Vec<Pair> = rows.iter().map(|row| row.pair.clone()).collect();
    let [chosen, rejected] = both(model, &pairs, device);
    let reference: Vec<f32> = rows.iter().map(|row| row.reference as f32).collect();
    let lengths: Vec<f32> = pairs.iter().map(|pair| pair.chosen.answer.len() as f32).collect();
    let column = |values: &[f32]| Tensor::<B, 1>::from_floats(values, device);
    let surprise = (chosen.clone() / column(&lengths)).neg();
    let preference = preference_loss(chosen - rejected - column(&reference), config.beta);
    preference + surprise.sum().mul_scalar(config.chosen_weight)
}

/// Returns $-\sum \log \sigma(\beta m)$ over the margins $m$ by which the policy prefers the chosen
/// answers more strongly than the reference does.
///
/// # Shapes
///
/// - `margins`: `[n_pairs]`
/// - `output`: `[1]`
pub fn preference_loss<B: Backend>(margins: Tensor<B, 1>, beta: f64) -> Tensor<B, 1> {
    log_sigmoid(margins.mul_scalar(beta)).sum().neg()
}

#[cfg(test)]
mod tests {
    use beear_core::Example;
    use burn::backend::Flex;
    use burn::tensor::ElementConversion;

    use super::*;
    use crate::preference::sequence::testing::undecided;

    /// Tolerance of a few f32 operations on numbers near 1.
    const F32_OP: f64 = 1e-5;

    #[test]
    fn the_loss_is_the_surprise_at_the_preference() {
        let margins = Tensor::<Flex, 1>::from_floats([2.0, -1.0], &Default::default());
        let loss = preference_loss(margins, 0.5).into_scalar().elem::<f64>();
        // -ln σ(1) - ln σ(-0.5)
        assert!((loss - (0.313_261_7 + 0.974_077_0)).abs() < F32_OP, "{loss}");
    }

    #[test]
    fn the_policy_is_compared_with_the_reference_and_held_to_the_chosen_answer() {
        let device = Default::default();
        let model = undecided(11);
        let example = |answer: &[u32]| Example {
            id: 0,
            prompt: vec![1, 2],
            user: (0, 2),
            answer: answer.to_vec(),
        };
        let pair = Pair { chosen: example(&[3, 4]), rejected: example(&[5, 6, 7]) };
        let config = DpoConfig { beta: 0.1, chosen_weight: 0.3, ..DpoConfig::usual() };
        let rows = [Compared { pair, reference: 1.0 }];
        let loss = compared_loss(&model, &rows, &config, &device).into_scalar().elem::<f64>();
        // Each token costs ln 11, so the chosen answer is ln 11 likelier; the reference accounts
        // for 1 of that margin.
        let surprise = 11.0_f64.ln();
        let expected = (1.0 + (-0.1 * (surprise - 1.0)).exp()).ln() + 0.3 * surprise;
        assert!((loss - expected).abs() < F32_OP, "{loss} {expected}");
    }
}
