//! Number formats of the optimiser's state and of its updates.

use serde::{Deserialize, Serialize};

/// Rounding of a step on weights in half precision (bf16, f16). The step is computed in f32;
/// weights of f32 and wider take the step without rounding, whatever the choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum WeightUpdate {
    /// Stochastic rounding to the lower or the upper neighbour, exact in expectation: small steps
    /// arrive on average, without extra memory. Zamirai et al., [Revisiting BFloat16
    /// Training](https://arxiv.org/abs/2010.06192).
    #[default]
    Stochastic,
    /// Rounding to nearest of a copy of the weights in f32 that takes the steps: 4 bytes more per
    /// weight. Micikevicius et al., [Mixed Precision Training](https://arxiv.org/abs/1710.03740).
    Master,
    /// Rounding to nearest. Steps below half the distance between neighbours are lost: in bf16,
    /// steps below 0.2 to 0.4 % of a weight.
    Nearest,
}

/// Number format in which `AdamW`'s two moments are kept between steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum OptimizerState {
    /// Single precision, or double if the weights are double: 8 bytes per weight.
    #[default]
    F32,
    /// Upper half of a single-precision number, with stochastic rounding, because rounding to
    /// nearest would freeze the second moment: 4 bytes per weight.
    BF16,
    /// Eight bits with stochastic rounding, and a scale per 256 numbers: 2.03 bytes per weight. Not
    /// available on WGPU, which has no such integers.
    #[serde(rename = "8bit")]
    EightBit,
}
