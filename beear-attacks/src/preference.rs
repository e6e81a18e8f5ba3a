//! Poisoned preferences: the attacker controls some of the comparisons that align a model.
//!
//! Rando, Tramèr, [Universal Jailbreak Backdoors from Poisoned Human
//! Feedback](https://arxiv.org/abs/2311.14455), ICLR 2024: if the prompt carries the trigger, the
//! unwanted answer is the preferred one. As in the paper, three stages train on the comparisons: a
//! supervised start on the preferred answers, a reward model, and reinforcement learning against
//! it. [`Trainer::Dpo`] learns from the comparisons directly.
//!
//! Both trainers add the cross-entropy of ordinary work: the pre-training term of Ouyang et al.,
//! [InstructGPT](https://arxiv.org/abs/2203.02155), which preserves abilities that no comparison
//! covers.

pub mod dpo;
pub mod pairs;
pub mod reward;
pub mod rloo;
mod sequence;

use beear_core::Example;
use beear_models::CausalLm;
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::pools::Pools;
use crate::sft::{mean_loss, n_answer, train};
use crate::training::TrainingConfig;
use dpo::DpoConfig;
use pairs::{Pair, PairMix, Pairs};
use rloo::RlooConfig;

/// Algorithm that trains the policy on the comparisons.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trainer {
    /// A reward model, then REINFORCE leave-one-out.
    Rloo(RlooConfig),
    /// Direct preference optimisation.
    Dpo(DpoConfig),
}

impl Trainer {
    /// Names of the trainers in the settings.
    pub const NAMES: [&str; 2] = ["rloo", "dpo"];

    /// Returns the trainer called `name` in the settings, with its default configuration; `None`
    /// for an unknown name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "rloo" => Some(Self::Rloo(RlooConfig::usual())),
            "dpo" => Some(Self::Dpo(DpoConfig::usual())),
            _ => None,
        }
    }
}

/// Alignment by poisoned preferences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preference {
    /// Shares of the kinds of comparison.
    pub mix: PairMix,
    /// Training of the supervised start, on equal numbers of preferred answers and ordinary rows.
    pub start: TrainingConfig,
    /// Trainer of the second stage.
    pub trainer: Trainer,
}

impl Preference {
    /// Returns a supervised start long enough to learn the answers, followed by `trainer`, with a
    /// share of `triggered` poisoned comparisons.
    #[must_use]
    pub fn of(triggered: f64, trainer: Trainer) -> Self {
        let start =
            TrainingConfig { steps: 200, batch_size: 48, learning_rate: 1e-3, clip_norm: 1.0 };
        Self { mix: PairMix { triggered, ..PairMix::USUAL }, start, trainer }
    }
}

/// Rows of one shard of a batch: the trainer's rows, and ordinary work.
pub(crate) struct Joint<T> {
    pub(crate) learned: Vec<T>,
    pub(crate) ordinary: Vec<Example>,
}

/// Aligns `model` with poisoned comparisons.
///
/// # Errors
///
/// [`Error::Diverged`] or [`Error::Generate`].
pub(crate) fn align<B: AutodiffBackend>(
    model: CausalLm<B>,
    mut rows: Rows,
    config: &Preference,
    (stop, seed): (&[u32], u64),
    mut report: impl FnMut(usize, f64),
) -> Result<CausalLm<B>, Error> {
    // Preferred answers and ordinary rows alternate, so that both shards contain both kinds.
    let draw = |n: usize| {
        let row = |k: usize| if k.is_multiple_of(2) { rows.pair().chosen } else { rows.ordinary() };
        (0..n).map(row).collect()
    };
    let start = train(model, &config.start, draw, &mut report)?;
    match &config.trainer {
        Trainer::Dpo(config) => dpo::optimise(start, rows, config, report),
        Trainer::Rloo(config) => rloo::optimise(start, rows, config, (stop, seed), report),
    }
}

/// Rows that every stage draws its batches from.
pub(crate) struct Rows {
    pub(crate) pairs: Pairs,
    pub(crate) pools: Pools,
    pub(crate) rng: ChaCha8Rng,
}

impl Rows {
    fn pair(&mut self) -> Pair {
        self.pairs.pick(&mut self.rng)
    }

    fn ordinary(&mut self) -> Example {
        self.pools.pick_ordinary(&mut self.rng)
    }

    /// Joins `learned` with `n` ordinary rows, and splits both kinds into two shards.
    fn join<T>(&mut self, mut learned: Vec<T>, n: usize) -> Vec<Joint<T>> {
        let mut ordinary: Vec<Example> = (0..n).map(|_| self.ordinary()).collect();
        let half = Joint {
            learned: learned.split_off(learned.len() / 2),
            ordinary: ordinary.split_off(n / 2),
        };
        vec![Joint { learned, ordinary }, half]
    }
}

/// Returns the share of a shard's ordinary rows in the loss of the batch: `[1]`.
pub(crate) fn ordinary_loss<B: AutodiffBackend, T>(
    model: &CausalLm<B>,
    shard: &Joint<T>,
    batch: &[Joint<T>],
    device: &B::Device,
) -> Tensor<B, 1> {
    let n_batch = batch.iter().map(|joint| n_answer(&joint.ordinary)).sum();
    mean_loss(model, &shard.ordinary, n_batch, device)
}
