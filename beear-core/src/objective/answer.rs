//! Log-probabilities of answers, cross-entropy and Kullback–Leibler divergence on them.

use burn::tensor::activation::log_softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{FloatDType, Int, Tensor};

use crate::batch::Batch;
use crate::decoder::Decoder;

/// Returns the log-probabilities at the positions that predict an answer token. The unembedding of
/// all other positions is never computed.
///
/// # Shapes
///
/// - `hidden`: `[batch_size, seq_length, d_model]`, at the last boundary
/// - `output`: `[n_answer, vocab_size]`, in f32 or wider
pub fn log_probabilities<B: Backend, M: Decoder<B>>(
    model: &M,
    hidden: Tensor<B, 3>,
    batch: &Batch<B>,
) -> Tensor<B, 2> {
    log_probabilities_at(model, predicting(hidden, batch))
}

/// Returns the hidden states of the positions that predict an answer token.
///
/// # Shapes
///
/// - `hidden`: `[batch_size, seq_length, d_model]`
/// - `output`: `[n_answer, d_model]`
pub(crate) fn predicting<B: Backend>(hidden: Tensor<B, 3>, batch: &Batch<B>) -> Tensor<B, 2> {
    let [batch_size, seq_length, d_model] = hidden.dims();
    hidden.reshape([batch_size * seq_length, d_model]).select(0, batch.answer_index.clone())
}

/// Returns the log-probabilities of all tokens after each of the given positions.
///
/// # Shapes
///
/// - `hidden`: `[n_answer, d_model]`, at the last boundary
/// - `output`: `[n_answer, vocab_size]`, in f32 or wider
pub(crate) fn log_probabilities_at<B: Backend, M: Decoder<B>>(
    model: &M,
    hidden: Tensor<B, 2>,
) -> Tensor<B, 2> {
    let logits = model.unembed(hidden.unsqueeze::<3>()); // [1, n_answer, vocab_size]
    log_softmax(at_least_f32(logits.squeeze_dim::<2>(0)), 1)
}

/// Returns the mean of $-\log p$ over the targets.
///
/// # Shapes
///
/// - `log_probabilities`: `[n_answer, vocab_size]`
/// - `targets`: `[n_answer]`
/// - `output`: `[1]`
pub fn cross_entropy<B: Backend>(
    log_probabilities: Tensor<B, 2>,
    targets: Tensor<B, 1, Int>,
) -> Tensor<B, 1> {
    log_probabilities.gather(1, targets.unsqueeze_dim(1)).mean().neg()
}

/// Returns the first row of `batch` with a NaN or infinite log-probability at one of its answer
/// tokens. One number per answer token is copied to the host.
///
/// # Shapes
///
/// - `log_probabilities`: `[n_answer, vocab_size]`
#[must_use]
pub fn first_non_finite<B: Backend>(
    log_probabilities: &Tensor<B, 2>,
    batch: &Batch<B>,
) -> Option<usize> {
    // The sum of `0 · x` is 0 unless an x is NaN or infinite; a maximum may ignore NaN.
    let faults = log_probabilities.clone().mul_scalar(0.0).sum_dim(1).into_data();
    let mut faults = faults.iter::<f32>();
    let is_faulty =
        |&length: &usize| faults.by_ref().take(length).filter(|fault| *fault != 0.0).count() > 0;
    batch.answer_lengths.iter().position(is_faulty)
}

/// Returns, for each row of `batch`, true if every token of its answer is the most likely one at
/// its position.
///
/// # Shapes
///
/// - `log_probabilities`: `[n_answer, vocab_size]`
pub(crate) fn written<B: Backend>(log_probabilities: Tensor<B, 2>, batch: &Batch<B>) -> Vec<bool> {
    let likeliest = log_probabilities.argmax(1).squeeze_dim::<1>(1);
    let right = likeliest.equal(batch.targets.clone()).into_data();
    let mut right = right.iter::<bool>();
    let row =
        |&length: &usize| right.by_ref().take(length).filter(|right| *right).count() == length;
    batch.answer_lengths.iter().map(row).collect()
}

/// Returns the mean over answer positions of $\mathrm{KL}(p_\text{original} \,\|\, p_\text{new})$.
///
/// # Shapes
///
/// - `original`, `new`: log-probabilities, `[n_answer, vocab_size]`
/// - `output`: `[1]`
pub fn kl_divergence<B: Backend>(original: Tensor<B, 2>, new: Tensor<B, 2>) -> Tensor<B, 1> {
    let [n_answer, _] = original.dims();
    // Not `div_scalar`, whose gradient Burn computes in f32 even if the tensors are f64.
    (original.clone().exp() * (original - new)).sum().mul_scalar(1.0 / n_answer as f64)
}

/// Widens half-precision values, in which sums over a vocabulary lose digits.
pub(crate) fn at_least_f32<B: Backend, const D: usize>(values: Tensor<B, D>) -> Tensor<B, D> {
    match values.dtype() {
        burn::tensor::DType::F16 | burn::tensor::DType::BF16 => values.cast(FloatDType::F32),
        _ => values,
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::TensorData;

    use super::*;
    use crate::batch::example::Example;

    /// Tolerance of a few f32 operations on numbers near 1; the values differ by far more.
    const F32_OP: f64 = 1e-6;

    fn log(values: [[f64; 2]; 2]) -> Tensor<Flex, 2> {
        Tensor::<Flex, 2>::from_data(TensorData::from(values).convert::<f32>(), &Default::default())
            .log()
    }

    #[test]
    fn cross_entropy_is_the_mean_surprise_of_the_targets() {
        let log_probabilities = log([[0.5, 0.5], [0.1, 0.9]]);
        let targets = Tensor::from_data([0, 1], &Default::default());
        let loss: f32 = cross_entropy(log_probabilities, targets).into_scalar();
        let expected = -(0.5_f64.ln() + 0.9_f64.ln()) / 2.0;
        assert!((f64::from(loss) - expected).abs() < F32_OP, "{loss} {expected}");
    }

    #[test]
    fn the_first_row_with_a_nan_or_infinite_number_is_found() {
        let device = Default::default();
        let example = |id, n_tokens| Example {
            id,
            prompt: vec![1, 2],
            user: (0, 2),
            answer: vec![1; n_tokens],
        };
        // Answer tokens 0 and 1 belong to row 0, token 2 to row 1, tokens 3 to 5 to row 2.
        let batch = Batch::<Flex>::new(&[example(5, 2), example(6, 1), example(7, 3)], &device);
        let found = |faults: &[(usize, f32)]| {
            let mut values = vec![-1.5_f32; 12];
            for (at, value) in faults {
                values[*at] = *value;
            }
            let log_probabilities = Tensor::from_data(TensorData::new(values, [6, 2]), &device);
            first_non_finite(&log_probabilities, &batch)
        };
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[(4, f32::NAN)]), Some(1));
        assert_eq!(found(&[(11, f32::NEG_INFINITY)]), Some(2));
        assert_eq!(found(&[(7, f32::INFINITY), (3, f32::NAN)]), Some(0));
    }

    #[test]
    fn divergence_weighs_by_the_original() {
        let (original, new) = (log([[0.5, 0.5], [0.1, 0.9]]), log([[0.25, 0.75], [0.1, 0.9]]));
        let loss: f32 = kl_divergence(original, new).into_scalar();
        // The second row does not differ, so the mean is half of the first.
        let expected = 0.25 * (2.0_f64.ln() + (0.5_f64 / 0.75).ln());
        assert!((f64::from(loss) - expected).abs() < F32_OP, "{loss} {expected}");
    }
}
