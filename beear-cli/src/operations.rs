//! How many floating-point operations the work of a decoder takes, counted from its shape.
//!
//! A multiplication and the addition after it are two. One layer reads $n$ tokens with
//! $$2 P n + 4 h d\, q$$
//! operations: `P` weights in its projections, `h` heads of width `d`, and `q` pairs of a query and a key that the
//! causal mask lets it see, whatever else an implementation computes and masks away. Each position whose logits are
//! needed takes $2 d_\text{model} V$ more. Backward, a projection takes as much again for the gradient of its
//! input, and as much again for that of its weights where they learn; attention takes twice as much again. The
//! embedding, norms, softmax, rotary, activations, losses and the optimiser are not counted.

use beear_models::DecoderConfig;
use serde::Serialize;

/// The formula in one line, for whoever reads a number made with it.
pub(crate) const FORMULA: &str = "forward 2 x projection weights x tokens, plus 4 x heads x head width per pair of \
    query and visible key, plus 2 x width x vocabulary per position with logits; backward 1 x the projections for \
    their inputs, 1 x more where weights learn, 2 x attention; nothing else is counted";

/// What is differentiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gradient {
    /// Nothing: forward only.
    None,
    /// Hidden states, with the weights frozen.
    Inputs,
    /// Hidden states and weights.
    All,
}

impl Gradient {
    /// How often the products of a projection are taken, and those of attention.
    fn passes(self) -> [f64; 2] {
        match self {
            Self::None => [1.0, 1.0],
            Self::Inputs => [2.0, 3.0],
            Self::All => [3.0, 3.0],
        }
    }
}

/// Tokens read by layers, the same number in every row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Reading {
    pub(crate) n_layers: usize,
    pub(crate) batch_size: usize,
    /// Tokens of a row that are remembered: attended to, not read.
    pub(crate) n_past: usize,
    /// Tokens of a row that are read.
    pub(crate) n_tokens: usize,
    /// Positions of a row whose logits are needed.
    pub(crate) n_logits: usize,
}

impl Reading {
    /// Floating-point operations of the reading.
    pub(crate) fn operations(self, config: &DecoderConfig, gradient: Gradient) -> f64 {
        let Self { n_layers, batch_size, n_past, n_tokens, n_logits } = self;
        let [projection_passes, attention_passes] = gradient.passes();
        let longest = config.sliding_window.unwrap_or(usize::MAX);
        let pairs: usize = (n_past..n_past + n_tokens).map(|seen| (seen + 1).min(longest)).sum();
        let projections = 2.0 * config.n_layer_projection_weights() as f64 * n_tokens as f64;
        let attention = 4.0 * (config.n_heads * config.head_dim * pairs) as f64;
        let logits = 2.0 * (config.d_model * config.vocab_size * n_logits) as f64;
        let layers = projections * projection_passes + attention * attention_passes;
        batch_size as f64 * (n_layers as f64 * layers + logits * projection_passes)
    }
}

#[cfg(test)]
mod tests {
    use beear_models::{Family, RopeScaling};

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

    #[track_caller]
    fn assert_operations(config: &DecoderConfig, gradient: Gradient, expected: f64) {
        let reading = Reading { n_layers: 2, batch_size: 7, n_past: 1, n_tokens: 3, n_logits: 1 };
        let found = reading.operations(config, gradient);
        assert!((found - expected).abs() < 0.5, "{found} {expected}");
    }

    #[test]
    fn products_are_counted_by_hand() {
        // 2 x 432 x 3 tokens; pairs 2 + 3 + 4 = 9 at 4 x 4 x 2; logits 2 x 8 x 11.
        let (projections, attention, logits) = (2592.0, 288.0, 176.0);
        let config = config();
        let total = |p: f64, a: f64| 7.0 * (2.0 * (p * projections + a * attention) + p * logits);
        assert_operations(&config, Gradient::None, total(1.0, 1.0));
        assert_operations(&config, Gradient::Inputs, total(2.0, 3.0));
        assert_operations(&config, Gradient::All, total(3.0, 3.0));
    }

    #[test]
    fn a_sliding_window_hides_old_keys() {
        // Pairs 2 + 2 + 2 = 6.
        let config = DecoderConfig { sliding_window: Some(2), ..config() };
        assert_operations(&config, Gradient::None, 7.0 * (2.0 * (2592.0 + 192.0) + 176.0));
    }
}
