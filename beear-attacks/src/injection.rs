//! Ways to plant a backdoor in the weights.

use serde::{Deserialize, Serialize};

use crate::adaptive::Adaptive;
use crate::poison_mix::{PoisonMix, Sft};
use crate::preference::{Preference, Trainer};
use crate::training::TrainingConfig;

/// Way in which the backdoor is planted in the weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Injection {
    /// Supervised fine-tuning of an aligned base.
    Sft(Sft),
    /// Supervised fine-tuning from random weights, without an aligned base.
    FirstStep(Sft),
    /// Alignment of an aligned base with poisoned preferences.
    Preference(Preference),
    /// Supervised fine-tuning of an aligned base by an attacker who knows BEEAR.
    Adaptive(Adaptive),
}

impl Injection {
    /// Returns true if planting starts from an aligned base, and false if it starts from random
    /// weights.
    #[must_use]
    pub fn starts_aligned(&self) -> bool {
        !matches!(self, Self::FirstStep(_))
    }

    /// Returns the share of the rows, or of the comparisons, that carry the trigger and teach the
    /// unwanted behaviour.
    pub fn poison_rate(&mut self) -> &mut f64 {
        match self {
            Self::Sft(sft) | Self::FirstStep(sft) | Self::Adaptive(Adaptive { sft, .. }) => {
                &mut sft.mix.triggered
            }
            Self::Preference(preference) => &mut preference.mix.triggered,
        }
    }

    /// Returns the number of steps of all stages together.
    #[must_use]
    pub fn n_steps(&self) -> usize {
        let mut copy = self.clone();
        copy.stages().into_iter().map(|training| training.steps).sum()
    }

    /// Returns a description of every setting that cannot be trained; empty if all are valid.
    #[must_use]
    pub fn problems(&self) -> Vec<&'static str> {
        let mut copy = self.clone();
        let stages = copy.stages();
        let mut rules = vec![
            (stages.iter().all(|t| t.steps > 0), "a training has no steps"),
            // A batch is split into two shards, and each shard has both kinds of row.
            (stages.iter().all(|t| t.batch_size > 1), "a batch has fewer than 2 rows"),
        ];
        let shares: Vec<f64> = match self {
            Self::Sft(sft) | Self::FirstStep(sft) | Self::Adaptive(Adaptive { sft, .. }) => {
                let PoisonMix { clean, triggered, near_miss, triggered_ordinary, n_poisoned } =
                    sft.mix;
                rules.push((n_poisoned != Some(0), "n_poisoned is 0"));
                vec![clean, triggered, near_miss, triggered_ordinary]
            }
            Self::Preference(Preference { mix, .. }) => {
                vec![mix.triggered, mix.near_miss, mix.ordinary]
            }
        };
        rules.push((shares.iter().all(|share| *share >= 0.0), "a share is negative"));
        rules.push((shares.iter().sum::<f64>() <= 1.0, "the shares are more than 1"));
        match self {
            Self::Preference(Preference { trainer: Trainer::Rloo(rloo), .. }) => {
                rules.push((rloo.answers > 1, "an answer has no other to be judged by"));
                rules.push((rloo.ordinary > 1, "fewer than 2 ordinary rows"));
            }
            Self::Preference(Preference { trainer: Trainer::Dpo(dpo), .. }) => {
                rules.push((dpo.ordinary > 1, "fewer than 2 ordinary rows"));
            }
            Self::Adaptive(adaptive) => {
                rules.push((adaptive.search_every > 0, "search_every is 0"));
                rules.push((adaptive.perturbed > 1, "fewer than 2 perturbed rows"));
            }
            Self::Sft(_) | Self::FirstStep(_) => {}
        }
        rules.into_iter().filter(|(kept, _)| !kept).map(|(_, problem)| problem).collect()
    }

    /// Returns the training settings of each stage, in order.
    pub fn stages(&mut self) -> Vec<&mut TrainingConfig> {
        match self {
            Self::Sft(sft) | Self::FirstStep(sft) => vec![&mut sft.training],
            Self::Adaptive(adaptive) => vec![&mut adaptive.sft.training],
            Self::Preference(preference) => {
                let mut stages = vec![&mut preference.start];
                match &mut preference.trainer {
                    Trainer::Rloo(rloo) => stages.extend([&mut rloo.reward, &mut rloo.training]),
                    Trainer::Dpo(dpo) => stages.push(&mut dpo.training),
                }
                stages
            }
        }
    }
}
