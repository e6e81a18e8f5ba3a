//! Seeded random numbers of a backend.

use std::sync::{Mutex, PoisonError};

use burn::tensor::backend::Backend;

/// Returns the result of `draw` on the random numbers of `B` that follow `seed`.
///
/// Burn keeps one source of random numbers per backend, for all threads of a process. Concurrent
/// calls of this function wait for each other, so that simultaneous runs, and searches of one run,
/// get the numbers of their own seeds. A caller that seeds the backend directly at the same time
/// still disturbs them. `draw` must not call this function.
pub fn seeded<B: Backend, T>(seed: u64, device: &B::Device, draw: impl FnOnce() -> T) -> T {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    B::seed(device, seed);
    draw()
}

/// Purposes for which a run draws random numbers of the backend, each from a separate stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Initial values of a `δ`, indexed by its place in the perturbation; the seed is that of the
    /// perturbation.
    Start,
    /// Stochastic rounding of a step on the weights, indexed by the number of previous steps; the
    /// seed is that of the run.
    Rounding,
}

impl Stream {
    /// Returns the seed for the `index`-th use of this stream under `seed`.
    ///
    /// Each part passes through the finaliser of `SplitMix64` before the next part is added. With a
    /// plain sum (`seed + index`), the next `seed` would have the numbers of the next `index`.
    /// Steele, Lea and Flood, [Fast Splittable Pseudorandom Number
    /// Generators](https://doi.org/10.1145/2660193.2660195), OOPSLA 2014.
    pub(crate) fn seed(self, seed: u64, index: usize) -> u64 {
        let next =
            |state: u64, part: u64| mixed(state.wrapping_add(part.wrapping_mul(GOLDEN_RATIO)));
        [self as u64 + 1, index as u64 + 1].into_iter().fold(mixed(seed), next)
    }
}

/// Increment of `SplitMix64`: 2⁶⁴ over the golden ratio, made odd.
const GOLDEN_RATIO: u64 = 0x9E37_79B9_7F4A_7C15;

/// Applies the finaliser of `SplitMix64`: a bijection in which each bit of `state` changes about
/// half of the result's bits.
fn mixed(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_finaliser_is_that_of_split_mix_64() {
        // First outputs of the reference implementation (Vigna, splitmix64.c) from the state
        // 1234567.
        let outputs =
            (1..=3_u64).map(|k| mixed(k.wrapping_mul(GOLDEN_RATIO).wrapping_add(1_234_567)));
        let expected =
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert!(outputs.eq(expected));
    }

    #[test]
    fn no_two_uses_of_neighbouring_seeds_share_a_seed() {
        let streams = [Stream::Start, Stream::Rounding];
        let uses = streams.into_iter().flat_map(|stream| {
            let indices = move |seed| (0..100).map(move |index| stream.seed(seed, index));
            (0..100).flat_map(indices)
        });
        assert_eq!(uses.collect::<HashSet<u64>>().len(), 2 * 100 * 100);
    }
}
