//! Moments of the optimiser in 8 bits per number, with a scale per block of numbers.
//!
//! With the largest magnitude $s$ of a block, a number is stored as the integer $c$ of
//!
//! $$v = s \operatorname{sign}(c) \left(\frac{|c|}{n}\right)^p$$
//!
//! with `n_codes` = $n$: levels are dense near 0, where most numbers of a block are. A number is
//! rounded stochastically to one of the two adjacent levels, so that the expected value is the
//! number itself. The method follows Dettmers et al., [8-bit Optimizers via Block-wise
//! Quantization](https://arxiv.org/abs/2110.02861), ICLR 2022, who take the levels from a table and
//! round to the nearest.

use burn::record::Record;
use burn::tensor::backend::Backend;
use burn::tensor::{Distribution, FloatDType, Int, IntDType, Tensor};

use crate::error::Error;
use crate::state::snapshot::{Saved, Tensors};

/// Number of values that share a scale of 4 bytes, so that a value takes 1.016 bytes.
pub const MOMENT_BLOCK: usize = 256;

/// Levels that a number of a block can have.
#[derive(Clone, Copy)]
pub(crate) struct Levels {
    dtype: IntDType,
    n_codes: i32,
    /// Number $k$ of square roots taken: $p = 2^k$.
    n_roots: u32,
    /// Smallest code of a number other than 0.
    least: i32,
}

/// Levels of the first moment, which has a sign: from 6e-5 of the block's largest magnitude.
pub(crate) const FIRST: Levels = Levels { dtype: IntDType::I8, n_codes: 127, n_roots: 1, least: 0 };

/// Levels of the second moment: from 2.4e-10 of the block's largest. Smaller numbers are rounded up
/// and not to 0, because an update divides by the square root.
pub(crate) const SECOND: Levels =
    Levels { dtype: IntDType::U8, n_codes: 255, n_roots: 2, least: 1 };

/// Numbers in blocks; the last block is padded with zeros.
#[derive(Record, Clone)]
pub(crate) struct Blocks<B: Backend> {
    /// Codes of the numbers: `[n_blocks, MOMENT_BLOCK]`.
    codes: Tensor<B, 2, Int>,
    /// Largest magnitude of each block: `[n_blocks, 1]`.
    largest: Tensor<B, 2>,
}

impl<B: Backend> Blocks<B> {
    /// Rounds `values` stochastically to `levels`; the noise is drawn from the backend's generator.
    pub(crate) fn of<const D: usize>(values: Tensor<B, D>, levels: Levels) -> Self {
        let Levels { dtype, n_codes, n_roots, least } = levels;
        let n = values.shape().num_elements();
        let values = values.reshape([n]).pad([(0, n.next_multiple_of(MOMENT_BLOCK) - n)], 0.0);
        let values = values.reshape([-1, MOMENT_BLOCK as i64]);
        let largest = values.clone().abs().max_dim(1);
        // Blocks of zeros are divided by a number other than zero.
        let shares = values.clone().abs() / largest.clone().clamp_min(f64::from(f32::MIN_POSITIVE));
        let root = (0..n_roots).fold(shares.clone(), |x, _| x.sqrt());
        let below = root.mul_scalar(n_codes).floor().clamp(0, n_codes - 1);
        let level =
            |code: Tensor<B, 2>| (0..n_roots).fold(code.div_scalar(n_codes), |x, _| x.clone() * x);
        let (low, high) = (level(below.clone()), level(below.clone().add_scalar(1)));
        let noise = low.random_like(Distribution::Uniform(0.0, 1.0));
        let takes_upper = (noise * (high - low.clone())).lower(shares.clone() - low);
        let codes = below.clone().mask_where(takes_upper, below.add_scalar(1)).clamp_min(least);
        let codes = codes * values.sign();
        Self { codes: codes.int().cast(dtype), largest }
    }

    /// Returns the numbers, in the type of the original values.
    pub(crate) fn values<const D: usize>(self, shape: [usize; D], levels: Levels) -> Tensor<B, D> {
        let dtype = FloatDType::from(self.largest.dtype());
        let codes = self.codes.float().cast(dtype).div_scalar(levels.n_codes);
        let sign = codes.clone().sign();
        let shares = (0..levels.n_roots).fold(codes, |x, _| x.clone() * x);
        let values: Tensor<B, 2> = shares * sign * self.largest;
        let n: usize = shape.iter().product();
        values.reshape([-1]).narrow(0, 0, n).reshape(shape)
    }

    pub(crate) fn moved_to(self, device: &B::Device) -> Self {
        Self { codes: self.codes.to_device(device), largest: self.largest.to_device(device) }
    }

    /// Saves the codes and the scales.
    pub(crate) fn save(self, name: &str, tensors: &mut Tensors) {
        tensors.add(format!("{name}.codes"), self.codes);
        tensors.add(format!("{name}.largest"), self.largest);
    }

    /// Restores the `n` numbers that [`save`](Self::save) stored.
    ///
    /// # Errors
    ///
    /// [`Error::MalformedSnapshot`] if a part is missing or has another shape.
    pub(crate) fn restore(
        name: &str,
        saved: Saved<'_>,
        (n, device): (usize, &B::Device),
    ) -> Result<Self, Error> {
        let n_blocks = n.div_ceil(MOMENT_BLOCK);
        let part = |part: &str| format!("{name}.{part}");
        let codes = saved.tensor(&part("codes"), Some([n_blocks, MOMENT_BLOCK]), device)?;
        let largest = saved.tensor(&part("largest"), Some([n_blocks, 1]), device)?;
        Ok(Self { codes, largest })
    }

    /// Returns the type of the codes.
    #[cfg(test)]
    pub(crate) fn dtype(&self) -> burn::tensor::DType {
        self.codes.dtype()
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::TensorData;

    use super::*;

    fn tensor(values: &[f64]) -> Tensor<Flex, 1> {
        let data = TensorData::new(values.to_vec(), [values.len()]).convert::<f32>();
        Tensor::from_data(data, &Default::default())
    }

    fn there_and_back(values: &[f64], levels: Levels) -> Vec<f64> {
        let blocks = Blocks::of(tensor(values), levels);
        blocks.values([values.len()], levels).into_data().iter().collect()
    }

    /// Returns magnitudes over six orders, in three blocks; the last is not full.
    fn values(signed: bool) -> Vec<f64> {
        let value = |k: usize| {
            let magnitude = 10.0_f64.powf((k % 61) as f64 / 10.0 - 6.0);
            if signed && k.is_multiple_of(3) { -magnitude } else { magnitude }
        };
        (0..2 * MOMENT_BLOCK + 62).map(value).collect()
    }

    #[test]
    fn a_number_becomes_one_of_the_two_levels_beside_it() {
        Flex::seed(&Default::default(), 3);
        for (levels, power, n, signed) in [(FIRST, 2, 127.0, true), (SECOND, 4, 255.0, false)] {
            let values = values(signed);
            for (value, kept) in values.iter().zip(there_and_back(&values, levels)) {
                // The largest magnitude of each block is 1.
                let root = value.abs().powf(1.0 / f64::from(power)) * n;
                let [low, high] =
                    [root.floor(), root.ceil()].map(|code: f64| (code / n).powi(power));
                let rounding = 1e-6 * high;
                let range = (low - rounding)..=(high + rounding);
                assert!(range.contains(&kept.abs()), "{value} {kept} {range:?}");
                assert!(kept * value >= 0.0);
            }
        }
    }

    #[test]
    fn the_expected_value_is_the_number_itself() {
        Flex::seed(&Default::default(), 4);
        for (levels, least) in [(FIRST, 0.0), (SECOND, (1.0_f64 / 255.0).powi(4))] {
            // The largest magnitude of a block, and one value many times.
            for value in [0.3, 0.011, 1e-5] {
                let mut values = vec![value; 40 * MOMENT_BLOCK];
                (0..40).for_each(|block| values[block * MOMENT_BLOCK] = 1.0);
                let kept = there_and_back(&values, levels);
                let kept: Vec<f64> = kept
                    .into_iter()
                    .enumerate()
                    .filter(|(k, _)| k % MOMENT_BLOCK > 0)
                    .map(|(_, v)| v)
                    .collect();
                let n = kept.len() as f64;
                let mean = kept.iter().sum::<f64>() / n;
                let variance = kept.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
                let standard_error = (variance / n).sqrt().max(1e-6 * value);
                assert!((mean - value).abs() < 4.0 * standard_error + least, "{value}: {mean}");
                assert!(variance > 0.0, "{value} is between two levels");
            }
        }
    }

    #[test]
    fn zero_stays_zero_and_nothing_else_becomes_zero_under_a_root() {
        let mut values = vec![0.0; MOMENT_BLOCK];
        assert_eq!(there_and_back(&values, FIRST), values);
        assert_eq!(there_and_back(&values, SECOND), values);
        (values[0], values[1]) = (1.0, 1e-30);
        let kept = there_and_back(&values, SECOND);
        assert!(kept[1] > 0.0 && kept[1] < 1e-9, "{}", kept[1]);
        assert!(kept[2].abs() <= 0.0);
    }
}
