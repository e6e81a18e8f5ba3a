//! Random numbers of a backend, by seed.

use std::sync::{Mutex, PoisonError};

use burn::tensor::backend::Backend;

/// What `draw` makes of the random numbers of `B` that follow `seed`.
///
/// Burn keeps one source of random numbers a backend, for all threads of a process. Who draws through this function waits
/// for the others that do, so that runs side by side, and searches of one run, get the numbers of their own seeds. A caller
/// that seeds the backend itself at the same time disturbs them all the same. `draw` must not come here again.
pub fn seeded<B: Backend, T>(seed: u64, device: &B::Device, draw: impl FnOnce() -> T) -> T {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    B::seed(device, seed);
    draw()
}

#[cfg(test)]
mod tests {
    use burn::backend::NdArray;
    use burn::tensor::{Distribution, Tensor, TensorData};

    use super::*;

    /// Other tests of this process seed Flex.
    #[test]
    fn threads_get_the_numbers_of_their_own_seeds() {
        let device = Default::default();
        let drawn = |seed: u64| -> Vec<TensorData> {
            seeded::<NdArray, _>(seed, &device, || {
                let next =
                    |_| Tensor::<NdArray, 1>::random([8], Distribution::Uniform(0.0, 1.0), &device);
                (0..20).map(next).map(Tensor::into_data).collect()
            })
        };
        let expected = [drawn(1), drawn(2)];
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (drawn, expected) = (&drawn, &expected);
                scope.spawn(move || {
                    for _ in 0..50 {
                        assert_eq!(drawn(1 + thread % 2), expected[(thread % 2) as usize]);
                    }
                });
            }
        });
    }
}
