//! How far found values are from expected ones.

use crate::golden::Golden;

/// Largest difference allowed between two f32 implementations, as a share of the largest expected
/// value. Sums in another order leave about 1e-6; a mistake in the mathematics leaves 1e-2 or more.
pub const F32_AGREEMENT: f64 = 1e-4;

/// Largest absolute difference, as a share of the largest absolute expected value.
///
/// # Panics
///
/// Panics if the lengths differ, or nothing is expected.
#[must_use]
pub fn relative_difference(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len(), "as many values as expected");
    let scale = largest(expected.iter().map(|value| f64::from(*value)));
    assert!(scale > 0.0, "an expectation of zeros tests nothing");
    largest(found.iter().zip(expected).map(|(a, b)| f64::from(*a) - f64::from(*b))) / scale
}

/// Length of the difference as a vector, as a share of the expected length.
///
/// # Panics
///
/// Panics if the lengths differ, or nothing is expected.
#[must_use]
pub fn relative_distance(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len(), "as many values as expected");
    let length = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>().sqrt();
    let scale = length(expected);
    assert!(scale > 0.0, "an expectation of zeros tests nothing");
    let difference: Vec<f64> = found.iter().zip(expected).map(|(a, b)| a - b).collect();
    length(&difference) / scale
}

/// Asserts that `found` is the golden tensor `name` within [`F32_AGREEMENT`], and prints how near.
///
/// # Panics
///
/// Panics if it is not.
pub fn assert_agrees(found: &[f32], golden: &Golden, name: &str) {
    let difference = relative_difference(found, &golden.values(name));
    println!("{golden} {name}: {difference:.1e}");
    assert!(difference <= F32_AGREEMENT, "{golden} {name}: {difference:.1e} > {F32_AGREEMENT:.1e}");
}

/// Infinite where a value is not a number, which `max` alone would pass over.
fn largest(values: impl Iterator<Item = f64>) -> f64 {
    let size = |value: f64| if value.is_nan() { f64::INFINITY } else { value.abs() };
    values.map(size).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_shares_of_the_largest_expected_value() {
        assert!((relative_difference(&[1.0, -4.0], &[2.0, -4.0]) - 0.25).abs() < 1e-12);
        assert!((relative_distance(&[3.0, 0.0], &[3.0, 4.0]) - 0.8).abs() < 1e-12);
    }

    #[test]
    fn what_is_not_a_number_agrees_with_nothing() {
        let agrees = |found, expected| relative_difference(found, expected) <= F32_AGREEMENT;
        assert!(!agrees(&[f32::NAN, 1.0], &[1.0, 1.0]));
        assert!(!agrees(&[1.0, 1.0], &[f32::NAN, 1.0]));
        assert!(!agrees(&[f32::INFINITY, 1.0], &[f32::INFINITY, 1.0]));
    }
}
