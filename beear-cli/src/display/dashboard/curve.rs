//! A line of a chart that takes any number of values in bounded memory.

/// Maximum number of points of a line, which is more than the width of a terminal.
const MOST: usize = 1024;

/// Values in order. If there are too many, each point is the mean of `stride` neighbours.
#[derive(Clone, Debug)]
pub(crate) struct Curve {
    means: Vec<f64>,
    /// Number of values per point.
    stride: usize,
    /// Sum and number of the values of the unfinished last point.
    rest: (f64, usize),
    last: Option<f64>,
}

impl Default for Curve {
    fn default() -> Self {
        Self { means: Vec::new(), stride: 1, rest: (0.0, 0), last: None }
    }
}

impl Curve {
    /// Adds a value. NaN and infinite values are left out.
    pub(crate) fn push(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        self.last = Some(value);
        self.rest = (self.rest.0 + value, self.rest.1 + 1);
        if self.rest.1 < self.stride {
            return;
        }
        self.means.push(self.rest.0 / self.stride as f64);
        self.rest = (0.0, 0);
        if self.means.len() == MOST {
            self.means = self.means.chunks(2).map(|pair| pair.iter().sum::<f64>() / 2.0).collect();
            self.stride *= 2;
        }
    }

    /// Returns the newest value.
    pub(crate) fn last(&self) -> Option<f64> {
        self.last
    }

    /// Returns the points as the number of earlier values and the mean.
    pub(crate) fn points(&self) -> Vec<(f64, f64)> {
        let x = |index: usize| (index * self.stride) as f64;
        self.means.iter().enumerate().map(|(index, mean)| (x(index), *mean)).collect()
    }

    /// Returns the whole line in at most `n` points.
    pub(crate) fn resampled(&self, n: usize) -> Vec<f64> {
        let per_point = self.means.len().div_ceil(n.max(1)).max(1);
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        self.means.chunks(per_point).map(mean).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_keeps_its_ends_and_its_mean_in_bounded_room() {
        let mut curve = Curve::default();
        let n = 10 * MOST;
        for value in 0..n {
            curve.push(value as f64);
        }
        let points = curve.points();
        assert!(points.len() < MOST && points.len() >= MOST / 2, "{}", points.len());
        assert_eq!(curve.stride, 16);
        // A point is the mean of 16 neighbours, and its x is that of the first one.
        assert!(points.iter().all(|(x, y)| (y - x - 7.5).abs() < 1e-9));
        assert_eq!(curve.last(), Some((n - 1) as f64));
        let few = curve.resampled(10);
        assert!(few.len() <= 10 && few.is_sorted(), "{few:?}");
    }

    #[test]
    fn what_is_not_finite_is_left_out() {
        let mut curve = Curve::default();
        for value in [1.0, f64::NAN, f64::INFINITY, 2.0] {
            curve.push(value);
        }
        assert_eq!(curve.points(), [(0.0, 1.0), (1.0, 2.0)]);
        assert!(Curve::default().resampled(0).is_empty());
    }
}
