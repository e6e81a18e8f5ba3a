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
    let largest = largest(expected.iter().map(|value| f64::from(*value)));
    assert!(largest > 0.0, "an expectation of zeros tests nothing");
    let pairs = found.iter().zip(expected);
    largest_of_finite(pairs.map(|(a, b)| f64::from(*a) - f64::from(*b))) / largest
}

/// Length of the difference as a vector, as a share of the expected length.
///
/// # Panics
///
/// Panics if the lengths differ, or nothing is expected.
#[must_use]
pub fn relative_distance(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len(), "as many values as expected");
    let length = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let scale = length(&mut expected.iter().copied());
    assert!(scale > 0.0, "an expectation of zeros tests nothing");
    length(&mut found.iter().zip(expected).map(|(a, b)| a - b)) / scale
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

fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.map(f64::abs).fold(0.0, f64::max)
}

/// As [`largest`], but infinite where a value is not a number, which `max` would pass over.
fn largest_of_finite(values: impl Iterator<Item = f64>) -> f64 {
    largest(values.map(|value| if value.is_finite() { value } else { f64::INFINITY }))
}
