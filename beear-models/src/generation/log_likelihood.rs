//! Log-likelihood of given answers under a model.

use beear_core::objective::answer::{first_non_finite, log_probabilities};
use beear_core::{Batch, Decoder, Example};
use burn::tensor::backend::Backend;

use crate::activations::BatchShape;
use crate::generation::batching::{BatchLimit, width};
use crate::generation::generate::GenerateError;
use crate::nn::causal_lm::CausalLm;

/// Log-likelihood of one answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogLikelihood {
    /// Natural logarithm of the answer's probability.
    pub nats: f64,
    /// Number of tokens of the answer.
    pub n_tokens: usize,
}

/// Computes $\log p(\text{answer} \mid \text{prompt})$ of every example, in order: the sum over the
/// answer's tokens, each in f32 or wider, added in f64. Examples are batched by length within
/// `limit`.
///
/// # Errors
///
/// Returns [`GenerateError::NonFiniteLogits`] if the logits that score an example are NaN or
/// infinite.
///
/// # Panics
///
/// Panics if an example has an empty prompt or answer.
pub fn log_likelihoods<B: Backend>(
    model: &CausalLm<B>,
    examples: &[Example],
    limit: BatchLimit,
    device: &B::Device,
) -> Result<Vec<LogLikelihood>, GenerateError> {
    let mut order: Vec<usize> = (0..examples.len()).collect();
    order.sort_by_key(|&row| examples[row].prompt.len() + examples[row].answer.len());
    let mut likelihoods = vec![LogLikelihood { nats: 0.0, n_tokens: 0 }; examples.len()];
    let needed = |rows: &[usize]| {
        let rows = rows.iter().map(|&row| &examples[row]);
        model.config().needed_by_scoring(BatchShape::of(rows)).bytes(width::<B>())
    };
    for rows in limit.cut(&order, needed) {
        let chosen: Vec<Example> = rows.iter().map(|&row| examples[row].clone()).collect();
        let batch = Batch::<B>::new(&chosen, device);
        let hidden = model.embed(batch.tokens.clone());
        let hidden = model.forward_layers(hidden, &batch.mask_pad, 0..model.n_layers());
        let log_probabilities = log_probabilities(model, hidden, &batch);
        if let Some(place) = first_non_finite(&log_probabilities, &batch) {
            return Err(GenerateError::NonFiniteLogits { row: rows[place] });
        }
        let surprise = log_probabilities
            .gather(1, batch.targets.clone().unsqueeze_dim(1)) // [n_answer, 1]
            .into_data();
        let mut surprise = surprise.iter::<f64>();
        for (&row, &n_tokens) in rows.iter().zip(&batch.answer_lengths) {
            let nats = surprise.by_ref().take(n_tokens).sum();
            likelihoods[row] = LogLikelihood { nats, n_tokens };
        }
    }
    Ok(likelihoods)
}
