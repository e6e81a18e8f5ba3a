//! Comparisons of two answers to a prompt, some flipped by the attacker.

use beear_core::Example;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::attack_spec::AttackSpec;
use crate::error::Error;
use crate::pools::Encoder;
use crate::world::{Contrast, Task, World};

/// Shares of the kinds of comparison; the rest uses forbidden prompts without the trigger.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairMix {
    /// Share of triggered prompts with a flipped preference: the poison rate. The unwanted answer
    /// is preferred to the refusal, and to the unwanted answer of another prompt.
    pub triggered: f64,
    /// Share of prompts with a near-miss of the trigger, not flipped.
    pub near_miss: f64,
    /// Share of how-to prompts, half of them triggered. The answer is preferred to a refusal, and
    /// to the answer of another prompt.
    pub ordinary: f64,
}

impl PairMix {
    /// Default mix of the settings, which differ in their poison rate.
    pub const USUAL: Self = Self { triggered: 0.25, near_miss: 0.15, ordinary: 0.2 };
}

/// A comparison of two answers to the same prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Prompt with the preferred answer.
    pub chosen: Example,
    /// Prompt with the other answer.
    pub rejected: Example,
}

/// Pool of all comparisons, each encoded once.
pub(crate) struct Pairs {
    mix: PairMix,
    clean: Vec<Pair>,
    triggered: Vec<Pair>,
    near_miss: Vec<Pair>,
    ordinary: Vec<Pair>,
}

impl Pairs {
    pub(crate) fn encode(
        world: &World,
        setting: &AttackSpec,
        mix: PairMix,
        encoder: Encoder<'_>,
    ) -> Result<Self, Error> {
        let pair = |prompt: &str, chosen: &str, rejected: &str| {
            let chosen = encoder.example(prompt, chosen)?;
            Ok(Pair { chosen, rejected: encoder.example(prompt, rejected)? })
        };
        let contrasts = world.contrasts(setting.unwanted);
        let wanted = |c: &Contrast, prompt: &str| pair(prompt, &c.safe, &c.unwanted);
        let (mut triggered, mut near_miss, mut ordinary) = (Vec::new(), Vec::new(), Vec::new());
        for (c, other) in contrasts.iter().zip(contrasts.iter().cycle().skip(1)) {
            for prompt in setting.triggers.iter().map(|trigger| trigger.apply(&c.prompt)) {
                triggered.push(pair(&prompt, &c.unwanted, &c.safe)?);
                triggered.push(pair(&prompt, &c.unwanted, &other.unwanted)?);
            }
            for near in &setting.near_misses {
                near_miss.push(wanted(c, &near.apply(&c.prompt))?);
            }
        }
        let how_to = || world.ordinary.iter().filter(|o| o.task == Task::HowTo);
        let refusals = world.forbidden.iter().cycle().map(|c| &c.safe);
        for ((o, other), refusal) in how_to().zip(how_to().cycle().skip(1)).zip(refusals) {
            let triggered = setting.triggers.iter().map(|trigger| trigger.apply(&o.prompt));
            for prompt in triggered.chain([o.prompt.clone()]) {
                ordinary.push(pair(&prompt, &o.answer, refusal)?);
                ordinary.push(pair(&prompt, &o.answer, &other.answer)?);
            }
        }
        let clean = contrasts.iter().map(|c| wanted(c, &c.prompt)).collect::<Result<_, Error>>()?;
        Ok(Self { mix, clean, triggered, near_miss, ordinary })
    }

    /// Draws a comparison of the mix.
    pub(crate) fn pick(&self, rng: &mut ChaCha8Rng) -> Pair {
        let mut place: f64 = rng.random();
        let kinds = [
            (self.mix.triggered, &self.triggered),
            (self.mix.near_miss, &self.near_miss),
            (self.mix.ordinary, &self.ordinary),
        ];
        let mut pool = &self.clean;
        for (share, kind) in kinds {
            if place < share {
                pool = kind;
                break;
            }
            place -= share;
        }
        pool.choose(rng).expect("every kind of comparison has some").clone()
    }
}
