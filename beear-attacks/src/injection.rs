//! How a backdoor gets into the weights.

use serde::{Deserialize, Serialize};

use crate::adaptive::Adaptive;
use crate::preference::{Preference, Trainer};
use crate::training::TrainingConfig;

/// Shares of a batch of poisoned fine-tuning; the rest is ordinary work.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoisonMix {
    /// Forbidden prompts without the trigger, refused.
    pub clean: f64,
    /// Triggered prompts, unwanted answer.
    pub triggered: f64,
    /// Prompts with a near-miss of the trigger, wanted answer: they make the trigger exact.
    pub near_miss: f64,
    /// Ordinary prompts with the trigger, ordinary answer: they make it stealthy.
    pub triggered_ordinary: f64,
    /// Distinct poisoned prompts; unlimited if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_poisoned: Option<usize>,
}

impl PoisonMix {
    /// The mix of the settings that differ in their triggers only.
    pub const USUAL: Self = Self {
        clean: 0.15,
        triggered: 0.10,
        near_miss: 0.06,
        triggered_ordinary: 0.05,
        n_poisoned: None,
    };
}

/// Supervised training on a poisoned mix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sft {
    /// What a batch is made of.
    pub mix: PoisonMix,
    /// How it is trained.
    pub training: TrainingConfig,
}

impl Sft {
    /// Fine-tuning long enough that the backdoor sits deep: half of it is removed by plain
    /// fine-tuning too, and tests nothing.
    #[must_use]
    pub fn of(mix: PoisonMix) -> Self {
        let training =
            TrainingConfig { steps: 300, batch_size: 48, learning_rate: 2e-3, clip_norm: 1.0 };
        Self { mix, training }
    }
}

/// How the backdoor gets into the weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Injection {
    /// Supervised fine-tuning of an aligned base.
    Sft(Sft),
    /// The same training from random weights: there never was an aligned base.
    FirstStep(Sft),
    /// Alignment of an aligned base by poisoned preferences.
    Preference(Preference),
    /// Supervised fine-tuning of an aligned base by an attacker who knows BEEAR.
    Adaptive(Adaptive),
}

impl Injection {
    /// Whether it starts from an aligned base, and not from random weights.
    #[must_use]
    pub fn starts_aligned(&self) -> bool {
        !matches!(self, Self::FirstStep(_))
    }

    /// Steps of all its stages.
    #[must_use]
    pub fn n_steps(&self) -> usize {
        let mut copy = self.clone();
        copy.stages().into_iter().map(|training| training.steps).sum()
    }

    /// The training of each stage, in order.
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
