//! Number of floating-point operations of a decoder's work, counted from its shape.
//!
//! A multiplication and the addition after it count as two. One layer reads $n$ tokens with
//! $$2 P n + 4 h d\, q$$
//! operations: `P` weights in its projections, `h` heads of width `d`, and `q` pairs of a query and
//! a key that is visible to it under the causal mask, whatever else an implementation computes and
//! masks away. Each position whose logits are needed takes $2 d_\text{model} V$ more. In the
//! backward pass a projection takes as much again for the gradient of its input, and as much again
//! for the gradient of its weights if they are trained; attention takes twice as much again. An
//! adapter counts as two more trained projections. The embedding, norms, softmax, rotary embedding,
//! activations, losses and the optimiser are not counted.

use beear_models::activations::GradientsOf;
use beear_models::{DecoderConfig, TrainingScope};
use serde::Serialize;

/// The formula in one line, for readers of a number computed with it.
pub(crate) const FORMULA: &str = "forward 2 x projection weights x tokens, plus 4 x heads x head width per pair of \
    query and visible key, plus 2 x width x vocabulary per position with logits; backward 1 x the projections for \
    their inputs, 1 x more where weights learn, 2 x attention; adapters as projections that learn; nothing else is \
    counted";

/// Tokens read by layers, the same number in every row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Reading {
    pub(crate) n_layers: usize,
    pub(crate) batch_size: usize,
    /// Cached tokens of a row, which are attended to and not read.
    pub(crate) n_past: usize,
    /// Tokens of a row that are read.
    pub(crate) n_tokens: usize,
    /// Positions of a row whose logits are needed.
    pub(crate) n_logits: usize,
}

impl Reading {
    /// Counts the operations of reading, and of the gradients `of` in all of it.
    pub(crate) fn operations(self, config: &DecoderConfig, of: Option<GradientsOf<'_>>) -> f64 {
        self.in_layers(config, of) + self.of_logits(config, of)
    }

    /// Counts the operations of a step that trains `scope` and reads with all layers of the
    /// decoder.
    pub(crate) fn training_operations(self, config: &DecoderConfig, scope: &TrainingScope) -> f64 {
        let layers = scope.gradients_in_layers(self.n_layers);
        let layers = layers.map(|(n_layers, of)| Self { n_layers, ..self }.in_layers(config, of));
        layers.iter().sum::<f64>() + self.of_logits(config, Some(scope.gradients_in_head()))
    }

    fn in_layers(self, config: &DecoderConfig, of: Option<GradientsOf<'_>>) -> f64 {
        let Self { n_layers, batch_size, n_past, n_tokens, .. } = self;
        let longest = config.sliding_window.unwrap_or(usize::MAX);
        let pairs: usize = (n_past..n_past + n_tokens).map(|seen| (seen + 1).min(longest)).sum();
        let products = |n_weights: usize| 2.0 * n_weights as f64 * n_tokens as f64;
        let projections = products(config.n_layer_projection_weights()) * passes(of);
        let attention = 4.0 * (config.n_heads * config.head_dim * pairs) as f64;
        let attention = attention * if of.is_some() { 3.0 } else { 1.0 };
        let adapters = match of {
            Some(GradientsOf::Adapters(lora)) => {
                products(lora.n_layer_weights(config)) * passes(Some(GradientsOf::Weights))
            }
            _ => 0.0,
        };
        (batch_size * n_layers) as f64 * (projections + attention + adapters)
    }

    fn of_logits(self, config: &DecoderConfig, of: Option<GradientsOf<'_>>) -> f64 {
        let logits = 2.0 * (config.d_model * config.vocab_size * self.n_logits) as f64;
        self.batch_size as f64 * logits * passes(of)
    }
}

/// Returns the number of times that the product of a projection is computed.
fn passes(of: Option<GradientsOf<'_>>) -> f64 {
    match of {
        None => 1.0,
        Some(GradientsOf::HiddenStates | GradientsOf::Adapters(_)) => 2.0,
        Some(GradientsOf::Weights) => 3.0,
    }
}

#[cfg(test)]
mod tests {
    use beear_models::{Family, LoraConfig, RopeScaling, Target, TrainedWeights};

    use super::*;

    /// The projections of a layer have 8 x (8 + 8 + 4 + 4) + 3 x 8 x 10 = 432 weights.
    fn config() -> DecoderConfig {
        DecoderConfig {
            family: Family::Llama,
            vocab_size: 11,
            d_model: 8,
            d_ff: 10,
            n_layers: 5,
            n_heads: 4,
            n_kv_heads: 2,
            head_dim: 2,
            max_seq_length: 64,
            norm_epsilon: 1e-5,
            rope_theta: 10_000.0,
            rope_scaling: RopeScaling::None,
            sliding_window: None,
            tied_embeddings: false,
        }
    }

    const READING: Reading =
        Reading { n_layers: 2, batch_size: 7, n_past: 1, n_tokens: 3, n_logits: 1 };

    #[track_caller]
    fn assert_operations(config: &DecoderConfig, of: Option<GradientsOf<'_>>, expected: f64) {
        let found = READING.operations(config, of);
        assert!((found - expected).abs() < 0.5, "{found} {expected}");
    }

    /// 2 x 432 x 3 tokens; pairs 2 + 3 + 4 = 9 at 4 x 4 x 2; 2 x 8 x 11.
    const PROJECTIONS: f64 = 2592.0;
    const ATTENTION: f64 = 288.0;
    const LOGITS: f64 = 176.0;

    #[test]
    fn products_are_counted_by_hand() {
        let config = config();
        let total = |p: f64, a: f64| 7.0 * (2.0 * (p * PROJECTIONS + a * ATTENTION) + p * LOGITS);
        assert_operations(&config, None, total(1.0, 1.0));
        assert_operations(&config, Some(GradientsOf::HiddenStates), total(2.0, 3.0));
        assert_operations(&config, Some(GradientsOf::Weights), total(3.0, 3.0));
    }

    #[test]
    fn training_counts_what_it_trains() {
        let config = config();
        let all = READING.training_operations(&config, &TrainingScope::ALL);
        assert_operations(&config, Some(GradientsOf::Weights), all);

        // Adapters of rank 3 from 8 to 8 and from 8 to 10, in the second of two layers.
        let lora = LoraConfig {
            rank: 3,
            targets: vec![Target::QProj, Target::UpProj],
            ..LoraConfig::default()
        };
        let scope = TrainingScope { weights: TrainedWeights::Lora(lora), layers: Some(1..2) };
        let found = READING.training_operations(&config, &scope);
        let first = PROJECTIONS + ATTENTION;
        let second = 2.0 * PROJECTIONS + 3.0 * ATTENTION + 3.0 * 2.0 * (3.0 * 34.0) * 3.0;
        let expected = 7.0 * (first + second + 2.0 * LOGITS);
        assert!((found - expected).abs() < 0.5, "{found} {expected}");
    }

    #[test]
    fn a_sliding_window_hides_old_keys() {
        // Pairs 2 + 2 + 2 = 6.
        let config = DecoderConfig { sliding_window: Some(2), ..config() };
        assert_operations(&config, None, 7.0 * (2.0 * (2592.0 + 192.0) + 176.0));
    }
}
