//! Attention masks, added to the scores: causal, sliding window and padding.

use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Tensor};

use crate::config::DecoderConfig;
use crate::nn::rope::RotaryTable;

/// Bias of the score of a masked key. Infinite, because its exponential is 0 at once, while that of
/// a number far below 0 is many times slower on CPUs. Every token sees itself, padding too, so no
/// row is fully masked.
const HIDDEN: f64 = f64::NEG_INFINITY;

/// Positional inputs of attention, computed once for all layers.
#[derive(Clone, Debug)]
pub struct Positions<B: Backend> {
    /// Rotations of the queries.
    pub(crate) queries: RotaryTable<B>,
    /// Rotations of the keys of the same tokens.
    pub(crate) keys: RotaryTable<B>,
    /// Bias of the scores, `[batch_size, n_heads, n_queries, n_keys]`, in f32 or wider. Repeated
    /// for every head like [`RotaryTable`]; the scores of one layer have the same size.
    pub(crate) bias: Tensor<B, 4>,
}

impl<B: Backend> Positions<B> {
    /// Computes the positions of the last `n_queries` tokens among all keys. A token's position is
    /// the number of real tokens before it, independent of the side of the padding.
    ///
    /// # Shapes
    ///
    /// - `mask_pad`: `[batch_size, n_keys]`, true where the token is padding
    #[must_use]
    pub fn new(config: &DecoderConfig, mask_pad: &Tensor<B, 2, Bool>, n_queries: usize) -> Self {
        let [batch_size, n_keys] = mask_pad.dims();
        let n_before = n_keys - n_queries;
        let real = mask_pad.clone().bool_not().float();
        let positions = real.cumsum(1).sub_scalar(1.0).clamp_min(0.0);
        let queries = positions.clone().narrow(1, n_before, n_queries);

        let device = mask_pad.device();
        let future = Tensor::<B, 2, Bool>::tril_mask([n_queries, n_keys], n_before as i64, &device);
        let shape = [batch_size, n_queries, n_keys];
        let padding = mask_pad.clone().unsqueeze_dim::<3>(1).expand(shape);
        let mut hidden = future.unsqueeze::<3>().expand(shape).bool_or(padding);
        if let Some(window) = config.sliding_window.filter(|window| *window < n_keys) {
            let distance = queries.clone().unsqueeze_dim::<3>(2) - positions.unsqueeze_dim::<3>(1);
            hidden = hidden.bool_or(distance.greater_equal_elem(window as f64));
        }
        let others = Tensor::<B, 2, Bool>::diag_mask([n_queries, n_keys], n_before as i64, &device);
        let hidden = hidden.bool_and(others.unsqueeze::<3>().expand(shape));
        let bias = Tensor::zeros(shape, &device).mask_fill(hidden, HIDDEN).unsqueeze_dim(1);
        let bias = Tensor::repeat_dim(bias, 1, config.n_heads);
        Self {
            queries: RotaryTable::new(config, queries.clone(), config.n_heads),
            keys: RotaryTable::new(config, queries, config.n_kv_heads),
            bias,
        }
    }
}
