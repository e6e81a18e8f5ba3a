//! Linear maps without bias, as every projection of Llama and Mistral is.

use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::backend::Backend;

/// A map with weights `[d_input, d_output]` drawn so that its output keeps the input's scale.
pub(crate) fn linear<B: Backend>([d_input, d_output]: [usize; 2], device: &B::Device) -> Linear<B> {
    let std = 1.0 / (d_input as f64).sqrt();
    LinearConfig::new(d_input, d_output)
        .with_bias(false)
        .with_initializer(Initializer::Normal { mean: 0.0, std })
        .init(device)
}
