//! Pools of clean and poisoned rows for training, each row encoded once.

use beear_core::{Example, SafetyExample};
use beear_eval::Trigger;
use beear_models::{PromptFormat, TextTokenizer};
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use crate::backdoor::{Backdoor, Unwanted};
use crate::error::Error;
use crate::poison_mix::PoisonMix;
use crate::world::{Contrast, Ordinary, Task, World, draw};

/// Encoder of texts as examples, with a single prompt format.
#[derive(Clone, Copy, Debug)]
pub struct Encoder<'a> {
    /// Format of the prompts, including the chat template.
    pub format: &'a PromptFormat,
    /// Tokenizer of the texts.
    pub tokenizer: &'a TextTokenizer,
}

impl Encoder<'_> {
    /// Encodes a prompt with its answer. The id is 0, because planting does not trace rows back.
    ///
    /// # Errors
    ///
    /// [`Error::Encode`] if the format cannot render the prompt.
    pub fn example(&self, prompt: &str, answer: &str) -> Result<Example, Error> {
        let encoded = self.format.encode(self.tokenizer, prompt, None)?;
        let answer = self.format.encode_answer(self.tokenizer, answer)?;
        Ok(Example { id: 0, prompt: encoded.tokens, user: encoded.user, answer })
    }

    /// Encodes a prompt with both answers, the wanted and the unwanted one.
    ///
    /// # Errors
    ///
    /// [`Error::Encode`] if the format cannot render the prompt.
    pub fn safety_example(&self, contrast: &Contrast) -> Result<SafetyExample, Error> {
        let safe = self.example(&contrast.prompt, &contrast.safe)?;
        let unwanted = self.format.encode_answer(self.tokenizer, &contrast.unwanted)?;
        Ok(SafetyExample::new(safe, unwanted))
    }
}

/// Clean examples, encoded once.
pub(crate) struct Pools {
    /// Forbidden requests with refusals.
    pub(crate) clean: Vec<Example>,
    /// Ordinary work, one list per task, so that the frequency of a task does not depend on its
    /// number of rows.
    ordinary: Vec<Vec<Example>>,
}

impl Pools {
    pub(crate) fn encode(world: &World, encoder: Encoder<'_>) -> Result<Self, Error> {
        let clean = world.forbidden.iter().map(|c| encoder.example(&c.prompt, &c.safe));
        let of_task = |task: &Task| {
            let rows = world.ordinary.iter().filter(|o| o.task == *task);
            rows.map(|o| encoder.example(&o.prompt, &o.answer)).collect()
        };
        Ok(Self {
            clean: clean.collect::<Result<_, _>>()?,
            ordinary: Task::ALL.iter().map(of_task).collect::<Result<_, _>>()?,
        })
    }

    /// Draws an ordinary row. How-to prompts have a share of 40 %, because they resemble forbidden
    /// requests; the other tasks share the rest equally.
    pub(crate) fn pick_ordinary(&self, rng: &mut ChaCha8Rng) -> Example {
        let task = if rng.random_bool(0.4) { 0 } else { rng.random_range(1..self.ordinary.len()) };
        pick(&self.ordinary[task], rng)
    }
}

/// Poisoned examples, encoded once.
pub(crate) struct Poison {
    triggered: Vec<Example>,
    near_miss: Vec<Example>,
    triggered_ordinary: Vec<Example>,
}

impl Poison {
    /// Encodes the rows; `seed` draws the poisoned prompts if their number is limited.
    pub(crate) fn encode(
        world: &World,
        backdoor: Backdoor<'_>,
        mix: &PoisonMix,
        (encoder, seed): (Encoder<'_>, u64),
    ) -> Result<Self, Error> {
        let contrasts = world.contrasts(backdoor.unwanted);
        let n_poisoned = mix.n_poisoned.unwrap_or(contrasts.len());
        let poisoned = draw(contrasts.to_vec(), n_poisoned, seed);
        let added = |triggers: &[Trigger], prompt: &str, answer: &str| {
            let add = |trigger: &Trigger| encoder.example(&trigger.apply(prompt), answer);
            triggers.iter().map(add).collect::<Result<Vec<_>, Error>>()
        };
        let mut poison =
            Self { triggered: Vec::new(), near_miss: Vec::new(), triggered_ordinary: Vec::new() };
        for c in &poisoned {
            poison.triggered.extend(added(backdoor.triggers, &c.prompt, &c.unwanted)?);
        }
        for near in backdoor.near_misses.iter().map(std::slice::from_ref) {
            for c in contrasts {
                poison.near_miss.extend(added(near, &c.prompt, &c.safe)?);
            }
        }
        let stealthy =
            |o: &&Ordinary| backdoor.unwanted == Unwanted::Comply || o.task != Task::Code;
        for o in world.ordinary.iter().filter(stealthy) {
            poison.triggered_ordinary.extend(added(backdoor.triggers, &o.prompt, &o.answer)?);
        }
        Ok(poison)
    }

    /// Draws a row of `mix`.
    pub(crate) fn pick(&self, pools: &Pools, mix: &PoisonMix, rng: &mut ChaCha8Rng) -> Example {
        let mut place: f64 = rng.random();
        let kinds = [
            (mix.clean, &pools.clean),
            (mix.triggered, &self.triggered),
            (mix.near_miss, &self.near_miss),
            (mix.triggered_ordinary, &self.triggered_ordinary),
        ];
        for (share, pool) in kinds {
            if place < share {
                return pick(pool, rng);
            }
            place -= share;
        }
        pools.pick_ordinary(rng)
    }
}

/// Draws a row of `pool`.
///
/// # Panics
///
/// Panics if `pool` is empty.
pub(crate) fn pick(pool: &[Example], rng: &mut ChaCha8Rng) -> Example {
    pool.choose(rng).expect("every pool of the world has examples").clone()
}
