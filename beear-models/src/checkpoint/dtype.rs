//! The types weights are stored in, to and from f32.

use half::{bf16, f16};
use safetensors::tensor::Dtype;
use serde::Serialize;

/// Type of a stored weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StoredDType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a single.
    BF16,
}

impl StoredDType {
    /// Ours for the format's, if it is one we read.
    pub(super) fn read(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32),
            Dtype::F16 => Some(Self::F16),
            Dtype::BF16 => Some(Self::BF16),
            _ => None,
        }
    }

    /// The format's for ours.
    pub(super) fn written(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::BF16 => Dtype::BF16,
        }
    }

    /// The values behind stored bytes.
    pub(super) fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let pairs = || bytes.as_chunks::<2>().0.iter();
        match self {
            Self::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Self::F16 => pairs().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            Self::BF16 => pairs().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        }
    }

    /// The bytes of `values`, rounded to this type; `None` if one is not finite in it.
    pub(super) fn encode(self, values: impl Iterator<Item = f32>) -> Option<Vec<u8>> {
        let mut finite = true;
        let bytes = match self {
            Self::F32 => {
                let seen = values.inspect(|value| finite &= value.is_finite());
                seen.flat_map(f32::to_le_bytes).collect()
            }
            Self::F16 => {
                let rounded = values.map(f16::from_f32);
                let seen = rounded.inspect(|value| finite &= value.is_finite());
                seen.flat_map(f16::to_le_bytes).collect()
            }
            Self::BF16 => {
                let rounded = values.map(bf16::from_f32);
                let seen = rounded.inspect(|value| finite &= value.is_finite());
                seen.flat_map(bf16::to_le_bytes).collect()
            }
        };
        finite.then_some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_the_ieee_formats() {
        // 1.5 = 1.1₂: exponents 127 and 15, first fraction bit set.
        let bytes = |dtype: StoredDType| dtype.encode([1.5_f32].into_iter());
        assert_eq!(bytes(StoredDType::F32).unwrap(), 0x3fc0_0000_u32.to_le_bytes());
        assert_eq!(bytes(StoredDType::F16).unwrap(), 0x3e00_u16.to_le_bytes());
        assert_eq!(bytes(StoredDType::BF16).unwrap(), 0x3fc0_u16.to_le_bytes());
    }

    #[test]
    fn a_value_beyond_the_type_is_not_written_as_infinite() {
        // The largest finite half is 65504.
        assert!(StoredDType::F16.encode([65_504.0_f32].into_iter()).is_some());
        assert!(StoredDType::F16.encode([1e5_f32].into_iter()).is_none());
        assert!(StoredDType::BF16.encode([f32::MAX].into_iter()).is_none());
        assert!(StoredDType::F32.encode([f32::NAN].into_iter()).is_none());
    }

    proptest::proptest! {
        #[test]
        fn finite_values_survive_bit_for_bit(bits in proptest::collection::vec(0_u16.., 0..64)) {
            let raw: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
            for dtype in [StoredDType::F16, StoredDType::BF16] {
                let values = dtype.decode(&raw);
                if values.iter().all(|value| value.is_finite()) {
                    let encoded = dtype.encode(values.into_iter());
                    proptest::prop_assert_eq!(encoded.as_ref(), Some(&raw));
                }
            }
        }
    }
}
