//! Linear maps without bias, as every projection of Llama and Mistral is.

use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// A map with weights `[d_input, d_output]` drawn so that its output keeps the input's scale.
pub(crate) fn linear<B: Backend>([d_input, d_output]: [usize; 2], device: &B::Device) -> Linear<B> {
    let std = 1.0 / (d_input as f64).sqrt();
    LinearConfig::new(d_input, d_output)
        .with_bias(false)
        .with_initializer(Initializer::Normal { mean: 0.0, std })
        .init(device)
}

/// The map of every position, as one matrix product over all tokens of the batch. Burn's forward on
/// three axes takes a product per row, and backward a gradient of the weights per row.
///
/// # Shapes
///
/// - `hidden`: `[batch_size, seq_length, d_input]`
/// - `output`: `[batch_size, seq_length, d_output]`
pub(crate) fn project<B: Backend>(linear: &Linear<B>, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
    let [batch_size, seq_length, d_input] = hidden.dims();
    let [_, d_output] = linear.weight.dims();
    let tokens = hidden.reshape([batch_size * seq_length, d_input]);
    linear.forward(tokens).reshape([batch_size, seq_length, d_output])
}
