//! Unlikelihood: the loss of an answer that a model should not give.
//!
//! $$\mathcal{U}(y \mid x) =
//! -\tfrac{1}{|y|} \sum_t \log\big(1 - p_\theta(y_t \mid x, y_{<t})\big)$$
//!
//! Welleck et al., [Neural Text Generation with Unlikelihood
//! Training](https://arxiv.org/abs/1908.04319), ICLR 2020; the "away" loss of latent adversarial
//! training.

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};

/// Log-probability of an impossible token; finite, so that differences stay finite.
const NEVER: f64 = -1e30;

/// Returns the mean of $-\log(1 - p)$ over the targets.
///
/// # Shapes
///
/// - `log_probabilities`: `[n_answer, vocab_size]`
/// - `targets`: `[n_answer]`
/// - `output`: `[1]`
pub fn unlikelihood<B: Backend>(
    log_probabilities: Tensor<B, 2>,
    targets: Tensor<B, 1, Int>,
) -> Tensor<B, 1> {
    let [n_answer, vocab_size] = log_probabilities.dims();
    let shape = [n_answer, vocab_size];
    let tokens = Tensor::<B, 1, Int>::arange(0..vocab_size as i64, &targets.device());
    let tokens = tokens.unsqueeze_dim::<2>(0).expand(shape);
    let is_target = tokens.equal(targets.unsqueeze_dim::<2>(1).expand(shape));
    let others = log_probabilities.mask_fill(is_target, NEVER);
    // log-sum-exp over the other tokens: 1 - p is 0 in f32 where p is above 1 - 6e-8.
    let largest = others.clone().max_dim(1).detach(); // [n_answer, 1]
    let rest = (others - largest.clone()).exp().sum_dim(1).log() + largest;
    rest.mean().neg()
}

#[cfg(test)]
mod tests {
    use burn::backend::{Autodiff, Flex};
    use burn::tensor::activation::log_softmax;

    use super::*;

    /// Tolerance of a few f32 operations on numbers near 1.
    const F32_OP: f32 = 1e-6;

    #[test]
    fn it_is_the_mean_surprise_that_the_target_does_not_come() {
        let device = Default::default();
        let probabilities =
            Tensor::<Flex, 2>::from_data([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], &device);
        let targets = Tensor::from_data([0, 2], &device);
        let loss: f32 = unlikelihood(probabilities.log(), targets).into_scalar();
        let expected = -(0.5_f32.ln() + 0.2_f32.ln()) / 2.0;
        assert!((loss - expected).abs() < F32_OP, "{loss} {expected}");
    }

    #[test]
    fn a_certain_target_has_a_finite_loss_and_gradient() {
        let device = Default::default();
        let logits =
            Tensor::<Autodiff<Flex>, 2>::from_data([[40.0, 0.0, 0.0]], &device).require_grad();
        let targets = Tensor::from_data([0], &device);
        let loss = unlikelihood(log_softmax(logits.clone(), 1), targets);
        let grads = loss.backward();
        // 1 - p = 2 e^-40 / (1 + 2 e^-40).
        let expected = 40.0 - 2.0_f32.ln();
        assert!((loss.into_scalar() - expected).abs() < 1e-4);
        let grad: Vec<f32> = logits.grad(&grads).expect("a leaf").into_data().iter().collect();
        // The derivative with respect to the target's logit is p, and -1/2 with respect to each of
        // the two others.
        for (found, expected) in grad.iter().zip([1.0, -0.5, -0.5]) {
            assert!((found - expected).abs() < F32_OP, "{grad:?}");
        }
    }
}
