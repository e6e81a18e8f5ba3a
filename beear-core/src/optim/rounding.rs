//! Stochastic rounding to half precision, which preserves small steps on average.
//!
//! A step much smaller than the distance between two neighbouring numbers of the format disappears
//! when it is rounded to the nearest: bf16 has 8 binary digits, and at 1 its numbers are 2⁻⁷ apart.
//! Stochastic rounding takes either neighbour of $w$, the farther one with the probability
//! $|w - a| / |b - a|$ with `near` = $a$, `other` = $b$. The expected value is $w$ itself: many
//! small steps arrive on average.
//!
//! Gupta et al., [Deep Learning with Limited Numerical
//! Precision](https://arxiv.org/abs/1502.02551), ICML 2015.
//!
//! [`stochastic`] rounds tensors on their device during training, [`round_by_chance`] rounds single
//! values while a model is written.

use burn::tensor::backend::Backend;
use burn::tensor::{DType, Distribution, FloatDType, Tensor, bf16, f16};

/// Returns true if sums and small steps lose digits in `dtype`.
pub(crate) fn is_narrow(dtype: DType) -> bool {
    Format::of(dtype).is_some()
}

/// A half-precision format.
#[derive(Clone, Copy)]
struct Format {
    /// Number of binary digits, including the hidden one.
    n_digits: i32,
    /// Exponent of the smallest positive number, a power of two.
    least_exponent: i32,
}

impl Format {
    fn of(dtype: DType) -> Option<Self> {
        match dtype {
            DType::BF16 => Some(Self { n_digits: 8, least_exponent: -133 }),
            DType::F16 => Some(Self { n_digits: 11, least_exponent: -24 }),
            _ => None,
        }
    }
}

/// Rounds `values`, f32 or wider, stochastically to `dtype`: to the lower or the upper neighbour,
/// so that the expected value is exactly the given one. The noise is drawn from the backend's
/// generator. With a wider `dtype` the values stay unchanged.
///
/// The neighbour is found without access to bits, which backends do not expose. Let `near` be the
/// nearest number, equal to $m$ units of its last digit with $2^{p-1} \le m < 2^p$ for $p$ digits.
/// A share of $\tfrac{2}{3} \cdot 2^{1-p}$ of `near` is between 2/3 and 4/3 units, so adding this
/// share and rounding to the nearest gives the neighbour. Below a power of two the units are half
/// as large, and subtracting 2/3 of the upper unit also rounds to the neighbour. Subnormal numbers
/// have the same unit everywhere. Adding noise of one unit and rounding would use the wrong unit on
/// one side of each power of two.
pub(crate) fn stochastic<B: Backend, const D: usize>(
    values: Tensor<B, D>,
    dtype: DType,
) -> Tensor<B, D> {
    let Some(Format { n_digits, least_exponent }) = Format::of(dtype) else { return values };
    let (narrow, wide) = (FloatDType::from(dtype), FloatDType::from(values.dtype()));
    let rounded = |values: Tensor<B, D>| values.cast(narrow).cast(wide);
    let two_thirds_of = |exponent: i32| 2.0 / 3.0 * 2.0_f64.powi(exponent);

    let noise = values.random_like(Distribution::Uniform(0.0, 1.0));
    let near = rounded(values.clone());
    let rest = values - near.clone();
    let about_a_unit = near
        .clone()
        .abs()
        .mul_scalar(two_thirds_of(1 - n_digits))
        .clamp_min(two_thirds_of(least_exponent));
    let other = rounded(near.clone() + about_a_unit * rest.clone().sign());
    // Not `noise < rest / gap`: both are 0 if the rest is 0.
    let gap = (other.clone() - near.clone()).abs();
    let takes_other = (noise * gap).lower(rest.abs());
    near.mask_where(takes_other, other).cast(narrow)
}

/// A number of a half-precision format.
pub trait HalfPrecision: Copy {
    /// Returns the number nearest to `value`.
    fn nearest(value: f32) -> Self;
    /// Returns the number as f32, which represents all of them exactly.
    fn widened(self) -> f32;
    /// Returns sign, exponent and fraction, from the highest bit to the lowest.
    fn bits(self) -> u16;
    /// Returns the number with the given bits.
    fn of_bits(bits: u16) -> Self;
}

macro_rules! half_precision {
    ($($number:ident),*) => {$(
        impl HalfPrecision for $number {
            fn nearest(value: f32) -> Self {
                Self::from_f32(value)
            }
            fn widened(self) -> f32 {
                self.to_f32()
            }
            fn bits(self) -> u16 {
                self.to_bits()
            }
            fn of_bits(bits: u16) -> Self {
                Self::from_bits(bits)
            }
        }
    )*};
}

half_precision!(bf16, f16);

/// Rounds `value` to the lower or the upper neighbour in the format `H`. Over all values of
/// `chance`, the mean is `value` to one part in $2^{32}$ of the distance between the neighbours.
///
/// A value that the format represents exactly is unchanged. A value beyond the largest finite
/// number is rounded to the nearest, to that number or infinity: with stochastic rounding, a value
/// below the largest number could become infinite.
pub fn round_by_chance<H: HalfPrecision>(value: f32, chance: u32) -> H {
    let near = H::nearest(value);
    let rest = f64::from(value) - f64::from(near.widened());
    if rest == 0.0 || !near.widened().is_finite() {
        return near;
    }
    // Bit patterns of numbers of one sign have the order of their magnitudes, including zero.
    let other = if value.abs() > near.widened().abs() { near.bits() + 1 } else { near.bits() - 1 };
    let other = H::of_bits(other);
    let gap = f64::from(other.widened()) - f64::from(near.widened());
    let takes_other = f64::from(chance) / 2.0_f64.powi(32) < rest / gap;
    if takes_other && other.widened().is_finite() { other } else { near }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::TensorData;

    use super::*;

    const N_DRAWS: usize = 40_000;

    /// Tolerance in standard errors: 4 are exceeded by chance once in 16 000.
    const N_STANDARD_ERRORS: f64 = 4.0;

    /// Rounds `value` many times.
    fn drawn(value: f32, dtype: DType) -> Vec<f64> {
        let data = TensorData::new(vec![value; N_DRAWS], [N_DRAWS]);
        let values = Tensor::<Flex, 1>::from_data(data, &Default::default());
        let rounded = stochastic(values, dtype);
        assert_eq!(rounded.dtype(), dtype);
        rounded.cast(FloatDType::F32).into_data().iter::<f32>().map(f64::from).collect()
    }

    /// Asserts that `value` becomes `low` or `high`, with frequencies that match its expected
    /// value.
    fn assert_unbiased(value: f32, dtype: DType, [low, high]: [f64; 2]) {
        let drawn = drawn(value, dtype);
        let value = f64::from(value);
        assert!(drawn.iter().all(|v| [low, high].contains(v)), "{value}: {low} or {high}");
        let share = (value - low) / (high - low);
        let mean = drawn.iter().map(|v| (v - low) / (high - low)).sum::<f64>() / N_DRAWS as f64;
        let standard_error = (share * (1.0 - share) / N_DRAWS as f64).sqrt();
        assert!((mean - share).abs() <= N_STANDARD_ERRORS * standard_error, "{value}: {mean}");
    }

    /// Returns both neighbours in bf16, which is the upper half of a single.
    fn neighbours(value: f32) -> [f64; 2] {
        let toward_zero = value.to_bits() & 0xFFFF_0000;
        let [a, b] = [toward_zero, toward_zero + 0x1_0000].map(|b| f64::from(f32::from_bits(b)));
        [a.min(b), a.max(b)]
    }

    #[test]
    fn rounding_by_chance_keeps_the_expected_value() {
        Flex::seed(&Default::default(), 3);
        // Small and large shares, both signs, both sides of powers of two, and subnormal numbers.
        let values = [1.003, -1.003, 1.0002, 0.9999, -0.9999, 1.9999, 2.0001, 253.3, 6.1e-5, 3e-39];
        for value in values {
            assert_unbiased(value, DType::BF16, neighbours(value));
        }
        let unit = 2.0_f64.powi(-24);
        assert_unbiased(1e-6, DType::F16, [16.0 * unit, 17.0 * unit]);
        assert_unbiased(-1e-6, DType::F16, [-17.0 * unit, -16.0 * unit]);
        assert_unbiased(0.9999, DType::F16, [0.999_511_718_75, 1.0]);
        assert_unbiased(1.0002, DType::F16, [1.0, 1.000_976_562_5]);
    }

    #[test]
    fn what_the_format_has_stays() {
        for value in [0.0, 1.0, -1.5, 0.007_812_5, 1e30] {
            let kept = neighbours(value)[0];
            assert!(drawn(kept as f32, DType::BF16).iter().all(|v| [kept].contains(v)), "{kept}");
        }
    }

    #[test]
    fn wider_types_are_left_alone() {
        let same = [f64::from(1.003_f32)];
        assert!(drawn(1.003, DType::F32).iter().all(|v| same.contains(v)));
    }

    /// Returns the mean of `value` rounded under evenly spread chances, and all rounded values.
    fn mean_over_chances<H: HalfPrecision>(value: f32) -> (f64, Vec<f64>) {
        const N_CHANCES: u32 = 1 << 16;
        let chances = (0..N_CHANCES).map(|k| k << 16);
        let rounded = chances.map(|c| f64::from(round_by_chance::<H>(value, c).widened()));
        let rounded: Vec<f64> = rounded.collect();
        let mean = rounded.iter().sum::<f64>() / f64::from(N_CHANCES);
        let mut numbers = rounded;
        numbers.sort_by(f64::total_cmp);
        numbers.dedup();
        (mean, numbers)
    }

    #[test]
    fn single_values_keep_their_expected_value_too() {
        for value in [1.003, -1.003, 1.0002, 0.9999, -0.9999, 1.9999, 253.3, 6.1e-5, 3e-39, -3e-39]
        {
            let (mean, numbers) = mean_over_chances::<bf16>(value);
            let [low, high] = neighbours(value);
            assert_eq!(numbers, [low, high], "{value}");
            // 2¹⁶ evenly spread chances resolve the share to 2⁻¹⁶.
            let error = (mean - f64::from(value)).abs() / (high - low);
            assert!(error <= 2.0_f64.powi(-16), "{value}: {error}");
        }
        let unit = 2.0_f64.powi(-24);
        for (value, [low, high]) in
            [(1e-6, [16.0 * unit, 17.0 * unit]), (0.9999, [0.999_511_718_75, 1.0])]
        {
            let (mean, numbers) = mean_over_chances::<f16>(value);
            assert_eq!(numbers, [low, high], "{value}");
            let error = (mean - f64::from(value)).abs() / (high - low);
            assert!(error <= 2.0_f64.powi(-16), "{value}: {error}");
        }
    }

    #[test]
    fn a_number_of_the_format_never_moves() {
        for bits in 0..=u16::MAX {
            let (brain, half) = (bf16::from_bits(bits), f16::from_bits(bits));
            for chance in [0, 1 << 31, u32::MAX] {
                let kept: bf16 = round_by_chance(brain.to_f32(), chance);
                assert!(kept.to_bits() == bits || brain.is_nan(), "{brain}");
                let kept: f16 = round_by_chance(half.to_f32(), chance);
                assert!(kept.to_bits() == bits || half.is_nan(), "{half}");
            }
        }
    }

    #[test]
    fn no_finite_value_that_rounds_to_a_number_becomes_infinite() {
        // The largest finite half is 65504; 65510 is nearer to 65504 than to 65536.
        for chance in [0, u32::MAX] {
            assert_eq!(round_by_chance::<f16>(65_510.0, chance), f16::MAX);
            assert_eq!(round_by_chance::<f16>(-65_510.0, chance), f16::MIN);
            assert!(round_by_chance::<f16>(1e5, chance).is_infinite());
        }
    }
}
