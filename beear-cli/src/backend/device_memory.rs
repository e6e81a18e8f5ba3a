//! Memory in use on NVIDIA GPUs, read from `nvidia-smi`.

use std::process::Command;

/// Memory in use on each GPU at the start, in MiB. `None` if `nvidia-smi` gives no answer.
pub(crate) struct DeviceMemory(Option<Vec<u64>>);

impl DeviceMemory {
    /// Reads the memory in use. Call it before the device is first used.
    pub(crate) fn before() -> Self {
        Self(in_use_mib())
    }

    /// Returns the increase in used memory since the start, in MiB, on the GPU where it is largest,
    /// or `None` if `nvidia-smi` gives no answer.
    pub(crate) fn added_mib(&self) -> Option<u64> {
        let (before, now) = (self.0.as_ref()?, in_use_mib()?);
        before.iter().zip(now).map(|(before, now)| now.saturating_sub(*before)).max()
    }
}

/// Returns the free bytes of the GPU that has the fewest, or `None` if `nvidia-smi` gives no
/// answer.
#[cfg(feature = "cuda")]
pub(crate) fn least_free() -> Option<u64> {
    query("memory.free")?.into_iter().min().map(|mib| mib << 20)
}

fn in_use_mib() -> Option<Vec<u64>> {
    query("memory.used")
}

/// Queries a figure of each GPU, in MiB.
fn query(figure: &str) -> Option<Vec<u64>> {
    let query = [&format!("--query-gpu={figure}"), "--format=csv,noheader,nounits"];
    let output = Command::new("nvidia-smi").args(query).output().ok()?;
    output.status.success().then(|| parse(&String::from_utf8_lossy(&output.stdout)))?
}

/// Parses one number per line, one line per GPU.
fn parse(text: &str) -> Option<Vec<u64>> {
    text.lines().map(|line| line.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_gpu() {
        assert_eq!(parse("512\n 40960 \n"), Some(vec![512, 40_960]));
        assert_eq!(parse("[N/A]\n"), None);
    }
}
