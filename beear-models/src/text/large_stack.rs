//! A thread with a large stack: what a template makes may be nested as deep as its fuel lasts, and is shown and dropped
//! level by level.

use std::thread;

/// Size of the stack, in bytes. Only what is used of it takes memory.
pub(crate) const STACK: usize = 256 << 20;

/// Runs `work` on a large stack; `None` if it panics or there is no memory for the stack.
pub(crate) fn run<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        thread.ok()?.join().ok()
    })
}
