//! The `beear` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    share_one_heap();
    beear_cli::run(std::env::args_os(), &beear_cli::Backends::embedded())
}

/// Has all threads allocate from one heap, so that memory is what was planned.
///
/// With a heap for each thread glibc keeps, in some runs and not in others, what one thread has freed and another
/// could use: up to half as much again (docs/performance-memory.md).
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "glibc has no other way to ask for it")]
fn share_one_heap() {
    // SAFETY: it is a parameter of glibc's, set while there is one thread.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn share_one_heap() {}
