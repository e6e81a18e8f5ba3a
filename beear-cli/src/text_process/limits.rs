//! What one text may take: time, which the parent measures, and memory, which the child denies itself.

use std::time::Duration;

use crate::exit::Mistake;

/// Environment variable: seconds that one text may take.
pub(crate) const SECONDS: &str = "BEEAR_TEXT_SECONDS";

/// Environment variable: MiB of memory that the process may take.
pub(crate) const MEBIBYTES: &str = "BEEAR_TEXT_MIB";

/// What documentation says of the variables.
#[cfg(test)]
pub(crate) const VARIABLES: [(&str, &str); 2] = [
    (
        SECONDS,
        "Seconds that the chat template and the tokenizer of a model may take for one text, and the tokenizer to be \
         read. Default: `10`.",
    ),
    (MEBIBYTES, "MiB of memory that both may take together, on Linux. Default: `1024`."),
];

/// Whether this system lets a process bound its own memory.
pub(crate) const IS_MEMORY_LIMITED: bool = cfg!(target_os = "linux");

/// What the text work of a model may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limits {
    /// Longest time for one text, or for reading the tokenizer.
    pub(crate) deadline: Duration,
    /// Memory besides that of the program itself, in bytes.
    pub(crate) memory: u64,
}

impl Default for Limits {
    /// A text takes far less than a millisecond. Reading a tokenizer of a quarter of a million tokens takes a second and
    /// a third of this memory.
    fn default() -> Self {
        Self { deadline: Duration::from_secs(10), memory: 1 << 30 }
    }
}

impl Limits {
    /// The limits that the environment asks for.
    ///
    /// # Errors
    ///
    /// If a variable is set to something that is no positive number.
    pub(crate) fn of_environment() -> Result<Self, Mistake> {
        Self::read(|name| std::env::var(name).ok())
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Mistake> {
        let number = |name: &str| {
            let Some(text) = variable(name) else { return Ok(None) };
            // Up to a year, and up to a million TiB.
            let number = text.trim().parse().ok().filter(|number| (0.001..=4e7).contains(number));
            let what = || format!("{name} is no positive number: `{}`", text.escape_default());
            let hint = "write a number such as 60, or leave the variable out";
            number.map(Some).ok_or_else(|| Mistake::arguments(what(), hint))
        };
        let default = Self::default();
        let deadline = number(SECONDS)?.map_or(default.deadline, Duration::from_secs_f64);
        let memory = number(MEBIBYTES)?.map_or(default.memory, |mib| (mib * 1_048_576.0) as u64);
        Ok(Self { deadline, memory })
    }

    /// The limit of memory as it is written.
    pub(crate) fn mebibytes(self) -> u64 {
        self.memory >> 20
    }
}

/// Bounds the memory of this process to `more` bytes than it has now, and its core dumps to none.
#[cfg(target_os = "linux")]
pub(super) fn bound_memory(more: u64) {
    // Data is what is private and can be written: the heap, and stacks. Address space would count the program itself,
    // whose size depends on the backends in it.
    let limit = crate::process::data().unwrap_or(0).saturating_add(more);
    for (resource, limit) in [(libc::RLIMIT_DATA, limit), (libc::RLIMIT_CORE, 0)] {
        let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
        #[expect(unsafe_code, reason = "limits of a process are set by C")]
        // SAFETY: the structure is whole and outlives the call, which keeps no reference to it.
        let _ = unsafe { libc::setrlimit(resource, &raw const limit) };
    }
}

/// Other systems let no process bound its memory, or do not keep to the bound.
#[cfg(not(target_os = "linux"))]
pub(super) fn bound_memory(_more: u64) {}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(seconds: &'static str, mebibytes: &'static str) -> Result<Limits, Mistake> {
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
