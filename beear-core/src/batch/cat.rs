//! Concatenation of tensors that keeps gradients under concurrent backward passes.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// Concatenates tensors like [`Tensor::cat`], with correct gradients whatever other threads do.
///
/// Burn 0.21's `cat` drops its input tensors before it records the operation. If another thread
/// ends a backward pass at that moment, the clean-up takes the inputs for unused and discards their
/// part of the graph, and their gradients are silently lost; the test below shows it. This function
/// holds the inputs until the result is recorded. Operations other than `cat`, and `stack`, which
/// calls `cat`, hold their inputs themselves.
///
/// # Panics
///
/// Panics if [`Tensor::cat`] does.
#[must_use]
pub fn cat<B: Backend, const D: usize>(tensors: Vec<Tensor<B, D>>, dim: usize) -> Tensor<B, D> {
    let held = tensors.clone();
    let joined = Tensor::cat(tensors, dim);
    drop(held);
    joined
}

#[cfg(test)]
mod tests {
    use burn::backend::{Autodiff, Flex};
    use burn::tensor::TensorData;

    use super::*;

    type Train = Autodiff<Flex>;

    fn leaf(scale: f32) -> Tensor<Train, 2> {
        let values = (0..36).map(|k| (k as f32 * scale).sin()).collect();
        Tensor::from_data(TensorData::new(values, [6, 6]), &Default::default()).require_grad()
    }

    /// Returns the gradients of ten backward passes, one after the other: the first would be
    /// correct in any case.
    fn gradients() -> Vec<TensorData> {
        let (leaf, weights) = (leaf(0.4), leaf(0.7));
        let gradient = |_| {
            let mut hidden = leaf.clone().tanh();
            for _ in 0..6 {
                let halves = vec![hidden.clone().narrow(0, 0, 3), hidden.narrow(0, 3, 3)];
                hidden = cat(halves, 0).tanh().matmul(weights.clone());
            }
            let gradients = hidden.powi_scalar(2).sum().backward();
            leaf.grad(&gradients).expect("the leaf has a gradient").into_data()
        };
        (0..10).map(gradient).collect()
    }

    #[test]
    fn gradients_stay_while_other_threads_tidy_up() {
        let expected = gradients();
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| (0..100).for_each(|_| assert!(gradients() == expected)));
            }
        });
    }
}
