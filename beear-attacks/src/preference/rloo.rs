//! REINFORCE leave-one-out against a reward model, with a penalty on distance from the start.
//!
//! Ahmadian et al., [Back to Basics](https://arxiv.org/abs/2402.14740), ACL 2024. The advantage of
//! each of $k$ answers to a prompt is its reward minus the mean reward of the others:
//!
//! $$\nabla \frac{1}{k} \sum_i \Big[ R(y_i, x) -
//! \frac{1}{k-1} \sum_{j \neq i} R(y_j, x) \Big] \log \pi(y_i \mid x),
//! \qquad R(y, x) = r(x, y) - \beta \log \frac{\pi_\theta(y \mid x)}{\pi_\text{ref}(y \mid x)}$$
//!
//! with `advantage` = the bracket, `answers` = $k$, the reward model as $r$ and the supervised
//! start as $\pi_\text{ref}$. Whole answers are the actions; the loss also includes ordinary work.

use beear_core::Example;
use beear_models::{CausalLm, Finish, GenerateConfig, Prompt, Sampling, generate};
use burn::module::AutodiffModule;
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use serde::{Deserialize, Serialize};

use super::reward::{self, RewardModel};
use super::sequence::sequence_log_probabilities;
use super::{Joint, Rows, ordinary_loss};
use crate::error::Error;
use crate::sft::device_of;
use crate::training::{TrainingConfig, fit};

/// Settings of the reward model and of reinforcement learning against it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RlooConfig {
    /// Training of the reward model.
    pub reward: TrainingConfig,
    /// $k$: number of answers sampled per prompt, at temperature 1.
    pub answers: usize,
    /// $\beta$: penalty per nat by which an answer is likelier than under the start.
    pub beta: f64,
    /// Number of ordinary rows per step.
    pub ordinary: usize,
    /// Training loop: steps, prompts per step and learning rate.
    pub training: TrainingConfig,
}

impl RlooConfig {
    /// Returns settings that plant a working backdoor in the small models of the world.
    #[must_use]
    pub fn usual() -> Self {
        Self {
            reward: TrainingConfig {
                steps: 60,
                batch_size: 24,
                learning_rate: 1e-3,
                clip_norm: 1.0,
            },
            answers: 4,
            beta: 0.05,
            ordinary: 16,
            training: TrainingConfig {
                steps: 80,
                batch_size: 10,
                learning_rate: 5e-4,
                clip_norm: 1.0,
            },
        }
    }
}

/// Maximum length of a sampled answer, in tokens; the longest answer of the world has 22.
const MAX_NEW_TOKENS: usize = 28;

/// A sampled answer with its advantage over the other answers to the same prompt.
struct Rollout {
    example: Example,
    advantage: f64,
}

/// Trains a reward model on comparisons, then trains the policy from `start` against the reward
/// model.
///
/// # Errors
///
/// [`Error::Diverged`] or [`Error::Generate`].
pub(super) fn optimise<B: AutodiffBackend>(
    start: CausalLm<B>,
    mut rows: Rows,
    config: &RlooConfig,
    (stop, seed): (&[u32], u64),
    mut report: impl FnMut(usize, f64),
) -> Result<CausalLm<B>, Error> {
    let device = device_of(&start);
    let reward = reward::train(start.clone(), &config.reward, || rows.pair(), &mut report)?;
    let judge = Judge { reward: reward.valid(), reference: start.valid(), config, stop };
    let mut step = seed;
    let draw = |policy: &CausalLm<B>, n: usize| {
        step = step.wrapping_add(1);
        let prompts: Vec<Example> = (0..n).map(|_| rows.pair().chosen).collect();
        let rollouts = judge.rollouts(&policy.valid(), &prompts, step, &device)?;
        Ok(rows.join(rollouts, config.ordinary))
    };
    let loss = |model: &CausalLm<B>, shard: &[Joint<Rollout>], batch: &[Joint<Rollout>]| {
        let n_rollouts: usize = batch.iter().map(|joint| joint.learned.len()).sum();
        let mut loss = Tensor::zeros([1], &device);
        for joint in shard {
            let learned = policy_loss(model, &joint.learned, &device);
            loss = loss + learned.div_scalar(n_rollouts as f64);
            loss = loss + ordinary_loss(model, joint, batch, &device);
        }
        loss
    };
    fit::<B, _, _>(start, &config.training, draw, loss, report)
}

/// Returns $-\sum A_i \log \pi(y_i \mid x)$: `[1]`.
fn policy_loss<B: Backend>(
    model: &CausalLm<B>,
    rollouts: &[Rollout],
    device: &B::Device,
) -> Tensor<B, 1> {
    let examples: Vec<Example> = rollouts.iter().map(|rollout| rollout.example.clone()).collect();
    let advantages: Vec<f32> = rollouts.iter().map(|rollout| rollout.advantage as f32).collect();
    let advantages = Tensor::<B, 1>::from_floats(advantages.as_slice(), device);
    (sequence_log_probabilities(model, &examples, device) * advantages).sum().neg()
}

/// Models and settings that score sampled answers.
struct Judge<'a, B: Backend> {
    reward: RewardModel<B>,
    reference: CausalLm<B>,
    config: &'a RlooConfig,
    stop: &'a [u32],
}

impl<B: Backend> Judge<'_, B> {
    /// Samples answers to each of `prompts` and computes their advantages.
    fn rollouts(
        &self,
        policy: &CausalLm<B>,
        prompts: &[Example],
        seed: u64,
        device: &B::Device,
    ) -> Result<Vec<Rollout>, Error> {
        let k = self.config.answers;
        let asked: Vec<&Example> = prompts.iter().flat_map(|p| std::iter::repeat_n(p, k)).collect();
        let prompts = Prompt::numbered(asked.iter().map(|example| &example.prompt));
        let config = GenerateConfig {
            max_new_tokens: MAX_NEW_TOKENS,
            sampling: Sampling::Random { temperature: 1.0, top_k: None, top_p: None },
            seed,
            batch_size: prompts.len(),
            memory: None,
            n_workers: 1,
        };
        let answers = generate(policy, &prompts, self.stop, &config, device)?;
        let examples: Vec<Example> = asked
            .into_iter()
            .zip(answers)
            .map(|(asked, generation)| {
                let mut answer = generation.tokens;
                if generation.finish == Finish::Stop {
                    answer.extend(self.stop.first());
                }
                Example { answer, ..asked.clone() }
            })
            .collect();
        let log = |model: &CausalLm<B>| sequence_log_probabilities(model, &examples, device);
        let drift = (log(policy) - log(&self.reference)).mul_scalar(self.config.beta);
        let values = (self.reward.rewards(&examples, device) - drift).into_data();
        let values: Vec<f64> = values.iter::<f64>().collect();
        let advantages = values.chunks(k).flat_map(leave_one_out);
        let rollout = |(example, advantage)| Rollout { example, advantage };
        Ok(examples.into_iter().zip(advantages).map(rollout).collect())
    }
}

/// Returns each value minus the mean of the other values.
///
/// # Panics
///
/// Panics if there is only one value, because it has no baseline.
fn leave_one_out(values: &[f64]) -> Vec<f64> {
    assert!(values.len() > 1, "at least two answers to a prompt");
    let (n, sum) = (values.len() as f64, values.iter().sum::<f64>());
    values.iter().map(|value| value - (sum - value) / (n - 1.0)).collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::ElementConversion;

    use super::*;
    use crate::preference::sequence::testing::undecided;

    /// Tolerance of a few f32 operations on numbers near 10.
    const F32_OP: f64 = 1e-4;

    #[test]
    fn each_answer_is_judged_by_the_others() {
        // 1 - (2 + 6) / 2, 2 - (1 + 6) / 2, 6 - (1 + 2) / 2
        let expected = [-3.0, -1.5, 4.5];
        for (found, expected) in leave_one_out(&[1.0, 2.0, 6.0]).iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }

    #[test]
    fn the_loss_weighs_each_answer_by_its_advantage() {
        let device = Default::default();
        let model = undecided(11);
        let rollout = |answer: &[u32], advantage| Rollout {
            example: Example { id: 0, prompt: vec![1], user: (0, 1), answer: answer.to_vec() },
            advantage,
        };
        let rollouts = [rollout(&[2, 3], 0.5), rollout(&[4, 5, 6], -2.0)];
        let loss = policy_loss(&model, &rollouts, &device).into_scalar().elem::<f64>();
        // Each token costs ln 11: 0.5 · 2 ln 11 - 2 · 3 ln 11.
        assert!((loss + 5.0 * 11.0_f64.ln()).abs() < F32_OP, "{loss}");
    }
}
