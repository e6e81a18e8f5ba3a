//! Keys and values: what attention reads, and what generation keeps so that it reads each token once.

use std::mem;

use beear_core::batch::cat::cat;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// Tokens that are kept apart from those before them: the many old ones are copied once per so many.
const N_RECENT: usize = 16;

/// Keys and values of consecutive tokens in one layer.
#[derive(Clone, Debug)]
pub(crate) struct KvBlock<B: Backend> {
    /// `[batch_size, n_kv_heads, head_dim, n_keys]`: transposed, as the product with queries reads them.
    keys: Tensor<B, 4>,
    /// `[batch_size, n_kv_heads, n_keys, head_dim]`
    values: Tensor<B, 4>,
}

impl<B: Backend> KvBlock<B> {
    /// # Shapes
    ///
    /// - `keys`, `values`: `[batch_size, n_kv_heads, n_keys, head_dim]`
    pub(crate) fn new(keys: Tensor<B, 4>, values: Tensor<B, 4>) -> Self {
        Self { keys: keys.swap_dims(2, 3), values }
    }

    fn n_keys(&self) -> usize {
        let [_, _, n_keys, _] = self.values.dims();
        n_keys
    }

    fn join(blocks: Vec<Self>) -> Option<Self> {
        let (keys, values): (Vec<_>, Vec<_>) =
            blocks.into_iter().map(|block| (block.keys, block.values)).unzip();
        (!keys.is_empty()).then(|| Self { keys: cat(keys, 3), values: cat(values, 2) })
    }
}

/// The products of queries and the keys of all `blocks`.
///
/// # Shapes
///
/// - `queries`: `[batch_size, n_kv_heads, n_queries, head_dim]`
/// - `output`: `[batch_size, n_kv_heads, n_queries, n_keys]`
pub(crate) fn scores<B: Backend>(queries: Tensor<B, 4>, blocks: &[KvBlock<B>]) -> Tensor<B, 4> {
    let scores = |block: &KvBlock<B>| queries.clone().matmul(block.keys.clone());
    match blocks {
        [block] => scores(block),
        blocks => cat(blocks.iter().map(scores).collect(), 3),
    }
}

/// The sum of the values of all `blocks`, weighted.
///
/// # Shapes
///
/// - `weights`: `[batch_size, n_kv_heads, n_queries, n_keys]`
/// - `output`: `[batch_size, n_kv_heads, n_queries, head_dim]`
///
/// # Panics
///
/// Panics if there is no block.
pub(crate) fn weighted_sum<B: Backend>(
    weights: Tensor<B, 4>,
    blocks: &[KvBlock<B>],
) -> Tensor<B, 4> {
    if let [block] = blocks {
        return weights.matmul(block.values.clone());
    }
    let mut start = 0;
    let sums = blocks.iter().map(|block| {
        let weights = weights.clone().narrow(3, start, block.n_keys());
        start += block.n_keys();
        weights.matmul(block.values.clone())
    });
    sums.reduce(|sum, next| sum + next).expect("a token attends to itself")
}

/// Keys and values of one layer.
#[derive(Clone, Debug)]
pub struct LayerCache<B: Backend> {
    /// Those of old tokens, if any, then those of recent ones.
    blocks: Vec<KvBlock<B>>,
}

impl<B: Backend> LayerCache<B> {
    /// What [`LayerCache::remembered`] gave.
    fn of([keys, values]: [Tensor<B, 4>; 2]) -> Self {
        Self { blocks: vec![KvBlock { keys, values }] }
    }

    /// Keys, transposed and contiguous, and values of all tokens.
    fn remembered(self) -> [Tensor<B, 4>; 2] {
        let block = KvBlock::join(self.blocks).expect("tokens have been read");
        let dims = block.keys.dims();
        // Every later product reads the keys, which are a view of what the projection wrote.
        [block.keys.reshape([dims.iter().product::<usize>()]).reshape(dims), block.values]
    }

    /// Adds the newest tokens and returns all.
    pub(crate) fn append(&mut self, new: KvBlock<B>) -> &[KvBlock<B>] {
        let mut blocks = mem::take(&mut self.blocks);
        let recent = blocks.pop_if(|last| last.n_keys() < N_RECENT);
        blocks.extend(KvBlock::join(recent.into_iter().chain([new]).collect()));
        if blocks.len() > 2 {
            let recent = blocks.pop();
            blocks = KvBlock::join(blocks).into_iter().chain(recent).collect();
        }
        self.blocks = blocks;
        &self.blocks
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
        Self { layers: vec![LayerCache { blocks: Vec::new() }; n_layers] }
    }

    /// The cache of consecutive layers that have read some tokens.
    pub(crate) fn after(past: &[[Tensor<B, 4>; 2]]) -> Self {
        Self { layers: past.iter().cloned().map(LayerCache::of).collect() }
    }

    /// Keys and values of each layer, for [`KvCache::after`].
    pub(crate) fn remembered(self) -> Vec<[Tensor<B, 4>; 2]> {
        self.layers.into_iter().map(LayerCache::remembered).collect()
    }
}
