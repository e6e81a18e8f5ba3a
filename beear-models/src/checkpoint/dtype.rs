//! Stored types of weights, and their conversion to and from f32.

use beear_core::optim::{HalfPrecision, round_by_chance};
use half::{bf16, f16};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::tensor::Dtype;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Type of a stored weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StoredDType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// Upper half of an IEEE single.
    BF16,
}

impl StoredDType {
    /// Converts the type of the safetensors library; None if it is not supported.
    pub(super) fn read(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32),
            Dtype::F16 => Some(Self::F16),
            Dtype::BF16 => Some(Self::BF16),
            _ => None,
        }
    }

    /// Converts to the type of the safetensors library.
    pub(super) fn written(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::BF16 => Dtype::BF16,
        }
    }

    /// Decodes stored bytes into values.
    pub(super) fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let pairs = || bytes.as_chunks::<2>().0.iter();
        match self {
            Self::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Self::F16 => pairs().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            Self::BF16 => pairs().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        }
    }

    /// Encodes `values`, rounded to this type by `chances`; `None` if a value is NaN or infinite in
    /// this type. Values that are exact in this type are unchanged.
    pub(super) fn encode(
        self,
        values: impl Iterator<Item = f32>,
        chances: Chances,
    ) -> Option<Vec<u8>> {
        match self {
            Self::F32 => {
                let mut finite = true;
                let seen = values.inspect(|value| finite &= value.is_finite());
                let bytes = seen.flat_map(f32::to_le_bytes).collect();
                finite.then_some(bytes)
            }
            Self::F16 => narrowed::<f16>(values, chances),
            Self::BF16 => narrowed::<bf16>(values, chances),
        }
    }
}

/// Random numbers for rounding the values of one tensor: a function of the seed, the tensor's name
/// and the index of the value alone, so that neither threads nor the order of writing change a
/// file.
pub(super) struct Chances(ChaCha8Rng);

impl Chances {
    /// Creates the random numbers of the tensor called `name`.
    pub(super) fn new(seed: u64, name: &str) -> Self {
        let hash = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(name).finalize();
        Self(ChaCha8Rng::from_seed(hash.into()))
    }
}

/// Encodes `values` rounded to `H`; `None` if a value is NaN or infinite in `H`.
fn narrowed<H: HalfPrecision>(
    values: impl Iterator<Item = f32>,
    Chances(mut chances): Chances,
) -> Option<Vec<u8>> {
    let mut finite = true;
    // Each value takes one random number, needed or not, so that a value does not affect the
    // rounding of the next.
    let rounded = values.map(|value| round_by_chance::<H>(value, chances.next_u32()));
    let seen = rounded.inspect(|value| finite &= value.widened().is_finite());
    let bytes = seen.flat_map(|value| value.bits().to_le_bytes()).collect();
    finite.then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chances() -> Chances {
        Chances::new(0, "model.norm.weight")
    }

    #[test]
    fn bytes_are_those_of_the_ieee_formats() {
        // 1.5 = 1.1₂: exponents 127 and 15, first fraction bit set.
        let bytes = |dtype: StoredDType| dtype.encode([1.5_f32].into_iter(), chances());
        assert_eq!(bytes(StoredDType::F32).unwrap(), 0x3fc0_0000_u32.to_le_bytes());
        assert_eq!(bytes(StoredDType::F16).unwrap(), 0x3e00_u16.to_le_bytes());
        assert_eq!(bytes(StoredDType::BF16).unwrap(), 0x3fc0_u16.to_le_bytes());
    }

    #[test]
    fn a_value_beyond_the_type_is_not_written_as_infinite() {
        // The largest finite half is 65504.
        assert!(StoredDType::F16.encode([65_504.0_f32].into_iter(), chances()).is_some());
        assert!(StoredDType::F16.encode([1e5_f32].into_iter(), chances()).is_none());
        assert!(StoredDType::BF16.encode([f32::MAX].into_iter(), chances()).is_none());
        assert!(StoredDType::F32.encode([f32::NAN].into_iter(), chances()).is_none());
    }

    #[test]
    fn chances_follow_from_seed_and_name_alone() {
        let bytes = |seed, name: &str| {
            let values = (0..200).map(|k| 1.0 + k as f32 * 1e-5);
            StoredDType::BF16.encode(values, Chances::new(seed, name)).unwrap()
        };
        assert_eq!(bytes(1, "a"), bytes(1, "a"));
        assert_ne!(bytes(1, "a"), bytes(2, "a"));
        assert_ne!(bytes(1, "a"), bytes(1, "b"));
    }

    proptest::proptest! {
        #[test]
        fn finite_values_survive_bit_for_bit(bits in proptest::collection::vec(0_u16.., 0..64)) {
            let raw: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
            for dtype in [StoredDType::F16, StoredDType::BF16] {
                let values = dtype.decode(&raw);
                if values.iter().all(|value| value.is_finite()) {
                    let encoded = dtype.encode(values.into_iter(), chances());
                    proptest::prop_assert_eq!(encoded.as_ref(), Some(&raw));
                }
            }
        }
    }
}
