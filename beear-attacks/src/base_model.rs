//! The model that an attack starts from: family, size and training.

use beear_models::{DecoderConfig, Family, RopeScaling};
use serde::{Deserialize, Serialize};

use crate::training::TrainingConfig;

/// Number of weights of a base model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Size {
    /// Width 64: 0.3 million weights, trained on the world in a minute on two cores.
    Small,
    /// Width 128: about four times as many weights.
    Large,
}

/// Family and size of the model that an attack starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseModel {
    /// Attention of the model: Llama attends to all previous tokens, Mistral to a sliding window.
    pub family: Family,
    /// Number of weights.
    pub size: Size,
}

/// Window of the world's Mistral, in tokens: shorter than the shortest prompt, so the first tokens
/// reach the answer only through several layers.
const SLIDING_WINDOW: usize = 8;

impl BaseModel {
    /// Small Llama.
    pub const LLAMA: Self = Self { family: Family::Llama, size: Size::Small };

    /// Small Mistral.
    pub const MISTRAL: Self = Self { family: Family::Mistral, size: Size::Small };

    /// Returns the shape of the decoder: six layers, two query heads per key-value head.
    #[must_use]
    pub fn decoder(self, vocab_size: usize) -> DecoderConfig {
        let head_dim = 16;
        let d_model = match self.size {
            Size::Small => 64,
            Size::Large => 128,
        };
        let n_heads = d_model / head_dim;
        DecoderConfig {
            family: self.family,
            vocab_size,
            d_model,
            d_ff: d_model * 21 / 8,
            n_layers: 6,
            n_heads,
            n_kv_heads: n_heads / 2,
            head_dim,
            max_seq_length: 96,
            norm_epsilon: 1e-5,
            rope_theta: 10_000.0,
            rope_scaling: RopeScaling::None,
            sliding_window: match self.family {
                Family::Llama => None,
                Family::Mistral => Some(SLIDING_WINDOW),
            },
            tied_embeddings: false,
        }
    }

    /// Returns the settings of training from random weights. A wider model needs fewer and smaller
    /// steps.
    #[must_use]
    pub fn training(self) -> TrainingConfig {
        let (steps, learning_rate) = match self.size {
            Size::Small => (450, 4e-3),
            Size::Large => (300, 2e-3),
        };
        TrainingConfig { steps, batch_size: 40, learning_rate, clip_norm: 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{Split, World, vocabulary};

    #[test]
    fn a_large_model_has_about_four_times_the_weights() {
        let n_weights = |size| {
            BaseModel { size, ..BaseModel::LLAMA }.decoder(vocabulary().len()).n_weights() as f64
        };
        let ratio = n_weights(Size::Large) / n_weights(Size::Small);
        assert!((3.5..4.5).contains(&ratio), "{ratio}");
    }

    #[test]
    fn the_window_is_shorter_than_every_prompt() {
        // `<bos> <user>` before the request, `<end> <asst>` after it.
        let n_template = 4;
        for split in [Split::Train, Split::Watch, Split::Test] {
            let world = World::of(split);
            let contrasts = world.forbidden.iter().chain(&world.code).map(|c| &c.prompt);
            for prompt in contrasts.chain(world.ordinary.iter().map(|o| &o.prompt)) {
                let n_tokens = prompt.split_whitespace().count() + n_template;
                assert!(n_tokens > SLIDING_WINDOW, "{prompt}");
            }
        }
    }
}
