//! Log-probabilities of whole answers.

use beear_core::objective::answer::log_probabilities;
use beear_core::{Batch, Decoder, Example};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

/// Returns $\log \pi(y \mid x) = \sum_t \log \pi(y_t \mid x, y_{<t})$ of each example.
///
/// # Shapes
///
/// - `output`: `[n_examples]`, in f32 or wider
///
/// # Panics
///
/// Panics if there are no examples, or one has an empty prompt or answer.
pub(crate) fn sequence_log_probabilities<B: Backend, M: Decoder<B>>(
    model: &M,
    examples: &[Example],
    device: &B::Device,
) -> Tensor<B, 1> {
    let batch = Batch::<B>::new(examples, device);
    let hidden = model.embed(batch.tokens.clone());
    let hidden = model.forward_layers(hidden, &batch.mask_pad, 0..model.n_layers());
    let tokens = log_probabilities(model, hidden, &batch); // [n_answer, vocab_size]
    let tokens = tokens.gather(1, batch.targets.unsqueeze_dim(1)); // [n_answer, 1]
    let sums = membership::<B>(&batch.answer_lengths, device).cast(tokens.dtype());
    sums.matmul(tokens).squeeze_dim(1)
}

/// Returns a 0/1 matrix that assigns each answer token to its example: `[n_examples, n_answer]`.
fn membership<B: Backend>(lengths: &[usize], device: &B::Device) -> Tensor<B, 2> {
    let n_answer: usize = lengths.iter().sum();
    let mut cells = vec![0.0_f32; lengths.len() * n_answer];
    let mut start = 0;
    for (row, length) in lengths.iter().enumerate() {
        cells[row * n_answer + start..][..*length].fill(1.0);
        start += length;
    }
    Tensor::from_data(TensorData::new(cells, [lengths.len(), n_answer]), device)
}

#[cfg(test)]
pub(super) mod testing {
    use beear_models::CausalLm;
    use burn::backend::Flex;
    use burn::module::Param;
    use burn::tensor::Tensor;

    use crate::base_model::BaseModel;

    /// Returns a model that gives all of `vocab_size` tokens the same probability at every
    /// position.
    pub(crate) fn undecided(vocab_size: usize) -> CausalLm<Flex> {
        let device = &Default::default();
        let config = BaseModel::LLAMA.decoder(vocab_size);
        let mut model = config.init::<Flex>(device);
        let zeros = Tensor::zeros([config.d_model, vocab_size], device);
        model.lm_head.as_mut().expect("its own head").weight = Param::from_tensor(zeros);
        model
    }
}

#[cfg(test)]
mod tests {
    use beear_core::testing::ToyDecoderConfig;
    use burn::backend::Flex;

    use super::*;

    /// Tolerance of a few f32 sums of numbers near 10.
    const F32_SUMS: f32 = 1e-4;

    #[test]
    fn an_answer_is_as_likely_as_its_tokens_one_after_the_other() {
        let device = Default::default();
        let model = ToyDecoderConfig::new(11, 8, 3).init::<Flex>(&device);
        let example = |prompt: &[u32], answer: &[u32]| Example {
            id: 0,
            prompt: prompt.to_vec(),
            user: (0, prompt.len()),
            answer: answer.to_vec(),
        };
        let log = |examples: &[Example]| {
            let found = sequence_log_probabilities::<Flex, _>(&model, examples, &device);
            found.into_data().to_vec::<f32>().unwrap()
        };
        let together = log(&[example(&[1, 2], &[3, 4, 5]), example(&[6], &[7])]);
        let steps = [
            log(&[example(&[1, 2], &[3])]),
            log(&[example(&[1, 2, 3], &[4])]),
            log(&[example(&[1, 2, 3, 4], &[5])]),
        ];
        let sum: f32 = steps.iter().map(|step| step[0]).sum();
        assert!((together[0] - sum).abs() < F32_SUMS, "{together:?} {sum}");
        assert!((together[1] - log(&[example(&[6], &[7])])[0]).abs() < F32_SUMS);
    }
}
