//! How many rows go through a model at a time: as many as asked for, fewer where their memory is bounded.

use burn::tensor::Element;
use burn::tensor::backend::Backend;

/// The most that goes through a model at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimit {
    /// Rows.
    pub rows: usize,
    /// Bytes beside the weights, unbounded if absent. One row goes through whatever it needs.
    pub bytes: Option<u64>,
}

impl BatchLimit {
    /// `rows` rows, whatever they need.
    #[must_use]
    pub fn rows(rows: usize) -> Self {
        Self { rows, bytes: None }
    }

    /// The largest batch of `n_rows` rows, of which so many need `needed` bytes: halved until it is within the limit.
    pub fn largest(self, n_rows: usize, needed: impl Fn(usize) -> u64) -> usize {
        let fits = |n_rows| self.bytes.is_none_or(|bytes| needed(n_rows) <= bytes);
        let mut n_rows = self.rows.clamp(1, n_rows.max(1));
        while n_rows > 1 && !fits(n_rows) {
            n_rows /= 2;
        }
        n_rows
    }

    /// Cuts `order` into batches, one after the other, each as large as [`largest`](Self::largest) allows.
    pub(crate) fn cut(self, order: &[usize], needed: impl Fn(&[usize]) -> u64) -> Vec<&[usize]> {
        let (mut batches, mut rest) = (Vec::new(), order);
        while !rest.is_empty() {
            let n_rows = self.largest(rest.len(), |n_rows| needed(&rest[..n_rows]));
            let (batch, after) = rest.split_at(n_rows);
            batches.push(batch);
            rest = after;
        }
        batches
    }
}

/// Bytes of a number of the backend `B`.
pub(crate) fn width<B: Backend>() -> u64 {
    <B::FloatElem as Element>::dtype().size() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_as_large_as_the_limit_allows() {
        // Row k needs k bytes, padding included: a batch needs its last row's bytes for each of its rows.
        let order: Vec<usize> = (1..=10).collect();
        let needed = |rows: &[usize]| (rows.len() * rows[rows.len() - 1]) as u64;
        let sizes = |rows, bytes| -> Vec<usize> {
            let batches = BatchLimit { rows, bytes }.cut(&order, needed);
            assert_eq!(batches.concat(), order, "every row is in one batch, in order");
            batches.iter().map(|batch| batch.len()).collect()
        };
        assert_eq!(sizes(4, None), [4, 4, 2]);
        assert_eq!(sizes(4, Some(32)), [4, 4, 2]);
        // 4 rows need 16 bytes, the next 4 need 32, 2 of them 12; 2 need 16, of the last two each alone 9 and 10.
        assert_eq!(sizes(4, Some(16)), [4, 2, 2, 1, 1]);
        assert_eq!(sizes(4, Some(0)), [1; 10]);
        assert_eq!(sizes(0, None), [1; 10]);
    }
}
