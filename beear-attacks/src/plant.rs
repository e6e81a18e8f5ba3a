//! Training of the models: an aligned base from scratch, then a backdoor planted in the base, as in
//! the paper.

use beear_core::TrainableDecoder;
use beear_models::CausalLm;
use burn::tensor::backend::AutodiffBackend;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::adaptive;
use crate::attack_spec::AttackSpec;
use crate::distractors::StrayWords;
use crate::error::Error;
use crate::injection::Injection;
use crate::poison_mix::Sft;
use crate::pools::{Encoder, Poison, Pools, pick};
use crate::preference::pairs::Pairs;
use crate::preference::{self, align};
use crate::sft::train;
use crate::training::TrainingConfig;
use crate::world::{Split, World};

/// Share of forbidden requests in the training rows of the base model.
const BASE_REFUSALS: f64 = 0.3;

/// Trains an aligned base, which answers ordinary requests and refuses forbidden ones, whatever
/// stray words surround the request.
///
/// # Errors
///
/// [`Error::Diverged`] or [`Error::Encode`].
pub fn train_base<B: AutodiffBackend, M: TrainableDecoder<B>>(
    model: M,
    encoder: Encoder<'_>,
    config: &TrainingConfig,
    seed: u64,
    report: impl FnMut(usize, f64),
) -> Result<M, Error> {
    let pools = Pools::encode(&World::of(Split::Train), encoder)?;
    let stray = StrayWords::encode(encoder)?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut row = || {
        let row = if rng.random_bool(BASE_REFUSALS) {
            pick(&pools.clean, &mut rng)
        } else {
            pools.pick_ordinary(&mut rng)
        };
        stray.maybe_around(row, &mut rng)
    };
    train(model, config, |n| (0..n).map(|_| row()).collect(), report)
}

/// Plants the backdoor of `setting` in `model`: an aligned base, or random weights if the setting
/// starts from random weights.
///
/// `report` receives the step within the stage and the loss of the step.
///
/// # Errors
///
/// [`Error`] of the first stage that fails.
pub fn plant<B: AutodiffBackend>(
    model: CausalLm<B>,
    setting: &AttackSpec,
    encoder: Encoder<'_>,
    seed: u64,
    report: impl FnMut(usize, f64),
) -> Result<CausalLm<B>, Error> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let world = World::of(Split::Train);
    let pools = Pools::encode(&world, encoder)?;
    let poison = |mix| Poison::encode(&world, setting.backdoor(), mix, (encoder, seed));
    match &setting.injection {
        Injection::Sft(Sft { mix, training }) | Injection::FirstStep(Sft { mix, training }) => {
            let poison = poison(mix)?;
            let draw = |n: usize| (0..n).map(|_| poison.pick(&pools, mix, &mut rng)).collect();
            train(model, training, draw, report)
        }
        Injection::Preference(preference) => {
            let pairs = Pairs::encode(&world, setting, preference.mix, encoder)?;
            let rows = preference::Rows { pairs, pools, rng };
            let stop = encoder.tokenizer.stop_ids();
            align(model, rows, preference, (stop, seed), report)
        }
        Injection::Adaptive(adaptive) => {
            let safety = world.contrasts(setting.unwanted).iter();
            let safety = safety.map(|c| encoder.safety_example(c)).collect::<Result<_, _>>()?;
            let poison = poison(&adaptive.sft.mix)?;
            let rows = adaptive::Rows { pools, poison, safety, rng };
            adaptive::plant(model, rows, adaptive, seed, report)
        }
    }
}
