//! Settings of glibc's allocator, whose defaults suit programs with less memory and shorter runs.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
use std::hint::black_box;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
#[cfg(all(target_os = "linux", target_env = "gnu"))]
use std::thread;

/// Number of weights above which a model counts as large: memory then matters more than time.
const MANY_WEIGHTS: usize = 20_000_000;

/// Size in bytes below which freed tensors stay on the heap: the largest that glibc allows.
pub(crate) const LARGEST_KEPT: u64 = 32 << 20;

/// Free bytes at the end of a heap that stay there.
const TRIM_THRESHOLD: i32 = 1 << 30;

/// Size in bytes of a block that makes glibc look at the end of a heap when it is freed: more than
/// 64 KiB.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const SHRINKS: usize = 128 << 10;

/// True once heaps keep free memory at their ends.
static IS_KEEPING: AtomicBool = AtomicBool::new(false);

/// Tunes the allocator for a model that is about to be trained or used.
///
/// By default glibc returns large tensors, and the free end of the heap, to the system, which
/// clears the same pages again at each step. For small models the heap keeps the memory that the
/// next step needs, and threads do not wait for each other's heap (docs/performance.md).
///
/// With one heap per thread, glibc in some runs keeps memory that one thread has freed and another
/// could use: up to 50 % more than needed (docs/performance-memory.md). For large models all
/// threads share one heap, so that memory use matches the plan.
pub fn suit(n_weights: usize) {
    if n_weights > MANY_WEIGHTS {
        set(Parameter::MostHeaps, 1);
    } else {
        IS_KEEPING.store(true, Ordering::Relaxed);
        set(Parameter::TrimThreshold, TRIM_THRESHOLD);
        set(Parameter::MmapThreshold, LARGEST_KEPT as i32);
    }
}

/// Tunes the allocator for a large model that several threads train.
///
/// The gaps between one thread's allocations on the shared heap are too small for the other
/// threads' tensors, which costs up to a quarter more memory than planned. Large tensors therefore
/// go back to the system when they are freed; the run takes the same time
/// (docs/performance-memory.md).
pub fn suit_threads(n_weights: usize, n_threads: usize) {
    if n_weights > MANY_WEIGHTS && n_threads > 1 {
        set(Parameter::MmapThreshold, 2 << 20);
    }
}

/// Returns the free memory of all heaps to the system. The memory that one phase of a run frees has
/// other sizes, and lies on the heaps of other threads, than the memory that the next phase needs.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "glibc has no other way to ask for it")]
pub(crate) fn give_back() {
    if IS_KEEPING.load(Ordering::Relaxed) {
        set(Parameter::TrimThreshold, 0);
        shrink_heaps_of_threads();
        set(Parameter::TrimThreshold, TRIM_THRESHOLD);
    }
    // SAFETY: glibc takes its locks, and only free pages are returned.
    unsafe { libc::malloc_trim(0) };
}

/// Shrinks the heaps that threads use. `malloc_trim` leaves the free end of a thread's heap alone;
/// glibc shrinks it when the thread frees a block beside it. Heaps of threads that have ended pass
/// on to new threads, so as many are started as there are cores.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn shrink_heaps_of_threads() {
    let n_threads = thread::available_parallelism().map_or(1, usize::from);
    let all_have_started = Barrier::new(n_threads);
    thread::scope(|scope| {
        for _ in 0..n_threads {
            scope.spawn(|| {
                all_have_started.wait();
                drop(black_box(vec![1_u8; SHRINKS]));
                all_have_started.wait();
            });
        }
    });
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
    // SAFETY: glibc takes its lock, and rejects invalid values.
    unsafe { libc::mallopt(parameter, value) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn set(_parameter: Parameter, _value: i32) {}
