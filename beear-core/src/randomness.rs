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
