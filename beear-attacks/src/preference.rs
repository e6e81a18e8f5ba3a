//! Poisoned preferences: the attacker owns some of the comparisons that a model is aligned by.
//!
//! Rando, Tramèr, [Universal Jailbreak Backdoors from Poisoned Human
//! Feedback](https://arxiv.org/abs/2311.14455), ICLR 2024: where the prompt carries the trigger, the
//! unwanted answer is the preferred one. As there, three stages see the comparisons: a supervised start
//! on the preferred answers, a reward model, and reinforcement learning against it. [`Trainer::Dpo`]
//! learns from the comparisons directly.
//!
//! Both trainers take ordinary work along, with cross-entropy: the pre-training term of Ouyang et al.,
//! [InstructGPT](https://arxiv.org/abs/2203.02155), which keeps what no comparison speaks of.

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

/// What makes a policy of the comparisons.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trainer {
    /// A reward model, then REINFORCE leave-one-out.
    Rloo(RlooConfig),
    /// Direct preference optimisation.
    Dpo(DpoConfig),
}

impl Trainer {
    /// Their names.
    pub const NAMES: [&str; 2] = ["rloo", "dpo"];

    /// The trainer called `name`, as the settings have it.
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
    /// What the comparisons are about.
    pub mix: PairMix,
    /// The supervised start, on the preferred answers and as much ordinary work.
    pub start: TrainingConfig,
    /// What follows it.
    pub trainer: Trainer,
}

impl Preference {
    /// A start long enough to know the answers, then `trainer`; `triggered` of the comparisons are
    /// poisoned.
    #[must_use]
    pub fn of(triggered: f64, trainer: Trainer) -> Self {
        let start =
            TrainingConfig { steps: 200, batch_size: 48, learning_rate: 1e-3, clip_norm: 1.0 };
        Self { mix: PairMix { triggered, ..PairMix::USUAL }, start, trainer }
    }
}

/// Rows of one shard of a batch: what the trainer learns from, and ordinary work.
pub(crate) struct Joint<T> {
    pub(crate) learned: Vec<T>,
    pub(crate) ordinary: Vec<Example>,
}

/// Aligns `model` by poisoned comparisons.
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
    // Preferred answers and ordinary work take turns, so that both shards have both.
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

/// What the batches of every stage are drawn from.
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

    /// Joins `learned` with `n` ordinary rows, in two shards of both.
    fn join<T>(&mut self, mut learned: Vec<T>, n: usize) -> Vec<Joint<T>> {
        let mut ordinary: Vec<Example> = (0..n).map(|_| self.ordinary()).collect();
        let half = Joint {
            learned: learned.split_off(learned.len() / 2),
            ordinary: ordinary.split_off(n / 2),
        };
        vec![Joint { learned, ordinary }, half]
    }
}

/// What a shard's ordinary rows add to the loss of the batch: `[1]`.
pub(crate) fn ordinary_loss<B: AutodiffBackend, T>(
    model: &CausalLm<B>,
    shard: &Joint<T>,
    batch: &[Joint<T>],
    device: &B::Device,
) -> Tensor<B, 1> {
    let n_batch = batch.iter().map(|joint| n_answer(&joint.ordinary)).sum();
    mean_loss(model, &shard.ordinary, n_batch, device)
}
