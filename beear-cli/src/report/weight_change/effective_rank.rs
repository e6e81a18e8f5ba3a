//! Effective rank: the number of directions of a matrix, weighted by their strength.
//!
//! $$r(A) = \frac{\left(\sum_i \sigma_i^2\right)^2}{\sum_i \sigma_i^4}
//!        = \frac{\lVert A \rVert_F^4}{\lVert A A^\top \rVert_F^2}$$
//! This is the participation ratio of the squared singular values, which is the exponential of
//! their Rényi entropy of order two: $k$ equal ones give $k$, and no matrix has more than its rank.
//! Two norms determine it without the singular values themselves, so it can be computed at any
//! size.

use nalgebra::DMatrix;
use rayon::prelude::*;

/// Number of rows of the product's blocks.
const BLOCK: usize = 256;

/// Computes the effective rank of a matrix that is not zero, from its values in row-major order.
///
/// # Panics
///
/// Panics if the number of values is not `rows · columns`.
pub(super) fn of(values: Vec<f32>, [n_rows, n_columns]: [usize; 2]) -> f64 {
    // Changes are so small that their fourth powers underflow in f32.
    let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let values: Vec<f32> = values.into_iter().map(|value| value / largest).collect();
    let squares: f64 = values.iter().map(|value| f64::from(*value).powi(2)).sum();
    // nalgebra stores columns one after the other, so these are the rows.
    let columns = DMatrix::from_vec(n_columns, n_rows, values);
    let columns = if n_rows <= n_columns { columns } else { columns.transpose() };
    squares.powi(2) / squares_of_products(&columns)
}

/// Sums the squared products of all pairs of columns, block by block. Each block above the diagonal
/// is computed once.
fn squares_of_products(matrix: &DMatrix<f32>) -> f64 {
    let n_columns = matrix.ncols();
    let starts: Vec<usize> = (0..n_columns).step_by(BLOCK).collect();
    let block = |start: usize| matrix.columns(start, BLOCK.min(n_columns - start));
    let of_row = |(place, &start): (usize, &usize)| {
        let rows = block(start).transpose();
        let squares = starts[place..].iter().map(|&other| {
            let products = &rows * block(other);
            let sum: f64 = products.iter().map(|value| f64::from(*value).powi(2)).sum();
            if other == start { sum } else { 2.0 * sum }
        });
        squares.sum::<f64>()
    };
    // The order of the sum does not depend on the number of threads.
    let sums: Vec<f64> = starts.par_iter().enumerate().map(of_row).collect();
    sums.into_iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_rank(values: &[f32], shape: [usize; 2], expected: f64) {
        let found = of(values.to_vec(), shape);
        assert!((found - expected).abs() < 1e-5 * expected, "{found} {expected}");
    }

    #[test]
    fn equal_singular_values_are_counted() {
        assert_rank(&[1.0, 2.0, 3.0, 2.0, 4.0, 6.0], [2, 3], 1.0);
        assert_rank(&[0.0, 5.0, 5.0, 0.0, 0.0, 0.0], [3, 2], 2.0);
    }

    #[test]
    fn weak_directions_weigh_little() {
        // Singular values 3 and 1, in a unit whose fourth power underflows in f32: 10^2 / (81 + 1).
        assert_rank(&[3e-20, 0.0, 0.0, 1e-20], [2, 2], 100.0 / 82.0);
    }

    #[test]
    fn wide_matrices_go_block_by_block() {
        // 300 rows of four kinds, with 100, 100, 60 and 40 rows: four directions with these squared
        // lengths.
        let kind = |row: usize| [100, 200, 260, 300].iter().position(|end| row < *end);
        let values = |[n_rows, n_columns]: [usize; 2], is_tall: bool| -> Vec<f32> {
            let one = |row: usize, column: usize| {
                let (of, at) = if is_tall { (row, column) } else { (column, row) };
                f32::from(u8::from(kind(of) == Some(at)))
            };
            (0..n_rows).flat_map(|r| (0..n_columns).map(move |c| one(r, c))).collect()
        };
        let expected = 300.0_f64.powi(2) / (2.0 * 1e4 + 3600.0 + 1600.0);
        assert_rank(&values([300, 301], true), [300, 301], expected);
        assert_rank(&values([301, 300], false), [301, 300], expected);
    }
}
