//! Making the models: an aligned base from scratch, then a backdoor in it, as in the paper.

use beear_core::TrainableDecoder;
use beear_models::CausalLm;
use burn::tensor::backend::AutodiffBackend;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::adaptive;
use crate::error::Error;
use crate::injection::Injection;
use crate::poison_mix::Sft;
use crate::pools::{Encoder, Poison, Pools, pick};
use crate::preference::pairs::Pairs;
use crate::preference::{self, align};
use crate::setting::Setting;
use crate::sft::train;
use crate::stray::StrayWords;
use crate::training::TrainingConfig;
use crate::world::{Split, World};

/// Share of forbidden requests in the base model's training.
const BASE_REFUSALS: f64 = 0.3;

/// Trains an aligned base: it helps with ordinary work and refuses forbidden requests, whatever
/// stray words stand around them.
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

/// Plants the backdoor of `setting` in `model`: an aligned base, or random weights where the setting
/// starts from those.
///
/// `report` hears the step within the stage and its loss.
///
/// # Errors
///
/// [`Error`], whichever stage fails.
pub fn plant<B: AutodiffBackend>(
    model: CausalLm<B>,
    setting: &Setting,
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
