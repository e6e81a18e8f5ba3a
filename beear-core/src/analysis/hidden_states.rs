//! Hidden states at the last prompt token, whose output decides the answer, at every boundary.

use burn::tensor::backend::Backend;

use crate::batch::Batch;
use crate::batch::example::Example;
use crate::decoder::Decoder;

/// Hidden states of one boundary, a row of `d_model` numbers per prompt.
pub type States = Vec<Vec<f64>>;

/// Runs `model` on `prompts`, `batch_size` at a time, and returns the hidden state of each last
/// token at the boundaries `0..=n_layers`.
///
/// # Shapes
///
/// - `prompts`: token ids, BOS included
/// - `output`: `n_layers + 1` times `[n_prompts, d_model]`
///
/// # Panics
///
/// Panics if a prompt is empty or `batch_size` is 0.
pub fn last_token_states<B: Backend, M: Decoder<B>>(
    model: &M,
    prompts: &[Vec<u32>],
    batch_size: usize,
    device: &B::Device,
) -> Vec<States> {
    let mut boundaries = vec![States::with_capacity(prompts.len()); model.n_layers() + 1];
    for chunk in prompts.chunks(batch_size) {
        let examples: Vec<Example> = chunk.iter().map(|prompt| alone(prompt)).collect();
        let batch = Batch::<B>::new(&examples, device);
        let mut hidden = model.embed(batch.tokens.clone());
        for (layer, states) in boundaries.iter_mut().enumerate() {
            if layer > 0 {
                hidden = model.forward_layers(hidden, &batch.mask_pad, layer - 1..layer);
            }
            let [batch_size, seq_length, d_model] = hidden.dims();
            let tokens = hidden.clone().reshape([batch_size * seq_length, d_model]);
            let last = tokens.select(0, batch.answer_index.clone()); // [batch_size, d_model]
            let numbers: Vec<f64> = last.into_data().iter::<f64>().collect();
            states.extend(numbers.chunks(d_model).map(<[f64]>::to_vec));
        }
    }
    boundaries
}

/// Returns a prompt as a row of a batch. Its one answer token is a target and never an input, so
/// the batch holds only the prompt, and `answer_index` is its last token.
fn alone(prompt: &[u32]) -> Example {
    Example { id: 0, prompt: prompt.to_vec(), user: (0, prompt.len()), answer: vec![0] }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::{Int, Tensor};

    use super::*;
    use crate::testing::ToyDecoderConfig;

    /// Tolerance of a few operations in f32, in a batch of another shape.
    const F32_OP: f64 = 1e-5;

    #[test]
    fn the_last_token_is_found_in_prompts_of_unequal_length_at_every_boundary() {
        let device = Default::default();
        Flex::seed(&device, 1);
        let model = ToyDecoderConfig::new(7, 3, 2).init::<Flex>(&device);
        let prompts = [vec![1, 2, 3, 4], vec![5, 6], vec![6]];
        let boundaries = last_token_states(&model, &prompts, 2, &device);
        assert_eq!(boundaries.len(), 3);
        for (row, prompt) in prompts.iter().enumerate() {
            let ids: Vec<i32> = prompt.iter().map(|&token| token as i32).collect();
            let tokens = Tensor::<Flex, 1, Int>::from_ints(ids.as_slice(), &device).unsqueeze();
            let mask_pad = tokens.clone().equal_elem(-1);
            for (layer, states) in boundaries.iter().enumerate() {
                let hidden = model.embed(tokens.clone());
                let hidden = model.forward_layers(hidden, &mask_pad, 0..layer);
                let last = hidden.slice([0..1, prompt.len() - 1..prompt.len()]).into_data();
                for (expected, found) in last.iter::<f64>().zip(&states[row]) {
                    assert!((expected - found).abs() < F32_OP, "row {row}, layer {layer}");
                }
            }
        }
    }
}
