//! Keys and values of the tokens already read, so that generation reads each token once.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// Keys and values of one layer, `[batch_size, n_kv_heads, n_keys, head_dim]` each.
#[derive(Clone, Debug)]
pub struct LayerCache<B: Backend> {
    stored: Option<(Tensor<B, 4>, Tensor<B, 4>)>,
}

impl<B: Backend> LayerCache<B> {
    /// Adds the newest tokens and returns all.
    pub(crate) fn append(
        &mut self,
        keys: Tensor<B, 4>,
        values: Tensor<B, 4>,
    ) -> (Tensor<B, 4>, Tensor<B, 4>) {
        let all = match self.stored.take() {
            Some((old_keys, old_values)) => {
                (Tensor::cat(vec![old_keys, keys], 2), Tensor::cat(vec![old_values, values], 2))
            }
            None => (keys, values),
        };
        self.stored = Some(all.clone());
        all
    }
}

/// The cache of every layer.
#[derive(Clone, Debug)]
pub struct KvCache<B: Backend> {
    pub(crate) layers: Vec<LayerCache<B>>,
}

impl<B: Backend> KvCache<B> {
    /// An empty cache for `n_layers` layers.
    #[must_use]
    pub fn new(n_layers: usize) -> Self {
        Self { layers: vec![LayerCache { stored: None }; n_layers] }
    }
}
