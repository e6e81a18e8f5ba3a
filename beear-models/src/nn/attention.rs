//! Grouped-query causal self-attention.
//!
//! Ainslie et al., [GQA](https://arxiv.org/abs/2305.13245): `n_heads / n_kv_heads` query heads
//! share a key and value head. Keys and values are never copied per query head: the queries of a
//! group are laid out as one longer sequence.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;

use crate::config::DecoderConfig;
use crate::nn::kv_cache::{KvBlock, LayerCache, scores, weighted_sum};
use crate::nn::mask::Positions;
use crate::nn::norm::at_least_f32;
use crate::nn::projection::{Projection, project};

/// Self-attention of one layer. Linear weights are `[d_input, d_output]`, the transpose of what
/// checkpoints store.
#[derive(Module, Debug)]
pub struct Attention<B: Backend> {
    /// Query projection, `d_model` to `n_heads * head_dim`.
    pub q_proj: Projection<B>,
    /// Key projection, `d_model` to `n_kv_heads * head_dim`.
    pub k_proj: Projection<B>,
    /// Value projection, `d_model` to `n_kv_heads * head_dim`.
    pub v_proj: Projection<B>,
    /// Output projection, `n_heads * head_dim` to `d_model`.
    pub o_proj: Projection<B>,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
}

impl<B: Backend> Attention<B> {
    /// Creates a layer with random weights.
    #[must_use]
    pub fn new(config: &DecoderConfig, device: &B::Device) -> Self {
        let queries = config.n_heads * config.head_dim;
        let keys = config.n_kv_heads * config.head_dim;
        Self {
            q_proj: Projection::new([config.d_model, queries], device),
            k_proj: Projection::new([config.d_model, keys], device),
            v_proj: Projection::new([config.d_model, keys], device),
            o_proj: Projection::new([queries, config.d_model], device),
            n_heads: config.n_heads,
            n_kv_heads: config.n_kv_heads,
            head_dim: config.head_dim,
        }
    }

    /// Computes attention from the tokens of `hidden` to themselves and to the tokens in `cache`,
    /// to which they are appended.
    ///
    /// # Shapes
    ///
    /// - `hidden`, `output`: `[batch_size, seq_length, d_model]`
    #[must_use]
    pub fn forward(
        &self,
        hidden: Tensor<B, 3>,
        positions: &Positions<B>,
        cache: Option<&mut LayerCache<B>>,
    ) -> Tensor<B, 3> {
        let [batch_size, seq_length, _] = hidden.dims();
        let (n_heads, n_kv_heads, head_dim) = (self.n_heads, self.n_kv_heads, self.head_dim);
        // Heads are separate from here on, and contiguous: the following operations and the
        // backward pass read them in this order.
        let split = |x: Tensor<B, 3>, n| {
            x.reshape([batch_size, seq_length, n, head_dim]).swap_dims(1, 2).reshape([
                batch_size * n,
                seq_length,
                head_dim,
            ])
        };
        let join = |x: Tensor<B, 3>, n| x.reshape([batch_size, n, seq_length, head_dim]);

        let queries = split(project(&self.q_proj, hidden.clone()), n_heads); // [b·h, t, d]
        let keys = split(project(&self.k_proj, hidden.clone()), n_kv_heads); // [b·kv, t, d]
        let values = split(project(&self.v_proj, hidden), n_kv_heads); // [b·kv, t, d]
        let queries = join(positions.queries.rotate(queries), n_heads); // [b, h, t, d]
        let keys = join(positions.keys.rotate(keys), n_kv_heads); // [b, kv, t, d]
        let values = join(values, n_kv_heads); // [b, kv, t, d]
        let new = KvBlock::new(keys, values);
        let blocks = match cache {
            Some(cache) => cache.append(new.clone()),
            None => std::slice::from_ref(&new),
        };

        let grouped = [batch_size, n_kv_heads, n_heads / n_kv_heads * seq_length, head_dim];
        let scores = scores(queries.reshape(grouped), blocks); // [b, kv, g·t, keys]
        let [_, _, _, n_keys] = scores.dims();
        let dtype = scores.dtype();
        let scores = at_least_f32(scores)
            .div_scalar((head_dim as f64).sqrt())
            .reshape([batch_size, n_heads, seq_length, n_keys]);
        let weights = softmax(scores + positions.bias.clone(), 3).cast(dtype).reshape([
            batch_size,
            n_kv_heads,
            n_heads / n_kv_heads * seq_length,
            n_keys,
        ]);
        let mixed = weighted_sum(weights, blocks) // [b, kv, g·t, d]
            .reshape([batch_size, n_heads, seq_length, head_dim])
            .swap_dims(1, 2) // [b, t, h, d]
            .reshape([batch_size, seq_length, n_heads * head_dim]);
        project(&self.o_proj, mixed)
    }
}
