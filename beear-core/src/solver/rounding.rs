//! Rounding to half precision by chance, so that small steps are not lost.
//!
//! A step much smaller than the distance of two neighbouring numbers of the format disappears when it
//! is rounded to the nearest: bf16 has 8 binary digits, and at 1 its numbers are 2⁻⁷ apart. Rounded to
//! either neighbour of $w$, to the farther with the probability $|w - a| / |b - a|$ with `near` = $a$,
//! `other` = $b$, the expected value is $w$ itself: many small steps arrive on average.
//!
//! Gupta et al., [Deep Learning with Limited Numerical Precision](https://arxiv.org/abs/1502.02551),
//! ICML 2015.

use burn::tensor::backend::Backend;
use burn::tensor::{DType, Distribution, FloatDType, Tensor};

/// Whether sums and small steps lose digits in `dtype`.
pub(crate) fn is_narrow(dtype: DType) -> bool {
    Format::of(dtype).is_some()
}

/// A half-precision format.
#[derive(Clone, Copy)]
struct Format {
    /// Binary digits, the hidden one included.
    n_digits: i32,
    /// The smallest positive number is two to this.
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

/// Rounds `values`, f32 or wider, to `dtype`: to the lower or the upper neighbour, so that the
/// expected value is exactly the one given; the noise is drawn from the backend's generator. A wider
/// `dtype` leaves them as they are.
///
/// The neighbour is found without looking at bits, which backends do not show. Let `near` be the nearest
/// number, $m$ units of its last digit with $2^{p-1} \le m < 2^p$ for $p$ digits. Two thirds of
/// $2^{1-p}$ of it are between 2/3 and 4/3 units, so adding that much and rounding to the nearest gives
/// the neighbour. Below a power of two the units are half as large, and the 2/3 of the upper unit that
/// are subtracted there round to the neighbour too. Subnormal numbers have one unit everywhere. Adding
/// noise of one unit and rounding would have the wrong unit on one side of each power of two.
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
    // Not `noise < rest / gap`: where the rest is 0 both are.
    let gap = (other.clone() - near.clone()).abs();
    let takes_other = (noise * gap).lower(rest.abs());
    near.mask_where(takes_other, other).cast(narrow)
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::TensorData;

    use super::*;

    const N_DRAWS: usize = 40_000;

    /// Standard errors: 4 are passed by chance once in 16 000.
    const N_STANDARD_ERRORS: f64 = 4.0;

    /// `value` rounded many times.
    fn drawn(value: f32, dtype: DType) -> Vec<f64> {
        let data = TensorData::new(vec![value; N_DRAWS], [N_DRAWS]);
        let values = Tensor::<Flex, 1>::from_data(data, &Default::default());
        let rounded = stochastic(values, dtype);
        assert_eq!(rounded.dtype(), dtype);
        rounded.cast(FloatDType::F32).into_data().iter::<f32>().map(f64::from).collect()
    }

    /// Checks that `value` becomes `low` or `high`, each as often as its expected value asks for.
    fn assert_unbiased(value: f32, dtype: DType, [low, high]: [f64; 2]) {
        let drawn = drawn(value, dtype);
        let value = f64::from(value);
        assert!(drawn.iter().all(|v| [low, high].contains(v)), "{value}: {low} or {high}");
        let share = (value - low) / (high - low);
        let mean = drawn.iter().map(|v| (v - low) / (high - low)).sum::<f64>() / N_DRAWS as f64;
        let standard_error = (share * (1.0 - share) / N_DRAWS as f64).sqrt();
        assert!((mean - share).abs() <= N_STANDARD_ERRORS * standard_error, "{value}: {mean}");
    }

    /// Both neighbours in bf16, which is the upper half of a single.
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
}
