//! Shapes of models with random weights, for benches and examples.

use beear_models::{DecoderConfig, Family, RopeScaling};

/// A Llama of `[vocab_size, d_model, d_ff]` and `[n_layers, n_heads, n_kv_heads]` that reads 512 tokens.
#[must_use]
pub fn llama(
    [vocab_size, d_model, d_ff]: [usize; 3],
    [n_layers, n_heads, n_kv_heads]: [usize; 3],
) -> DecoderConfig {
    DecoderConfig {
        family: Family::Llama,
        vocab_size,
        d_model,
        d_ff,
        n_layers,
        n_heads,
        n_kv_heads,
        head_dim: d_model / n_heads,
        max_seq_length: 512,
        norm_epsilon: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        sliding_window: None,
        tied_embeddings: false,
    }
}

/// The demo's shape, 0.3 million weights.
#[must_use]
pub fn narrow() -> DecoderConfig {
    llama([200, 64, 168], [6, 4, 2])
}

/// 7 million weights: wide enough for matrix products to decide.
#[must_use]
pub fn wide() -> DecoderConfig {
    llama([2048, 256, 688], [8, 4, 2])
}
