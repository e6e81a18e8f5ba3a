//! Activation memory of a forward pass, computed from the shape of the decoder alone.
//!
//! Burn's autodiff saves the inputs of each operation's gradient: both factors of a product whose
//! factors are both tracked, the other factor if one is constant, the argument of `exp` and of
//! powers; nothing for sums, slices and reshapes. One layer on $n = bt$ tokens, with $d$ =
//! `d_model`, $f$ = `d_ff`, $q$ = `n_heads * head_dim`, $k$ = `n_kv_heads * head_dim` and
//! $s = b \cdot$ `n_heads` $\cdot t^2$ scores, saves
//!
//! | part | weights trained | hidden states only |
//! | --- | --- | --- |
//! | two norms: input, normed, scaled | $6nd$ | $2nd$ |
//! | queries, keys, values, their mixture | $2nq + 2nk$ | $nq + 2nk$ |
//! | scores less their maximum, their exponentials, weights | $3s$ | $3s$ |
//! | gate, sigmoid, their product, up, all multiplied | $5nf$ | $4nf$ |
//!
//! Adapters of rank $r$ save the same as gradients of the hidden states, the inputs of the
//! projections with adapters, and $nr$ numbers between the two matrices of each adapter.
//!
//! The inputs of norms and the first two of the scores are f32 or wider, the others have the type
//! of the weights.

use beear_core::Example;

use crate::config::DecoderConfig;
use crate::lora::{LoraConfig, Target};

/// Number of copies of the logits that a log-softmax holds at its peak, besides those saved for
/// gradients.
const SCORING_LOGITS: usize = 2;

/// Count of numbers in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Number of values in the type of the weights.
    pub own: u64,
    /// Number of values in f32 or wider, independent of the type of the weights.
    pub wide: u64,
}

impl Numbers {
    /// Returns the size in bytes for weights of `width` bytes per number.
    #[must_use]
    pub fn bytes(self, width: u64) -> u64 {
        let wide = self.wide.saturating_mul(width.max(4));
        self.own.saturating_mul(width).saturating_add(wide)
    }

    /// Multiplies the counts by `n`.
    #[must_use]
    pub fn times(self, n: usize) -> Self {
        let n = n as u64;
        Self { own: self.own.saturating_mul(n), wide: self.wide.saturating_mul(n) }
    }

    /// Returns the counts that are larger in f32.
    #[must_use]
    pub fn or_more(self, other: Self) -> Self {
        if other.bytes(4) > self.bytes(4) { other } else { self }
    }

    /// Adds two counts.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let Self { own, wide } = other;
        Self { own: self.own.saturating_add(own), wide: self.wide.saturating_add(wide) }
    }
}

/// Shape of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchShape {
    /// Number of rows.
    pub batch_size: usize,
    /// Number of tokens that each row is padded to.
    pub seq_length: usize,
    /// Number of tokens that attention reads, larger than `seq_length` with a prefix cache.
    pub n_keys: usize,
    /// Number of answer tokens of all rows, for which logits are computed.
    pub n_answer: usize,
}

impl BatchShape {
    /// Returns the shape of a right-padded batch of examples; the last token of an answer is not
    /// read.
    #[must_use]
    pub fn of<'a>(examples: impl Iterator<Item = &'a Example>) -> Self {
        let none = Self { batch_size: 0, seq_length: 0, n_keys: 0, n_answer: 0 };
        examples.fold(none, |batch, Example { prompt, answer, .. }| {
            let length = (prompt.len() + answer.len()).saturating_sub(1);
            let seq_length = batch.seq_length.max(length);
            Self {
                batch_size: batch.batch_size + 1,
                seq_length,
                n_keys: seq_length,
                n_answer: batch.n_answer + answer.len(),
            }
        })
    }
}

/// Tensors whose gradients are computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GradientsOf<'a> {
    /// Weights, and hence everything above them.
    Weights,
    /// Adapters beside constant weights.
    Adapters(&'a LoraConfig),
    /// Hidden states; the weights are constants.
    HiddenStates,
}

/// Sizes of the tensors in a forward pass.
struct Parts {
    hidden: u64,
    queries: u64,
    keys: u64,
    mlp: u64,
    scores: u64,
}

/// Multiplies the factors; absurd shapes give a number that exceeds the memory of any machine but
/// whose sums do not overflow.
fn product(factors: &[usize]) -> u64 {
    let product = factors.iter().fold(1_u64, |product, &n| product.saturating_mul(n as u64));
    product.min(u64::MAX / 64)
}

impl DecoderConfig {
    fn parts(&self, batch: BatchShape) -> Parts {
        let BatchShape { batch_size: b, seq_length: t, n_keys, .. } = batch;
        Parts {
            hidden: product(&[b, t, self.d_model]),
            queries: product(&[b, t, self.n_heads, self.head_dim]),
            keys: product(&[b, t, self.n_kv_heads, self.head_dim]),
            mlp: product(&[b, t, self.d_ff]),
            scores: product(&[b, self.n_heads, t, n_keys]),
        }
    }

    /// Returns the numbers that one layer saves for the backward pass, by the table above.
    #[must_use]
    pub fn kept_by_layer(&self, batch: BatchShape, gradients: GradientsOf<'_>) -> Numbers {
        let Parts { hidden, queries, keys, mlp, scores } = self.parts(batch);
        let wide = 2 * hidden + 2 * scores;
        let frozen = queries + 2 * keys + scores + 4 * mlp;
        let own = match gradients {
            GradientsOf::Weights => frozen + 4 * hidden + queries + mlp,
            GradientsOf::Adapters(lora) => frozen + self.kept_by_adapters(batch, lora),
            GradientsOf::HiddenStates => frozen,
        };
        Numbers { own, wide }
    }

    /// Returns the distinct inputs of projections with adapters, and the numbers between an
    /// adapter's matrices.
    fn kept_by_adapters(&self, batch: BatchShape, lora: &LoraConfig) -> u64 {
        let Parts { hidden, queries, mlp, .. } = self.parts(batch);
        let reads = |targets: &[Target], input: u64| {
            if targets.iter().any(|target| lora.targets.contains(target)) { input } else { 0 }
        };
        let thin = product(&[batch.batch_size, batch.seq_length, lora.rank, lora.targets.len()]);
        reads(&[Target::QProj, Target::KProj, Target::VProj], hidden)
            + reads(&[Target::OProj], queries)
            + reads(&[Target::GateProj, Target::UpProj], hidden)
            + reads(&[Target::DownProj], mlp)
            + thin
    }

    /// Returns the numbers that a run of consecutive layers saves once: the cosines and sines of
    /// all heads.
    #[must_use]
    pub fn kept_of_positions(&self, batch: BatchShape) -> Numbers {
        let Parts { queries, keys, .. } = self.parts(batch);
        Numbers { own: 2 * (queries + keys), wide: 0 }
    }

    /// Returns the numbers that the final norm, the unembedding and the log-softmax save: the
    /// hidden states of the answer tokens three times, or once if the weights are constants, and
    /// their logits once.
    #[must_use]
    pub fn kept_by_head(&self, batch: BatchShape, gradients: GradientsOf<'_>) -> Numbers {
        let hidden = product(&[batch.n_answer, self.d_model]);
        let logits = self.logits(batch);
        let own = if gradients == GradientsOf::Weights { 2 * hidden } else { 0 };
        Numbers { own, wide: hidden + logits.wide }
    }

    /// Returns the size of the logits of the answer tokens, in f32 or wider.
    #[must_use]
    pub fn logits(&self, batch: BatchShape) -> Numbers {
        Numbers { own: 0, wide: product(&[batch.n_answer, self.vocab_size]) }
    }

    /// Returns the peak memory of a forward pass without gradients: the hidden states, the tables
    /// of positions, the mask of all heads, and attention or the MLP of one layer.
    #[must_use]
    pub fn needed_by_inference(&self, batch: BatchShape) -> Numbers {
        let Parts { hidden, queries, keys, mlp, scores } = self.parts(batch);
        let stream = Numbers { own: hidden, wide: scores };
        let attention = Numbers { own: queries + 2 * keys, wide: 2 * scores };
        let gate = Numbers { own: hidden + 3 * mlp, wide: 0 };
        gate.or_more(attention).plus(stream).plus(self.kept_of_positions(batch))
    }

    /// Returns the memory of the log-probabilities of the answers besides the weights, without
    /// gradients: the larger of the forward pass and the logits.
    #[must_use]
    pub fn needed_by_scoring(&self, batch: BatchShape) -> Numbers {
        let Parts { hidden, .. } = self.parts(batch);
        let answers =
            Numbers { own: hidden, wide: 0 }.plus(self.logits(batch).times(SCORING_LOGITS));
        self.needed_by_inference(batch).or_more(answers)
    }

    /// Returns the memory besides the weights of reading the tokens `before` a perturbation in
    /// `n_layers` layers, whose keys and values are cached: the hidden states of the `whole` batch,
    /// the cached keys and values, and the pass.
    #[must_use]
    pub fn needed_by_remembering(
        &self,
        whole: BatchShape,
        before: BatchShape,
        n_layers: usize,
    ) -> Numbers {
        let states = |batch| Numbers { own: self.parts(batch).hidden, wide: 0 };
        let n_tokens = before.batch_size.saturating_mul(before.seq_length);
        let cached = self.cached(n_tokens, n_layers);
        self.needed_by_inference(before).plus(states(whole)).plus(states(before)).plus(cached)
    }

    /// Returns the memory besides the weights of continuing `batch_size` prompts of `n_prompt`
    /// tokens by `n_new` tokens: keys and values, and the larger of the pass over the prompts and
    /// the joining of a layer's blocks.
    #[must_use]
    pub fn needed_by_generation(&self, [batch_size, n_prompt, n_new]: [usize; 3]) -> Numbers {
        // The last new token is not read.
        let n_tokens = n_prompt.saturating_add(n_new).saturating_sub(1);
        let n_tokens = self.max_seq_length.min(n_tokens).max(n_prompt);
        let pass = |seq_length, n_keys| {
            let batch = BatchShape { batch_size, seq_length, n_keys, n_answer: batch_size };
            self.needed_by_inference(batch).plus(self.logits(batch))
        };
        let cached = |n_keys, n_layers| self.cached(batch_size.saturating_mul(n_keys), n_layers);
        let read = cached(n_prompt, self.n_layers).plus(pass(n_prompt, n_prompt));
        // Blocks are joined layer by layer, keys before values.
        let joined = Numbers { own: cached(n_tokens, 1).own / 2, wide: 0 };
        let continued = cached(n_tokens, self.n_layers).plus(joined).plus(pass(1, n_tokens));
        read.or_more(continued)
    }

    /// Returns the peak memory of the backward pass through one layer: the gradients of its hidden
    /// states and of the larger of its halves.
    #[must_use]
    pub fn needed_by_backward(&self, batch: BatchShape) -> Numbers {
        let Parts { hidden, .. } = self.parts(batch);
        self.larger_half(batch).plus(Numbers { own: 2 * hidden, wide: 0 })
    }

    /// Returns the peak memory of a step on hidden states with constant weights, either between the
    /// forward and the backward pass or in a layer.
    #[must_use]
    pub fn needed_by_step_on_hidden_states(&self, batch: BatchShape) -> Numbers {
        self.needed_by_backward(batch).or_more(self.logits(batch).times(SCORING_LOGITS))
    }

    /// Returns the peak memory within attention or the MLP, whichever is larger.
    fn larger_half(&self, batch: BatchShape) -> Numbers {
        let Parts { queries, keys, mlp, scores, .. } = self.parts(batch);
        let attention = Numbers { own: queries + 2 * keys, wide: 2 * scores };
        let gate = Numbers { own: 3 * mlp, wide: 0 };
        gate.or_more(attention)
    }

    /// Returns the size of the keys and values of `n_tokens` tokens in each of `n_layers` layers.
    #[must_use]
    pub fn cached(&self, n_tokens: usize, n_layers: usize) -> Numbers {
        let own = product(&[2, n_tokens, self.n_kv_heads, self.head_dim, n_layers]);
        Numbers { own, wide: 0 }
    }

    /// Returns the numbers saved by activation checkpointing: hidden states at all boundaries, and
    /// those of the answers twice.
    #[must_use]
    pub fn boundaries(&self, batch: BatchShape) -> Numbers {
        let Parts { hidden, .. } = self.parts(batch);
        let answers = product(&[2, batch.n_answer, self.d_model]);
        Numbers { own: hidden, wide: 0 }
            .times(self.n_layers + 1)
            .plus(Numbers { own: answers, wide: 0 })
    }

    /// Returns the number of weights of the largest tensor: the embedding, or a projection of the
    /// MLP.
    #[must_use]
    pub fn largest_tensor(&self) -> u64 {
        product(&[self.d_model, self.vocab_size.max(self.d_ff)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::hf_config;

    fn config() -> DecoderConfig {
        let text = r#"{"model_type": "llama", "vocab_size": 11, "hidden_size": 8, "head_dim": 6,
            "intermediate_size": 10, "num_hidden_layers": 3, "num_attention_heads": 4,
            "num_key_value_heads": 2, "max_position_embeddings": 32}"#;
        hf_config::parse(text).unwrap()
    }

    const BATCH: BatchShape = BatchShape { batch_size: 2, seq_length: 5, n_keys: 7, n_answer: 3 };

    #[test]
    fn a_layer_keeps_what_the_table_says() {
        // By hand: n = 10, so nd = 80, nq = 240, nk = 120, nf = 100, s = 2 · 4 · 5 · 7 = 280.
        let trained = config().kept_by_layer(BATCH, GradientsOf::Weights);
        assert_eq!(trained, Numbers { own: 320 + 480 + 240 + 280 + 500, wide: 160 + 560 });
        let frozen = config().kept_by_layer(BATCH, GradientsOf::HiddenStates);
        assert_eq!(frozen, Numbers { own: 240 + 240 + 280 + 400, wide: 160 + 560 });
        let targets = vec![Target::KProj, Target::VProj, Target::DownProj];
        let lora = LoraConfig { rank: 2, targets, ..LoraConfig::default() };
        let adapted = config().kept_by_layer(BATCH, GradientsOf::Adapters(&lora));
        // One input for keys and values, one for down, and three times 10 x 2 between the matrices.
        assert_eq!(adapted.own, frozen.own + 80 + 100 + 60);
        assert_eq!(trained.bytes(4), 4 * (1820 + 720));
        assert_eq!(trained.bytes(2), 2 * 1820 + 4 * 720);
    }

    #[test]
    fn logits_are_those_of_answers() {
        let head = config().kept_by_head(BATCH, GradientsOf::Weights);
        assert_eq!(head, Numbers { own: 48, wide: 24 + 33 });
    }

    #[test]
    fn the_cache_has_a_key_and_a_value_of_every_token_and_layer() {
        assert_eq!(config().cached(5, 3), Numbers { own: 2 * 5 * 12 * 3, wide: 0 });
    }

    #[test]
    fn absurd_shapes_do_not_overflow() {
        let mut config = config();
        (config.d_ff, config.n_heads, config.n_kv_heads) = (usize::MAX, usize::MAX, usize::MAX);
        let kept = config.kept_by_layer(BATCH, GradientsOf::Weights).plus(config.cached(5, 3));
        assert!(kept.bytes(4) > 1 << 60);
        assert!(config.needed_by_inference(BATCH).bytes(4) > 1 << 60);
    }
}
