//! Resources used by this process, as far as the system reports them.

use crate::memory::cgroup;

/// Returns the peak memory in MiB.
pub(crate) fn peak_memory_mib() -> Option<u64> {
    memory().map(|[_, most]| most >> 20)
}

/// Returns the current and the peak memory in bytes.
pub(crate) fn memory() -> Option<[u64; 2]> {
    Some([of_status("VmRSS:")?, of_status("VmHWM:")?])
}

/// Returns the address space for heap and stacks in bytes, used or not. `RLIMIT_DATA` bounds it.
pub(crate) fn data() -> Option<u64> {
    of_status("VmData:")
}

/// Returns a line of `/proc/self/status` in bytes.
fn of_status(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Returns the memory in bytes that this process can have at most, and the part that is available
/// now. Both are the machine's, or the limit of a control group if it is tighter.
pub(crate) fn machine_memory() -> Option<[u64; 2]> {
    let machine = whole_machine()?;
    let tighter = |[total, available]: [u64; 2], [limit, left]: [u64; 2]| {
        [total.min(limit), available.min(left)]
    };
    Some(cgroup::memory().map_or(machine, |group| tighter(machine, group)))
}

fn whole_machine() -> Option<[u64; 2]> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let bytes = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    Some([bytes("MemTotal:")?, bytes("MemAvailable:")?])
}

/// Returns the processor time of all threads so far in seconds.
pub(crate) fn cpu_seconds() -> Option<f64> {
    /// Number of clock ticks per second that Linux reports to programs, on every machine.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name in brackets may contain spaces. It is followed by the state and eleven
    // numbers.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn working_takes_processor_time() {
        let Some(before) = cpu_seconds() else { return };
        let mut sum = 0_u64;
        while cpu_seconds().is_some_and(|now| now < before + 0.02) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(cpu_seconds().is_some_and(|after| after > before));
    }
}
