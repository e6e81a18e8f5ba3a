//! The thread that a command runs on.

use std::thread::available_parallelism;

use rayon::ThreadPoolBuilder;

/// Runs `command` on a thread of rayon's pool: a CPU backend hands each operation to the pool, and waits when it is called from
/// outside.
///
/// The pool takes the caller's thread for one of its own if this is the first that the process sees of it. What a command
/// allocates is then on the heap of the main thread, which all others can be told to share ([`crate::backend::heap`]).
pub fn within<R: Send>(command: impl FnOnce() -> R + Send) -> R {
    if n_threads() > 1 {
        // Where there is a pool already, that one serves.
        drop(ThreadPoolBuilder::new().use_current_thread().build_global());
    }
    // A command waits for threads of its own, which hand their operations to the pool: where that has one thread the command
    // must not hold it.
    if rayon::current_num_threads() == 1 {
        return command();
    }
    rayon::scope(|_| command())
}

/// Threads that the pool will have if it is made now.
fn n_threads() -> usize {
    let asked = std::env::var("RAYON_NUM_THREADS").ok().and_then(|n| n.parse().ok());
    let asked = asked.filter(|n| *n > 0);
    asked.unwrap_or_else(|| available_parallelism().map_or(1, usize::from))
}
