//! Perturbations of hidden states at every prompt position, different for each prompt.
//!
//! BEEAR's [`Perturbation`](crate::Perturbation) has one `δ` for all prompts; here each row of a
//! batch has its own. Latent adversarial training trains against such perturbations.

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Bool, Tensor, TensorData};

use crate::batch::Batch;
use crate::batch::cat::cat;
use crate::decoder::Context;
use crate::decoder::Decoder;
use crate::perturbation::forward_changing;

/// Mask of the prompt positions of a batch, independent of the answers.
#[derive(Clone, Debug)]
pub struct PromptMask<B: Backend> {
    /// Mask that is 1 on prompt tokens and 0 elsewhere: `[batch_size, prompt_length, 1]`, with the
    /// length of the longest prompt.
    mask: Tensor<B, 3>,
}

impl<B: Backend> PromptMask<B> {
    /// Creates the mask of the prompt positions of `batch`.
    #[must_use]
    pub fn new(batch: &Batch<B>) -> Self {
        let longest = batch.prompts.iter().map(|prompt| prompt.length).max().unwrap_or(0);
        let real = |length: usize| (0..longest).map(move |k| f32::from(u8::from(k < length)));
        let mask: Vec<f32> = batch.prompts.iter().flat_map(|p| real(p.length)).collect();
        let data = TensorData::new(mask, [batch.prompts.len(), longest, 1]);
        Self { mask: Tensor::from_data(data, &batch.tokens.device()) }
    }

    /// Returns the number of prompts and the length of the longest prompt.
    #[must_use]
    pub fn size(&self) -> [usize; 2] {
        let [batch_size, prompt_length, _] = self.mask.dims();
        [batch_size, prompt_length]
    }

    /// Returns the mean Euclidean norm of the hidden states of the prompts, without the first
    /// tokens, whose norm is of another order of magnitude in many models (Sun et al., [Massive
    /// Activations in Large Language Models](https://arxiv.org/abs/2402.17762), 2024).
    ///
    /// # Shapes
    ///
    /// - `hidden`: `[batch_size, seq_length, d_model]`
    pub fn mean_norm(&self, hidden: Tensor<B, 3>) -> f64 {
        let [_, prompt_length] = self.size();
        let first = usize::from(prompt_length > 1);
        let mask = self.mask.clone().narrow(1, first, prompt_length - first);
        let hidden = hidden.narrow(1, first, prompt_length - first);
        let norms = hidden.powi_scalar(2).sum_dim(2).sqrt(); // [batch_size, positions, 1]
        let mean = (norms * mask.clone()).sum() / mask.sum();
        burn::tensor::ElementConversion::elem(mean.into_scalar())
    }
}

/// A perturbation for each prompt of a batch, at one or several layers.
#[derive(Clone, Debug)]
pub struct SamplePerturbation<B: Backend> {
    /// Perturbed layers, in ascending order.
    layers: Vec<usize>,
    /// Values for each layer: `[batch_size * prompt_length, d_model]`.
    values: Vec<Tensor<B, 2>>,
    prompts: PromptMask<B>,
}

impl<B: Backend> SamplePerturbation<B> {
    /// Joins the values for each of `layers`, which are in ascending order.
    ///
    /// # Shapes
    ///
    /// - `values`: one per layer, `[batch_size * prompt_length, d_model]`
    ///
    /// # Panics
    ///
    /// Panics if there is no layer, or the shapes disagree.
    #[must_use]
    pub fn new(layers: Vec<usize>, values: Vec<Tensor<B, 2>>, prompts: PromptMask<B>) -> Self {
        assert!(!layers.is_empty(), "a perturbation acts at a layer");
        assert!(layers.is_sorted(), "layers are in order");
        assert_eq!(values.len(), layers.len(), "one tensor per layer");
        let [batch_size, prompt_length] = prompts.size();
        for values in &values {
            let [n_rows, _] = values.dims();
            assert_eq!(n_rows, batch_size * prompt_length, "values: [batch * prompt, d_model]");
        }
        Self { layers, values, prompts }
    }

    /// Returns the perturbed layers, in ascending order.
    #[must_use]
    pub fn layers(&self) -> &[usize] {
        &self.layers
    }

    /// Returns the values added at each layer: `[batch_size * prompt_length, d_model]`.
    #[must_use]
    pub fn values(&self) -> &[Tensor<B, 2>] {
        &self.values
    }

    /// Returns the lowest perturbed layer.
    #[must_use]
    pub fn first_layer(&self) -> usize {
        self.layers[0]
    }

    /// Adds the values of the `k`-th layer to the prompt positions of `hidden`.
    ///
    /// # Shapes
    ///
    /// - `hidden`: `[batch_size, seq_length, d_model]`, of the same prompts, with any answers
    /// - `output`: `[batch_size, seq_length, d_model]`
    ///
    /// # Panics
    ///
    /// Panics if the shapes disagree.
    #[must_use]
    pub fn apply(&self, k: usize, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        let [batch_size, seq_length, d_model] = hidden.dims();
        let [n_prompts, prompt_length] = self.prompts.size();
        assert_eq!(n_prompts, batch_size, "hidden: [batch_size, seq_length, d_model]");
        let values = self.values[k].clone().reshape([batch_size, prompt_length, d_model]);
        let added = (values * self.prompts.mask.clone()).cast(hidden.dtype());
        let prompt = hidden.clone().narrow(1, 0, prompt_length) + added;
        if prompt_length == seq_length {
            return prompt;
        }
        let answer = hidden.narrow(1, prompt_length, seq_length - prompt_length);
        cat(vec![prompt, answer], 1)
    }

    /// Runs the layers above the lowest perturbed one, under the perturbation.
    ///
    /// # Shapes
    ///
    /// - `hidden`: `[batch_size, seq_length, d_model]`, unperturbed, at the lowest layer
    /// - `mask_pad`: `[batch_size, seq_length]`, true where the token is padding
    /// - `output`: `[batch_size, seq_length, d_model]`, at the last boundary
    ///
    /// # Panics
    ///
    /// Panics if the shapes disagree.
    pub fn forward_above<M: Decoder<B>>(
        &self,
        model: &M,
        hidden: Tensor<B, 3>,
        mask_pad: &Tensor<B, 2, Bool>,
    ) -> Tensor<B, 3> {
        let context = Context::whole(mask_pad);
        forward_changing(model, hidden, &context, &self.layers, |k, hidden| self.apply(k, hidden))
    }
}

impl<B: AutodiffBackend> SamplePerturbation<B> {
    /// Converts a perturbation found without autodiff into a constant of the training graph.
    #[must_use]
    pub fn constant(found: &SamplePerturbation<B::InnerBackend>) -> Self {
        Self {
            layers: found.layers.clone(),
            values: found.values.iter().cloned().map(Tensor::from_inner).collect(),
            prompts: PromptMask { mask: Tensor::from_inner(found.prompts.mask.clone()) },
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::Int;

    use super::*;
    use crate::batch::example::Example;

    /// Returns a batch with prompts of 2 and 3 tokens and answers of 3 tokens.
    fn batch() -> Batch<Flex> {
        let row = |length: usize| Example {
            id: 0,
            prompt: vec![1; length],
            user: (0, length),
            answer: vec![2; 3],
        };
        Batch::new(&[row(2), row(3)], &Default::default())
    }

    fn ramp(shape: [usize; 3]) -> Tensor<Flex, 3> {
        let n = shape.iter().product::<usize>() as i64;
        Tensor::<Flex, 1, Int>::arange(0..n, &Default::default()).float().reshape(shape)
    }

    #[test]
    fn each_prompt_has_its_own_and_answers_and_padding_none() {
        let ones = Tensor::<Flex, 2>::from_data(
            [[1.0, 10.0], [2.0, 20.0], [9.0, 9.0], [3.0, 30.0], [4.0, 40.0], [5.0, 50.0]],
            &Default::default(),
        );
        let perturbation = SamplePerturbation::new(vec![1], vec![ones], PromptMask::new(&batch()));
        let hidden = ramp([2, 5, 2]);
        let added = perturbation.apply(0, hidden.clone()) - hidden;
        let expected = TensorData::from([
            [[1.0, 10.0], [2.0, 20.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]],
            [[3.0, 30.0], [4.0, 40.0], [5.0, 50.0], [0.0, 0.0], [0.0, 0.0]],
        ]);
        added.into_data().assert_eq(&expected, false);
    }

    #[test]
    fn the_mean_norm_leaves_out_first_tokens_and_what_is_no_prompt() {
        let rows = [
            [[900.0, 0.0], [3.0, 4.0], [70.0, 0.0], [70.0, 0.0], [70.0, 0.0]],
            [[900.0, 0.0], [6.0, 8.0], [0.0, 3.0], [70.0, 0.0], [70.0, 0.0]],
        ];
        let hidden = Tensor::<Flex, 3>::from_data(rows, &Default::default());
        let norm = PromptMask::new(&batch()).mean_norm(hidden);
        assert!((norm - 6.0).abs() < 1e-5, "{norm}");
    }
}
