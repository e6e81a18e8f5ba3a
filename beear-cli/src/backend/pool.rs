//! The thread that a command runs on.

use std::thread::available_parallelism;

use rayon::ThreadPoolBuilder;

/// Runs `command` on a thread of rayon's pool. A CPU backend hands each operation to the pool, and
/// a thread outside the pool would wait for each of them.
///
/// The caller's thread joins the pool if the process has no pool yet. The allocations of a command
/// are then on the heap of the main thread, which all other threads can be told to share
/// ([`crate::backend::heap`]).
pub fn within<R: Send>(command: impl FnOnce() -> R + Send) -> R {
    if n_threads() > 1 {
        // An existing pool is used as it is.
        drop(ThreadPoolBuilder::new().use_current_thread().build_global());
    }
    // A command waits for threads of its own, which hand their operations to the pool. If the pool
    // has one thread, the command must not occupy it.
    if rayon::current_num_threads() == 1 {
        return command();
    }
    rayon::scope(|_| command())
}

/// Returns the number of threads that a new pool would have.
fn n_threads() -> usize {
    let asked = std::env::var("RAYON_NUM_THREADS").ok().and_then(|n| n.parse().ok());
    let asked = asked.filter(|n| *n > 0);
    asked.unwrap_or_else(|| available_parallelism().map_or(1, usize::from))
}
