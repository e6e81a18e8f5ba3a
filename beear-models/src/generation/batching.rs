//! Batch sizes: the requested number of rows, reduced to fit a memory limit.

use burn::tensor::Element;
use burn::tensor::backend::Backend;

/// Limit of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimit {
    /// Maximum number of rows.
    pub rows: usize,
    /// Maximum number of bytes besides the weights; None for no limit. A single row is always
    /// allowed.
    pub bytes: Option<u64>,
}

impl BatchLimit {
    /// Creates a limit of `rows` rows without a memory limit.
    #[must_use]
    pub fn rows(rows: usize) -> Self {
        Self { rows, bytes: None }
    }

    /// Returns the size of the largest batch out of `n_rows` rows, where a batch of `n` rows needs
    /// `needed(n)` bytes: the size is halved until it is within the limit.
    pub fn largest(self, n_rows: usize, needed: impl Fn(usize) -> u64) -> usize {
        let fits = |n_rows| self.bytes.is_none_or(|bytes| needed(n_rows) <= bytes);
        let mut n_rows = self.rows.clamp(1, n_rows.max(1));
        while n_rows > 1 && !fits(n_rows) {
            n_rows /= 2;
        }
        n_rows
    }

    /// Splits `order` into consecutive batches, each as large as [`largest`](Self::largest) allows.
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

/// Returns the size in bytes of a number of the backend `B`.
pub(crate) fn width<B: Backend>() -> u64 {
    <B::FloatElem as Element>::dtype().size() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_as_large_as_the_limit_allows() {
        // Row k needs k bytes, padding included: a batch needs its last row's bytes for each of its
        // rows.
        let order: Vec<usize> = (1..=10).collect();
        let needed = |rows: &[usize]| (rows.len() * rows[rows.len() - 1]) as u64;
        let sizes = |rows, bytes| -> Vec<usize> {
            let batches = BatchLimit { rows, bytes }.cut(&order, needed);
            assert_eq!(batches.concat(), order, "every row is in one batch, in order");
            batches.iter().map(|batch| batch.len()).collect()
        };
        assert_eq!(sizes(4, None), [4, 4, 2]);
        assert_eq!(sizes(4, Some(32)), [4, 4, 2]);
        // 4 rows need 16 bytes, the next 4 need 32, 2 of them 12; 2 need 16, and the last two need
        // 9 and 10 alone.
        assert_eq!(sizes(4, Some(16)), [4, 2, 2, 1, 1]);
        assert_eq!(sizes(4, Some(0)), [1; 10]);
        assert_eq!(sizes(0, None), [1; 10]);
    }
}
