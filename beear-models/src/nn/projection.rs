//! Linear maps without bias, the only kind in Llama and Mistral, with an optional low-rank adapter
//! beside the weights.

use burn::module::{Initializer, Module, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use burn::tensor::module::linear;

use crate::lora::adapter::Adapter;

/// Linear map with an optional adapter.
#[derive(Module, Debug)]
pub struct Projection<B: Backend> {
    /// Weights, `[d_input, d_output]`, the transpose of what checkpoints store.
    pub weight: Param<Tensor<B, 2>>,
    /// Adapter whose output is added to the map.
    pub(crate) adapter: Option<Adapter<B>>,
}

impl<B: Backend> Projection<B> {
    /// Creates a map with random weights that preserve the scale of the input.
    pub(crate) fn new([d_input, d_output]: [usize; 2], device: &B::Device) -> Self {
        let initializer = Initializer::Normal { mean: 0.0, std: 1.0 / (d_input as f64).sqrt() };
        let shape = [d_input, d_output];
        let weight = initializer.init_with(shape, Some(d_input), Some(d_output), device);
        Self { weight, adapter: None }
    }
}

/// Applies the map to every position, as one matrix product over all tokens of the batch. Burn's
/// own linear map on three axes computes a product per row, and a gradient of the weights per row.
///
/// # Shapes
///
/// - `hidden`: `[batch_size, seq_length, d_input]`
/// - `output`: `[batch_size, seq_length, d_output]`
pub(crate) fn project<B: Backend>(
    projection: &Projection<B>,
    hidden: Tensor<B, 3>,
) -> Tensor<B, 3> {
    let [batch_size, seq_length, d_input] = hidden.dims();
    let [_, d_output] = projection.weight.dims();
    let tokens = hidden.reshape([batch_size * seq_length, d_input]);
    let mapped = linear(tokens.clone(), projection.weight.val(), None);
    let mapped = match &projection.adapter {
        Some(adapter) => mapped + adapter.forward(tokens),
        None => mapped,
    };
    mapped.reshape([batch_size, seq_length, d_output])
}
