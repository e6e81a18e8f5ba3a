//! Seeded mini-batches: every index once per pass, in a fresh order for each pass.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::batch::example::{AnchorSets, Example, SafetyExample};

/// A sampler of mini-batches of indices without replacement, pass after pass.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sampler {
    order: Vec<usize>,
    next: usize,
    rng: ChaCha8Rng,
}

impl Sampler {
    /// Creates a sampler over `0..n_examples`.
    ///
    /// # Panics
    ///
    /// Panics if `n_examples` is 0.
    #[must_use]
    pub fn new(n_examples: usize, seed: u64) -> Self {
        assert!(n_examples > 0, "a sampler needs at least one example");
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut order: Vec<usize> = (0..n_examples).collect();
        order.shuffle(&mut rng);
        Self { order, next: 0, rng }
    }

    /// Returns the next `batch_size` indices; a batch may span two passes.
    pub fn next_batch(&mut self, batch_size: usize) -> Vec<usize> {
        (0..batch_size)
            .map(|_| {
                if self.next == self.order.len() {
                    self.order.shuffle(&mut self.rng);
                    self.next = 0;
                }
                self.next += 1;
                self.order[self.next - 1]
            })
            .collect()
    }

    /// Returns true if the sampler is valid for `n_examples`; a deserialised sampler may not be.
    pub(crate) fn fits(&self, n_examples: usize) -> bool {
        let mut indices = self.order.clone();
        indices.sort_unstable();
        n_examples > 0 && self.next <= n_examples && indices.into_iter().eq(0..n_examples)
    }
}

/// Cuts `order` into batches of at most `batch_size` rows, none of them with only a few rows. Sorts
/// the rows of each `window` consecutive batches by `length` first, so that batches contain little
/// padding.
pub(crate) fn cut(
    mut order: Vec<usize>,
    (batch_size, window): (usize, usize),
    length: impl Fn(usize) -> usize,
) -> Vec<Vec<usize>> {
    let bounds = bounds(order.len(), batch_size);
    let n_batches = bounds.len() - 1;
    if window > 1 {
        for first in (0..n_batches).step_by(window) {
            let end = first.saturating_add(window).min(n_batches);
            order[bounds[first]..bounds[end]].sort_by_key(|&row| length(row));
        }
    }
    bounds.windows(2).map(|bounds| order[bounds[0]..bounds[1]].to_vec()).collect()
}

/// Returns the starts of the batches of `n_rows` rows, and the end of the last one. There are as
/// few batches as `batch_size` allows.
///
/// A step moves `δ` as far on a small batch as on a full one. So the rows left over by full batches
/// form a separate batch only if a full batch is at most [`LARGEST_OVER_SMALLEST`] times as large,
/// which keeps the noise of its gradient below twice that of the others; otherwise all batches have
/// equal size.
fn bounds(n_rows: usize, batch_size: usize) -> Vec<usize> {
    let n_batches = n_rows.div_ceil(batch_size);
    let n_left_over = n_rows - n_rows / batch_size * batch_size;
    let are_full =
        n_left_over == 0 || n_left_over.saturating_mul(LARGEST_OVER_SMALLEST) >= batch_size;
    let bound = |k: usize| {
        if are_full { k.saturating_mul(batch_size).min(n_rows) } else { k * n_rows / n_batches }
    };
    (0..=n_batches).map(bound).collect()
}

/// Maximum ratio of the sizes of the largest and the smallest batch.
const LARGEST_OVER_SMALLEST: usize = 3;

/// A sampler of rows of both anchor sets, each in a separate order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AnchorSampler {
    safety: Sampler,
    performance: Sampler,
}

impl AnchorSampler {
    /// Creates a sampler over `sets`.
    ///
    /// # Panics
    ///
    /// Panics if a set is empty.
    pub(crate) fn new(sets: &AnchorSets, seed: u64) -> Self {
        Self {
            safety: Sampler::new(sets.safety.len(), seed),
            performance: Sampler::new(sets.performance.len(), seed.wrapping_add(1)),
        }
    }

    /// Returns true if the sampler is valid for `sets`; a deserialised sampler may not be.
    pub(crate) fn fits(&self, sets: &AnchorSets) -> bool {
        self.safety.fits(sets.safety.len()) && self.performance.fits(sets.performance.len())
    }

    /// Returns the next rows of the safety set; `sets` must be those given to [`new`](Self::new).
    pub(crate) fn safety<'a>(
        &mut self,
        sets: &'a AnchorSets,
        batch_size: usize,
    ) -> Vec<&'a SafetyExample> {
        let rows = self.safety_rows(batch_size);
        rows.into_iter().map(|row| &sets.safety[row]).collect()
    }

    /// Returns the indices of the next rows in the safety set.
    pub(crate) fn safety_rows(&mut self, batch_size: usize) -> Vec<usize> {
        self.safety.next_batch(batch_size)
    }

    /// Returns the next rows of the performance set; `sets` must be those given to
    /// [`new`](Self::new).
    pub(crate) fn performance(&mut self, sets: &AnchorSets, batch_size: usize) -> Vec<Example> {
        let rows = self.performance.next_batch(batch_size);
        rows.into_iter().map(|row| sets.performance[row].clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_comes_once_per_pass() {
        let mut sampler = Sampler::new(7, 1);
        let mut drawn: Vec<usize> = (0..7).flat_map(|_| sampler.next_batch(2)).collect();
        assert_eq!(drawn.len(), 14);
        let mut first: Vec<usize> = drawn.drain(..7).collect();
        first.sort_unstable();
        drawn.sort_unstable();
        assert_eq!(first, (0..7).collect::<Vec<_>>());
        assert_eq!(drawn, (0..7).collect::<Vec<_>>());
    }

    #[test]
    fn rows_of_a_window_are_sorted_by_length_and_none_is_lost() {
        let lengths = [9, 1, 8, 2, 7, 3, 6, 4, 5];
        let lengths_of = |window: usize| -> Vec<Vec<usize>> {
            let batches = cut((0..9).collect(), (2, window), |row| lengths[row]);
            batches.iter().map(|rows| rows.iter().map(|&row| lengths[row]).collect()).collect()
        };
        assert_eq!(lengths_of(1), [vec![9, 1], vec![8, 2], vec![7, 3], vec![6, 4], vec![5]]);
        assert_eq!(lengths_of(2), [vec![1, 2], vec![8, 9], vec![3, 4], vec![6, 7], vec![5]]);
        let sorted = [vec![1, 2], vec![3, 4], vec![5, 6], vec![7, 8], vec![9]];
        assert_eq!(lengths_of(5), sorted);
        assert_eq!(lengths_of(usize::MAX), sorted);
    }

    #[test]
    fn no_batch_has_a_few_rows_only() {
        let sizes = |n_rows: usize, batch_size: usize| -> Vec<usize> {
            cut((0..n_rows).collect(), (batch_size, 1), |row| row).iter().map(Vec::len).collect()
        };
        assert_eq!(sizes(25, 24), [12, 13]);
        assert_eq!(sizes(50, 24), [16, 17, 17]);
        assert_eq!(sizes(48, 24), [24, 24]);
        assert_eq!(sizes(32, 24), [24, 8]);
        assert_eq!(sizes(5, 24), [5]);
        for (n_rows, batch_size) in (1..200).flat_map(|n| (1..50).map(move |size| (n, size))) {
            let sizes = sizes(n_rows, batch_size);
            assert_eq!(
                (sizes.iter().sum::<usize>(), sizes.len()),
                (n_rows, n_rows.div_ceil(batch_size))
            );
            let [smallest, largest] =
                [sizes.iter().min(), sizes.iter().max()].map(|size| *size.expect("a batch"));
            assert!(
                largest <= batch_size && largest <= LARGEST_OVER_SMALLEST * smallest,
                "{sizes:?}"
            );
        }
    }

    #[test]
    fn batches_of_even_size_are_sorted_by_window_too() {
        let lengths = |window: usize| -> Vec<Vec<usize>> {
            cut((0..13).rev().collect(), (4, window), |row| row)
        };
        // 3 + 3 + 3 + 4 rows; each two consecutive batches are sorted together.
        assert_eq!(lengths(2), [vec![7, 8, 9], vec![10, 11, 12], vec![0, 1, 2], vec![3, 4, 5, 6]]);
        assert_eq!(lengths(1)[3], [3, 2, 1, 0]);
    }

    #[test]
    fn the_seed_decides_the_order() {
        let draw = |seed| Sampler::new(20, seed).next_batch(20);
        assert_eq!(draw(5), draw(5));
        assert_ne!(draw(5), draw(6));
    }
}
