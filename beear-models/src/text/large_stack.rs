//! Thread with a large stack: a template may build values nested as deep as its fuel lasts, which
//! are formatted and dropped recursively.

use std::thread;

/// Size of the stack, in bytes. Only the used part takes memory.
pub(crate) const STACK: usize = 256 << 20;

/// Runs `work` on a large stack; `None` if it panics or the stack cannot be allocated.
pub(crate) fn run<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        thread.ok()?.join().ok()
    })
}
