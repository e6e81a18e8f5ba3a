//! Shape of a decoder; `hf_config` reads it from a checkpoint's `config.json`.

use beear_core::DecoderSize;
use serde::{Deserialize, Serialize};

/// Supported families of decoders. They differ in configuration only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Llama 2, 3, 3.1 and 3.2.
    Llama,
    /// Mistral v0.1 to v0.3.
    Mistral,
}

/// Scaling of the rotary frequencies for contexts longer than the pre-training's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RopeScaling {
    /// Frequencies as trained.
    None,
    /// All frequencies divided by `factor`.
    Linear {
        /// Ratio of the new to the old context.
        factor: f64,
    },
    /// Llama 3.1's scheme: low frequencies divided, high ones kept, a ramp between.
    Llama3 {
        /// Ratio by which the lowest frequencies are divided.
        factor: f64,
        /// Wavelengths above `original_max_seq_length / low_freq_factor` are divided.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_seq_length / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context length of the pre-training, in tokens.
        original_max_seq_length: usize,
    },
}

/// Shape of a Llama or Mistral decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecoderConfig {
    /// Family, which decides only the model's name in `config.json`.
    pub family: Family,
    /// Number of token ids.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Width of the gated MLP.
    pub d_ff: usize,
    /// Number of decoder layers.
    pub n_layers: usize,
    /// Number of query heads.
    pub n_heads: usize,
    /// Number of key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of one head; `n_heads * head_dim` may differ from `d_model`.
    pub head_dim: usize,
    /// Longest sequence the model accepts, in tokens.
    pub max_seq_length: usize,
    /// Epsilon added to the mean square under the root of `RMSNorm`.
    pub norm_epsilon: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Stretching of the rotary frequencies.
    pub rope_scaling: RopeScaling,
    /// Width of the attention window: a token sees itself and the `sliding_window - 1` tokens
    /// before it; `None` for all.
    pub sliding_window: Option<usize>,
    /// True if the unembedding is the transposed embedding.
    pub tied_embeddings: bool,
}

impl DecoderConfig {
    /// Returns the sizes that the method's presets depend on.
    #[must_use]
    pub fn size(&self) -> DecoderSize {
        DecoderSize { n_layers: self.n_layers, d_model: self.d_model }
    }

    /// Returns the number of weights, saturated for absurd shapes.
    #[must_use]
    pub fn n_weights(&self) -> usize {
        let product = |a: usize, b: usize| a.saturating_mul(b);
        let n_vocabularies = if self.tied_embeddings { 1 } else { 2 };
        product(n_vocabularies, product(self.vocab_size, self.d_model))
            .saturating_add(product(self.n_layers, self.n_layer_weights()))
            .saturating_add(self.d_model)
    }

    /// Returns the number of weights of one layer.
    #[must_use]
    pub fn n_layer_weights(&self) -> usize {
        self.n_layer_projection_weights().saturating_add(self.d_model.saturating_mul(2))
    }

    /// Returns the number of weights of the projections of one layer, which are all but the norms.
    #[must_use]
    pub fn n_layer_projection_weights(&self) -> usize {
        let product = |a: usize, b: usize| a.saturating_mul(b);
        let queries = product(self.n_heads, self.head_dim);
        let keys = product(self.n_kv_heads, self.head_dim);
        let attention = product(self.d_model, queries.saturating_add(keys).saturating_mul(2));
        attention.saturating_add(product(3, product(self.d_model, self.d_ff)))
    }

    /// Lists all contradictions in words; empty if the shape can be built.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let sizes = [
            (self.vocab_size, "vocab_size"),
            (self.d_model, "d_model"),
            (self.d_ff, "d_ff"),
            (self.n_layers, "n_layers"),
            (self.n_heads, "n_heads"),
            (self.n_kv_heads, "n_kv_heads"),
            (self.head_dim, "head_dim"),
            (self.max_seq_length, "max_seq_length"),
        ];
        let empty = sizes.iter().filter(|(size, _)| *size == 0);
        let mut problems: Vec<String> = empty.map(|(_, name)| format!("{name} is 0")).collect();
        if self.n_kv_heads > 0 && !self.n_heads.is_multiple_of(self.n_kv_heads) {
            let (n_heads, n_kv_heads) = (self.n_heads, self.n_kv_heads);
            problems.push(format!("{n_heads} heads do not share {n_kv_heads} key-value heads"));
        }
        if !self.head_dim.is_multiple_of(2) {
            problems.push(format!("rotary embeddings need an even head_dim: {}", self.head_dim));
        }
        if self.sliding_window == Some(0) {
            problems.push("sliding_window is 0".to_owned());
        }
        // An f32 norm with epsilon 0 divides a hidden state of zeros by 0.
        if !is_positive(f64::from(self.norm_epsilon as f32)) {
            problems.push(format!("norm_epsilon is no positive f32: {}", self.norm_epsilon));
        }
        problems.extend(self.rotary_problems());
        problems
    }

    /// Lists the values that make the rotary embeddings NaN or infinite.
    fn rotary_problems(&self) -> Vec<String> {
        let numbers: &[(&str, f64)] = match &self.rope_scaling {
            RopeScaling::None => &[],
            RopeScaling::Linear { factor } => &[("the rope scaling's factor", *factor)],
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_seq_length,
            } => &[
                ("the rope scaling's factor", *factor),
                ("low_freq_factor", *low_freq_factor),
                ("high_freq_factor", *high_freq_factor),
                ("original_max_seq_length", *original_max_seq_length as f64),
            ],
        };
        let numbers = [&[("rope_theta", self.rope_theta)], numbers].concat();
        let wrong = numbers.iter().filter(|(_, number)| !is_positive(*number));
        let mut problems: Vec<String> =
            wrong.map(|(name, number)| format!("{name} is no positive number: {number}")).collect();
        if let RopeScaling::Llama3 { low_freq_factor: low, high_freq_factor: high, .. } =
            self.rope_scaling
            && low >= high
        {
            problems.push(format!("low_freq_factor {low} is not below high_freq_factor {high}"));
        }
        let angle = self.highest_rotary_frequency() * self.max_seq_length as f64;
        if problems.is_empty() && !(angle as f32).is_finite() {
            let length = self.max_seq_length;
            problems
                .push(format!("the rotary angle of position {length} is no finite f32: {angle:e}"));
        }
        problems
    }

    /// Returns the radians per position of the fastest-turning pair of coordinates, or an upper
    /// bound.
    fn highest_rotary_frequency(&self) -> f64 {
        let last_pair = self.head_dim.saturating_sub(2) as f64 / self.head_dim.max(1) as f64;
        let unscaled = self.rope_theta.powf(-last_pair).max(1.0);
        match self.rope_scaling {
            RopeScaling::None => unscaled,
            RopeScaling::Linear { factor } | RopeScaling::Llama3 { factor, .. } => {
                unscaled / factor.min(1.0)
            }
        }
    }
}

fn is_positive(number: f64) -> bool {
    number.is_finite() && number > 0.0
}
