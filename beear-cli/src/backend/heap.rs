//! What glibc is asked for, whose heap is made for programs that hold less and for shorter.

/// Models with more weights are planned for: their memory counts more than their time.
const MANY_WEIGHTS: usize = 20_000_000;

/// Tensors of fewer bytes stay on the heap when they are freed: the most that glibc allows.
pub(crate) const LARGEST_KEPT: u64 = 32 << 20;

/// Suits the heap to a model that is about to be trained or used.
///
/// By default glibc gives large tensors, and the free end of the heap, back to the system, which clears the same pages anew
/// at each step. Small models keep what they will need again, and their threads do not wait for each other's heap
/// (docs/performance.md).
///
/// With a heap for each thread it keeps, in some runs and not in others, what one thread has freed and another could use:
/// up to half as much again (docs/performance-memory.md). Large models have one heap for all threads, so that memory is what
/// was planned.
pub fn suit(n_weights: usize) {
    if n_weights > MANY_WEIGHTS {
        set(Parameter::MostHeaps, 1);
    } else {
        set(Parameter::TrimThreshold, 1 << 30);
        set(Parameter::MmapThreshold, LARGEST_KEPT as i32);
    }
}

/// Suits the heap to a large model that several threads train.
///
/// Between what one thread holds, the one heap has room that fits nothing of the other: up to a quarter more than planned. So
/// large tensors go back to the system; the time is the same (docs/performance-memory.md).
pub fn suit_threads(n_weights: usize, n_threads: usize) {
    if n_weights > MANY_WEIGHTS && n_threads > 1 {
        set(Parameter::MmapThreshold, 2 << 20);
    }
}

/// Gives all that is free on all heaps back to the system: what one phase of a run has freed is of other sizes, and on the
/// heaps of other threads, than what the next one needs.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "glibc has no other way to ask for it")]
pub(crate) fn give_back() {
    // SAFETY: glibc takes its locks, and only pages that hold nothing are given back.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn give_back() {}

#[derive(Clone, Copy)]
enum Parameter {
    TrimThreshold,
    MmapThreshold,
    MostHeaps,
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "glibc has no other way to ask for it")]
fn set(parameter: Parameter, value: libc::c_int) {
    let parameter = match parameter {
        Parameter::TrimThreshold => libc::M_TRIM_THRESHOLD,
        Parameter::MmapThreshold => libc::M_MMAP_THRESHOLD,
        Parameter::MostHeaps => libc::M_ARENA_MAX,
    };
    // SAFETY: glibc takes its lock, and refuses values it cannot take.
    unsafe { libc::mallopt(parameter, value) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn set(_parameter: Parameter, _value: i32) {}
