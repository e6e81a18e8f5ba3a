//! In what types the optimiser keeps and writes its numbers.

use serde::{Deserialize, Serialize};

/// How a step is written to weights in half precision (bf16, f16). It is computed in f32; weights of
/// f32 and wider take it as it is, whatever is chosen here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum WeightUpdate {
    /// To the lower or the upper neighbour by chance, the expected value being exact: small steps
    /// arrive on average, and no memory is needed. Zamirai et al., [Revisiting BFloat16
    /// Training](https://arxiv.org/abs/2010.06192).
    #[default]
    Stochastic,
    /// To the nearest of a copy of the weights in f32 that takes the steps: 4 bytes more per weight.
    /// Micikevicius et al., [Mixed Precision Training](https://arxiv.org/abs/1710.03740).
    Master,
    /// To the nearest. Steps below half the distance of neighbours are lost: in bf16, those below 0.2 to
    /// 0.4 % of a weight.
    Nearest,
}

/// The type in which `AdamW`'s two moments are kept between steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum OptimizerState {
    /// Single precision, or double where the weights are: 8 bytes per weight.
    #[default]
    F32,
    /// The upper half of a single, rounded by chance, since rounded to the nearest the second moment would
    /// stand still: 4 bytes per weight.
    BF16,
    /// Eight bits, rounded by chance, and a scale for each 256 numbers: 2.03 bytes per weight. Not on WGPU,
    /// which has no such integers.
    #[serde(rename = "8bit")]
    EightBit,
}
