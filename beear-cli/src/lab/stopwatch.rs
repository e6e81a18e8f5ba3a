//! Times of repeated work on a device, which finishes before the clock is read.

use std::time::Instant;

use anyhow::{Context, Result};
use burn::tensor::backend::{Backend, ExecutionError};
use serde::Serialize;

/// Number of laps at the start that do not count. They compile and choose kernels and allocate
/// their memory.
pub(crate) const WARM_UP: usize = 2;

/// Median, minimum and maximum time of the laps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Seconds {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Seconds {
    /// Computes the statistics, or returns `None` if there are no times.
    pub(crate) fn of(mut times: Vec<f64>) -> Option<Self> {
        times.sort_by(f64::total_cmp);
        let middle = times.len() / 2;
        let (&min, &max, &upper) = (times.first()?, times.last()?, times.get(middle)?);
        // The median of an even number of times is the mean of the two in the middle.
        let lower = times[(times.len() - 1) / 2];
        Some(Self { median: f64::midpoint(lower, upper), min, max })
    }
}

/// Measures laps. The first one begins when the stopwatch is created.
pub(crate) struct Stopwatch<'a, B: Backend> {
    device: &'a B::Device,
    started: Instant,
    laps: Vec<f64>,
    fault: Option<ExecutionError>,
}

impl<'a, B: Backend> Stopwatch<'a, B> {
    pub(crate) fn start(device: &'a B::Device) -> Self {
        let fault = B::sync(device).err();
        Self { device, started: Instant::now(), laps: Vec::new(), fault }
    }

    /// Ends a lap once the device has finished all its work, and begins the next one.
    pub(crate) fn lap(&mut self) {
        if let Err(fault) = B::sync(self.device) {
            self.fault.get_or_insert(fault);
        }
        self.laps.push(self.started.elapsed().as_secs_f64());
        self.started = Instant::now();
    }

    /// Returns the times of the next `n` laps after the warm-up. Later laps are left out.
    ///
    /// # Errors
    ///
    /// If the device failed in a lap, or there were none.
    pub(crate) fn seconds(self, n: usize) -> Result<Seconds> {
        if let Some(fault) = self.fault {
            return Err(fault).context("the device could not finish its work");
        }
        let laps = self.laps.into_iter().skip(WARM_UP).take(n).collect();
        Seconds::of(laps).context("nothing was measured")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_between_the_extremes() {
        let of = |times: &[f64]| Seconds::of(times.to_vec());
        let expected = Seconds { median: 2.0, min: 1.0, max: 9.0 };
        assert_eq!(of(&[9.0, 1.0, 2.0]), Some(expected));
        assert_eq!(of(&[9.0, 1.0, 1.5, 2.5]), Some(expected));
        assert_eq!(of(&[]), None);
    }
}
