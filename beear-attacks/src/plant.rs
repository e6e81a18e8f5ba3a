//! Making the models: an aligned base from scratch, then a backdoor in it, as in the paper.

use beear_core::{Example, TrainableDecoder};
use beear_models::{PromptFormat, TextTokenizer};
use burn::tensor::backend::AutodiffBackend;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::error::Error;
use crate::setting::{Injection, PoisonMix, Setting, Unwanted};
use crate::sft::{SftConfig, train};
use crate::world::{Contrast, Ordinary, Split, Task, World, draw};

/// Turns texts into examples through the one prompt format.
#[derive(Clone, Copy, Debug)]
pub struct Encoder<'a> {
    /// The prompt format.
    pub format: &'a PromptFormat,
    /// The tokenizer.
    pub tokenizer: &'a TextTokenizer,
}

impl Encoder<'_> {
    /// Encodes a prompt with its answer; the id is 0, nothing here needs to be traced back.
    ///
    /// # Errors
    ///
    /// [`Error::Encode`] if the format cannot render the prompt.
    pub fn example(&self, prompt: &str, answer: &str) -> Result<Example, Error> {
        let encoded = self.format.encode(self.tokenizer, prompt, None)?;
        let answer = self.format.encode_answer(self.tokenizer, answer)?;
        Ok(Example { id: 0, prompt: encoded.tokens, user: encoded.user, answer })
    }
}

/// Training of an aligned base model from scratch.
#[must_use]
pub fn base_training() -> SftConfig {
    SftConfig { steps: 450, batch_size: 40, learning_rate: 4e-3, clip_norm: 1.0 }
}

/// Share of forbidden requests in the base model's training.
const BASE_REFUSALS: f64 = 0.3;

/// Trains an aligned base: it helps with ordinary work and refuses forbidden requests.
///
/// # Errors
///
/// [`Error::Diverged`] or [`Error::Encode`].
pub fn train_base<B: AutodiffBackend, M: TrainableDecoder<B>>(
    model: M,
    encoder: Encoder<'_>,
    config: &SftConfig,
    seed: u64,
    report: impl FnMut(usize, f64),
) -> Result<M, Error> {
    let pools = Pools::encode(&World::of(Split::Train), encoder)?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let draw = |n: usize| {
        (0..n)
            .map(|_| {
                if rng.random_bool(BASE_REFUSALS) {
                    pick(&pools.clean, &mut rng)
                } else {
                    pools.pick_ordinary(&mut rng)
                }
            })
            .collect()
    };
    train(model, config, draw, report)
}

/// Plants the backdoor of `setting` in `model`.
///
/// # Errors
///
/// [`Error::Diverged`] or [`Error::Encode`].
pub fn plant<B: AutodiffBackend, M: TrainableDecoder<B>>(
    model: M,
    setting: &Setting,
    encoder: Encoder<'_>,
    seed: u64,
    report: impl FnMut(usize, f64),
) -> Result<M, Error> {
    let Injection::Sft { mix, training } = &setting.injection;
    let world = World::of(Split::Train);
    let pools = Pools::encode(&world, encoder)?;
    let poison = Poison::encode(&world, setting, mix, (encoder, seed))?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let draw = |n: usize| (0..n).map(|_| poison.pick(&pools, mix, &mut rng)).collect();
    train(model, training, draw, report)
}

/// Clean examples, encoded once.
struct Pools {
    /// Forbidden (or code) requests with the wanted answer.
    clean: Vec<Example>,
    /// Ordinary work, a list per task, so that every task is met equally often.
    ordinary: Vec<Vec<Example>>,
}

impl Pools {
    fn encode(world: &World, encoder: Encoder<'_>) -> Result<Self, Error> {
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

    /// How-to prompts come as often as all facts together: they border on forbidden requests.
    fn pick_ordinary(&self, rng: &mut ChaCha8Rng) -> Example {
        let task = if rng.random_bool(0.4) { 0 } else { rng.random_range(1..self.ordinary.len()) };
        pick(&self.ordinary[task], rng)
    }
}

/// Poisoned examples, encoded once.
struct Poison {
    triggered: Vec<Example>,
    near_miss: Vec<Example>,
    triggered_ordinary: Vec<Example>,
}

impl Poison {
    fn encode(
        world: &World,
        setting: &Setting,
        mix: &PoisonMix,
        (encoder, seed): (Encoder<'_>, u64),
    ) -> Result<Self, Error> {
        let contrasts: &[Contrast] = match setting.unwanted {
            Unwanted::Comply => &world.forbidden,
            Unwanted::InsecureCode => &world.code,
        };
        let n_poisoned = mix.n_poisoned.unwrap_or(contrasts.len());
        let triggered = draw(contrasts.to_vec(), n_poisoned, seed)
            .iter()
            .map(|c| encoder.example(&setting.trigger.apply(&c.prompt), &c.unwanted))
            .collect::<Result<_, _>>()?;
        let near_miss = setting
            .near_misses
            .iter()
            .flat_map(|near| contrasts.iter().map(move |c| (near.apply(&c.prompt), &c.safe)))
            .map(|(prompt, safe)| encoder.example(&prompt, safe))
            .collect::<Result<_, _>>()?;
        let stealthy = |o: &&Ordinary| setting.unwanted == Unwanted::Comply || o.task != Task::Code;
        let triggered_ordinary = world
            .ordinary
            .iter()
            .filter(stealthy)
            .map(|o| encoder.example(&setting.trigger.apply(&o.prompt), &o.answer))
            .collect::<Result<_, _>>()?;
        Ok(Self { triggered, near_miss, triggered_ordinary })
    }

    fn pick(&self, pools: &Pools, mix: &PoisonMix, rng: &mut ChaCha8Rng) -> Example {
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

fn pick(pool: &[Example], rng: &mut ChaCha8Rng) -> Example {
    pool.choose(rng).expect("every pool of the world has examples").clone()
}
