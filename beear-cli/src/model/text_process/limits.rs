//! Limits of one text: time, which the parent measures, and memory, which the child limits itself.

use std::time::Duration;

use crate::user_error::UserError;

/// Environment variable: seconds that one text may take.
pub(crate) const SECONDS: &str = "BEEAR_TEXT_SECONDS";

/// Environment variable: MiB of memory that the process may take.
pub(crate) const MEBIBYTES: &str = "BEEAR_TEXT_MIB";

/// Descriptions of the variables for the documentation.
#[cfg(test)]
pub(crate) const VARIABLES: [(&str, &str); 2] = [
    (
        SECONDS,
        "Seconds that the chat template and the tokenizer of a model may take for one text, and the tokenizer to be \
         read. Default: `10`.",
    ),
    (MEBIBYTES, "MiB of memory that both may take together, on Linux. Default: `1024`."),
];

/// True if a process can limit its own memory on this system.
pub(crate) const IS_MEMORY_LIMITED: bool = cfg!(target_os = "linux");

/// Limits of the text processing of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limits {
    /// Longest time for one text, or for reading the tokenizer.
    pub(crate) deadline: Duration,
    /// Memory limit in bytes, in addition to the memory of the program itself.
    pub(crate) memory: u64,
}

impl Default for Limits {
    /// Returns generous limits. A text takes far less than a millisecond. Reading a tokenizer of a
    /// quarter of a million tokens takes a second and a quarter of this memory.
    fn default() -> Self {
        Self { deadline: Duration::from_secs(10), memory: 1 << 30 }
    }
}

impl Limits {
    /// Reads the limits from the environment.
    ///
    /// # Errors
    ///
    /// If a variable is not a positive number.
    pub(crate) fn of_environment() -> Result<Self, UserError> {
        Self::read(|name| std::env::var(name).ok())
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, UserError> {
        let number = |name: &str| {
            let Some(text) = variable(name) else { return Ok(None) };
            // The maximum is a year, or forty million MiB.
            let number = text.trim().parse().ok().filter(|number| (0.001..=4e7).contains(number));
            let what = || format!("{name} is no positive number: `{}`", text.escape_default());
            let hint = "write a number such as 60, or leave the variable out";
            number.map(Some).ok_or_else(|| UserError::arguments(what(), hint))
        };
        let default = Self::default();
        let deadline = number(SECONDS)?.map_or(default.deadline, Duration::from_secs_f64);
        let memory = number(MEBIBYTES)?.map_or(default.memory, |mib| (mib * 1_048_576.0) as u64);
        Ok(Self { deadline, memory })
    }

    /// Returns the memory limit in MiB.
    pub(crate) fn mebibytes(self) -> u64 {
        self.memory >> 20
    }
}

/// A limit on the memory of this process, with a reserve above it.
///
/// Systems other than Linux do not let a process limit its memory, or do not enforce the limit.
pub(super) struct MemoryBound {
    /// The limit without and with the reserve, in bytes.
    #[cfg(target_os = "linux")]
    bounds: [u64; 2],
}

impl MemoryBound {
    /// Limits the memory of this process to `more` bytes above its current use, not counting
    /// `reserve`, and disables core dumps.
    pub(super) fn set(more: u64, reserve: u64) -> Self {
        #[cfg(target_os = "linux")]
        {
            // `RLIMIT_DATA` counts private writable memory: the heap and stacks. The address space
            // would also count the program itself, whose size depends on its backends.
            let bound = crate::memory::process::data().unwrap_or(0).saturating_add(more);
            let bounds = [bound, bound.saturating_add(reserve)];
            set_limits(bounds);
            Self { bounds }
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (more, reserve);
            Self {}
        }
    }

    /// Makes the reserve available.
    pub(super) fn release_reserve(self) {
        #[cfg(target_os = "linux")]
        set_limits([self.bounds[1]; 2]);
    }
}

/// Sets the soft and the hard limit of memory, and the limits of core dumps to 0.
#[cfg(target_os = "linux")]
fn set_limits([now, most]: [u64; 2]) {
    for (resource, [now, most]) in [(libc::RLIMIT_DATA, [now, most]), (libc::RLIMIT_CORE, [0, 0])] {
        let limit = libc::rlimit { rlim_cur: now as libc::rlim_t, rlim_max: most as libc::rlim_t };
        #[expect(unsafe_code, reason = "limits of a process are set by C")]
        // SAFETY: the structure is initialised and outlives the call, which keeps no reference to
        // it.
        let _ = unsafe { libc::setrlimit(resource, &raw const limit) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(seconds: &'static str, mebibytes: &'static str) -> Result<Limits, UserError> {
        let set = |value: &'static str| (!value.is_empty()).then(|| value.to_owned());
        Limits::read(|name| if name == SECONDS { set(seconds) } else { set(mebibytes) })
    }

    #[test]
    fn the_environment_raises_and_lowers_the_limits() {
        assert_eq!(read("", "").unwrap(), Limits::default());
        let limits = read("0.5", " 64 ").unwrap();
        assert_eq!((limits.deadline, limits.mebibytes()), (Duration::from_millis(500), 64));
        for wrong in ["0", "-1", "nan", "inf", "1e99", "ten", "1GiB"] {
            assert!(read(wrong, "").is_err() && read("", wrong).is_err(), "{wrong}");
        }
    }
}
