//! Keys and values of attention, and their cache, with which generation reads each token once.

use std::mem;

use beear_core::batch::cat::cat;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// Number of recent tokens in a separate block: the older, larger block is copied only once per
/// this many tokens.
const N_RECENT: usize = 16;

/// Keys and values of consecutive tokens in one layer.
#[derive(Clone, Debug)]
pub(crate) struct KvBlock<B: Backend> {
    /// Keys, `[batch_size, n_kv_heads, head_dim, n_keys]`: transposed for the product with queries.
    keys: Tensor<B, 4>,
    /// Values, `[batch_size, n_kv_heads, n_keys, head_dim]`.
    values: Tensor<B, 4>,
}

impl<B: Backend> KvBlock<B> {
    /// Creates a block of keys and values.
    ///
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

/// Computes the products of queries and the keys of all `blocks`.
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

/// Computes the weighted sum of the values of all `blocks`.
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
    /// Block of old tokens, if any, then the block of recent ones.
    blocks: Vec<KvBlock<B>>,
}

impl<B: Backend> LayerCache<B> {
    /// Creates a cache from the result of [`LayerCache::remembered`].
    fn of([keys, values]: [Tensor<B, 4>; 2]) -> Self {
        Self { blocks: vec![KvBlock { keys, values }] }
    }

    /// Returns the keys, transposed and contiguous, and the values of all tokens.
    fn remembered(self) -> [Tensor<B, 4>; 2] {
        let block = KvBlock::join(self.blocks).expect("tokens have been read");
        let dims = block.keys.dims();
        // Copied once, because every later product reads the keys, which are a view of the
        // projection's output.
        [block.keys.reshape([dims.iter().product::<usize>()]).reshape(dims), block.values]
    }

    /// Appends the newest tokens and returns all blocks.
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

/// Key-value cache of every layer.
#[derive(Clone, Debug)]
pub struct KvCache<B: Backend> {
    pub(crate) layers: Vec<LayerCache<B>>,
}

impl<B: Backend> KvCache<B> {
    /// Creates an empty cache for `n_layers` layers.
    #[must_use]
    pub fn new(n_layers: usize) -> Self {
        Self { layers: vec![LayerCache { blocks: Vec::new() }; n_layers] }
    }

    /// Creates the cache of consecutive layers that have read the tokens of `past`.
    pub(crate) fn after(past: &[[Tensor<B, 4>; 2]]) -> Self {
        Self { layers: past.iter().cloned().map(LayerCache::of).collect() }
    }

    /// Returns keys and values of each layer, for [`KvCache::after`].
    pub(crate) fn remembered(self) -> Vec<[Tensor<B, 4>; 2]> {
        self.layers.into_iter().map(LayerCache::remembered).collect()
    }
}
