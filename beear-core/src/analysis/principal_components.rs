//! Principal components: the directions of the largest variance of a set of rows.
//!
//! With the rows of $X$ centred, the components are the eigenvectors of $X^\top X$, and the
//! variances along them are the eigenvalues. If there are fewer rows than columns, as with hidden
//! states of a few hundred prompts, the eigenvectors $u$ of the smaller $X X^\top$ give the
//! components as $X^\top u$.

use nalgebra::{DMatrix, DVector, SymmetricEigen};

/// Share of the largest length below which a length is rounding error.
const NO_LENGTH: f64 = 1e-12;

/// Components of the largest variance, in descending order.
#[derive(Clone, Debug, PartialEq)]
pub struct PrincipalComponents {
    mean: Vec<f64>,
    /// Unit vectors, or 0 where nothing varies; the coordinate farthest from 0 is positive.
    directions: Vec<Vec<f64>>,
    /// Share of the variance along each component; 0 where nothing varies.
    pub shares: Vec<f64>,
}

impl PrincipalComponents {
    /// Computes the first `n_components` principal components of `rows`, which it centres.
    ///
    /// # Shapes
    ///
    /// - `rows`: `[n, d]`
    ///
    /// # Panics
    ///
    /// Panics if there are no rows or they differ in length.
    #[must_use]
    pub fn fit(rows: &[Vec<f64>], n_components: usize) -> Self {
        let mean = mean(rows);
        let centred = matrix(&centred(rows, &mean));
        let (wide, gram) = gram(&centred);
        let total = gram.trace();
        let SymmetricEigen { eigenvectors, eigenvalues } = SymmetricEigen::new(gram);
        let mut order: Vec<usize> = (0..eigenvalues.len()).collect();
        order.sort_by(|&a, &b| eigenvalues[b].total_cmp(&eigenvalues[a]));
        order.truncate(n_components);
        let direction = |&k: &usize| {
            let vector = eigenvectors.column(k).into_owned();
            if eigenvalues[k] <= NO_LENGTH * total {
                return vec![0.0; mean.len()];
            }
            let vector = if wide { centred.tr_mul(&vector) } else { vector };
            oriented(&vector.normalize())
        };
        let share = |&k: &usize| if total > 0.0 { eigenvalues[k].max(0.0) / total } else { 0.0 };
        Self {
            directions: order.iter().map(direction).collect(),
            shares: order.iter().map(share).collect(),
            mean,
        }
    }

    /// Returns the coordinates of `rows`, fitted or not, along the components.
    ///
    /// # Shapes
    ///
    /// - `rows`: `[n, d]`
    /// - `output`: `[n, n_components]`
    ///
    /// # Panics
    ///
    /// Panics if a row has another length than the fitted rows.
    #[must_use]
    pub fn project(&self, rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let along = |row: &Vec<f64>| self.directions.iter().map(|d| dot(row, d)).collect();
        centred(rows, &self.mean).iter().map(along).collect()
    }
}

/// Returns the largest share of the squared lengths of `rows` along one direction from the origin:
/// the square of the first singular value over the sum of all squares. `None` if every row is 0.
///
/// Centre the rows first to obtain the share of variance of their first principal component.
///
/// # Shapes
///
/// - `rows`: `[n, d]`
///
/// # Panics
///
/// Panics if there are no rows or they differ in length.
#[must_use]
pub fn first_share(rows: &[Vec<f64>]) -> Option<f64> {
    let (_, gram) = gram(&matrix(rows));
    let total = gram.trace();
    (total > 0.0).then(|| gram.symmetric_eigenvalues().max() / total)
}

/// Subtracts `mean` from each row.
#[must_use]
pub(crate) fn centred(rows: &[Vec<f64>], mean: &[f64]) -> Vec<Vec<f64>> {
    rows.iter().map(|row| difference(row, mean)).collect()
}

/// Returns the mean row.
pub(crate) fn mean(rows: &[Vec<f64>]) -> Vec<f64> {
    let mut sum = vec![0.0; rows[0].len()];
    for row in rows {
        assert_eq!(row.len(), sum.len(), "rows: [n, d]");
        sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
    sum.iter().map(|sum| sum / rows.len() as f64).collect()
}

pub(crate) fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    assert_eq!(a.len(), b.len(), "rows: [n, d]");
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "vectors: [d]");
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn matrix(rows: &[Vec<f64>]) -> DMatrix<f64> {
    let (n, d) = (rows.len(), rows[0].len());
    assert!(rows.iter().all(|row| row.len() == d), "rows: [n, d]");
    DMatrix::from_row_iterator(n, d, rows.iter().flatten().copied())
}

/// Returns the smaller of the two products of a matrix with itself, and true if it is $X X^\top$.
/// Apart from zeros, both have the same eigenvalues.
fn gram(rows: &DMatrix<f64>) -> (bool, DMatrix<f64>) {
    let wide = rows.nrows() <= rows.ncols();
    (wide, if wide { rows * rows.transpose() } else { rows.tr_mul(rows) })
}

/// Fixes the sign of an eigenvector, which is arbitrary, so that it is the same on every machine.
fn oriented(vector: &DVector<f64>) -> Vec<f64> {
    let sign = vector[vector.icamax()].signum();
    vector.iter().map(|value| sign * value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const F64_EIGEN: f64 = 1e-12;

    fn close(found: &[f64], expected: &[f64]) -> bool {
        found.len() == expected.len()
            && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < F64_EIGEN)
    }

    /// Returns rows about the centre (5, 7): squared lengths 18 along the first axis and 2 along
    /// the second.
    fn cross() -> Vec<Vec<f64>> {
        vec![vec![8.0, 7.0], vec![2.0, 7.0], vec![5.0, 8.0], vec![5.0, 6.0]]
    }

    #[test]
    fn a_cross_has_its_arms_as_components() {
        let components = PrincipalComponents::fit(&cross(), 2);
        assert!(close(&components.shares, &[0.9, 0.1]), "{components:?}");
        let projected = components.project(&[vec![8.0, 7.0], vec![5.0, 6.0], vec![9.0, 9.0]]);
        assert!(close(&projected.concat(), &[3.0, 0.0, 0.0, -1.0, 4.0, 2.0]), "{projected:?}");
    }

    #[test]
    fn fewer_rows_than_columns_give_the_same_components() {
        // Two rows about the centre (1, 2, 2), each (2, -1, 2) away: a norm of 3.
        let rows = [vec![3.0, 1.0, 4.0], vec![-1.0, 3.0, 0.0]];
        let components = PrincipalComponents::fit(&rows, 2);
        assert!(close(&components.shares, &[1.0, 0.0]), "{components:?}");
        let projected = components.project(&rows).concat();
        assert!(close(&projected, &[3.0, 0.0, -3.0, 0.0]), "{projected:?}");
    }

    #[test]
    fn where_nothing_varies_there_is_no_direction() {
        let components = PrincipalComponents::fit(&[vec![2.0, 3.0], vec![2.0, 3.0]], 2);
        assert_eq!(components.shares, [0.0, 0.0]);
        assert_eq!(components.project(&[vec![9.0, 9.0]]), [[0.0, 0.0]]);
        assert_eq!(first_share(&[vec![0.0, 0.0]]), None);
    }

    #[test]
    fn the_share_from_the_origin_counts_the_mean_too() {
        // X'X = [[13, 12], [12, 16]]: trace 29, determinant 64.
        let rows = [vec![2.0, 0.0], vec![3.0, 4.0]];
        let expected = f64::midpoint(29.0, 585.0_f64.sqrt()) / 29.0;
        assert!(close(&[first_share(&rows).unwrap()], &[expected]));
        let centred = centred(&rows, &mean(&rows));
        assert!(close(&[first_share(&centred).unwrap()], &[1.0]));
    }
}
