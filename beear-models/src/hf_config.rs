//! `config.json` of Hugging Face folders, in and out of our words.

use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::config::{DecoderConfig, Family, RopeScaling};

/// Why a `config.json` describes no model we run.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// The text is not a JSON object.
    #[error("config.json is not a JSON object: {reason}")]
    NotJson {
        /// What the parser said.
        reason: String,
    },
    /// Another architecture.
    #[error("model type `{model_type}` is not supported: `llama` and `mistral` are")]
    UnknownFamily {
        /// What the file says.
        model_type: String,
    },
    /// A value is missing or of the wrong kind.
    #[error("config.json: `{key}` is missing or not {expected}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// What it should hold.
        expected: &'static str,
    },
    /// A feature of the family that we do not run.
    #[error("config.json: `{key}` = `{value}` is not supported")]
    Unsupported {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// The values contradict each other.
    #[error("config.json: {}", problems.join("; "))]
    Contradiction {
        /// Every problem found.
        problems: Vec<String>,
    },
}

/// Reads `config.json`.
///
/// # Errors
///
/// [`ConfigError`], a variant per mistake.
pub fn parse(text: &str) -> Result<DecoderConfig, ConfigError> {
    let value: Value = serde_json::from_str(text)
        .map_err(|error| ConfigError::NotJson { reason: error.to_string() })?;
    let object = value
        .as_object()
        .ok_or_else(|| ConfigError::NotJson { reason: "another kind of value".to_owned() })?;
    let keys = Keys(object);
    let model_type = object.get("model_type").and_then(Value::as_str).unwrap_or_default();
    let family = match model_type {
        "llama" => Family::Llama,
        "mistral" => Family::Mistral,
        other => return Err(ConfigError::UnknownFamily { model_type: other.to_owned() }),
    };
    keys.refuse_features()?;
    let n_heads = keys.count("num_attention_heads")?;
    let d_model = keys.count("hidden_size")?;
    let default_width = d_model.checked_div(n_heads).unwrap_or(0);
    let config = DecoderConfig {
        family,
        vocab_size: keys.count("vocab_size")?,
        d_model,
        d_ff: keys.count("intermediate_size")?,
        n_layers: keys.count("num_hidden_layers")?,
        n_heads,
        n_kv_heads: keys.optional_count("num_key_value_heads")?.unwrap_or(n_heads),
        head_dim: keys.optional_count("head_dim")?.unwrap_or(default_width),
        max_seq_length: keys.count("max_position_embeddings")?,
        norm_epsilon: number(object, "rms_norm_eps")?.unwrap_or(1e-6),
        rope_theta: keys.rope_theta()?,
        rope_scaling: keys.rope_scaling()?,
        sliding_window: match family {
            Family::Mistral => keys.optional_count("sliding_window")?,
            Family::Llama => None,
        },
        tied_embeddings: keys.flag("tie_word_embeddings")?,
    };
    let problems = config.problems();
    if problems.is_empty() { Ok(config) } else { Err(ConfigError::Contradiction { problems }) }
}

/// Writes a `config.json` that `transformers` reads, for a new model.
#[must_use]
pub fn render(config: &DecoderConfig, [pad, bos, eos]: [u32; 3]) -> String {
    let (architecture, model_type) = match config.family {
        Family::Llama => ("LlamaForCausalLM", "llama"),
        Family::Mistral => ("MistralForCausalLM", "mistral"),
    };
    let rope_scaling = match config.rope_scaling {
        RopeScaling::None => Value::Null,
        RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_seq_length,
        } => {
            json!({"rope_type": "llama3", "factor": factor, "low_freq_factor": low_freq_factor,
                   "high_freq_factor": high_freq_factor,
                   "original_max_position_embeddings": original_max_seq_length})
        }
    };
    let mut value = json!({
        "architectures": [architecture], "model_type": model_type, "hidden_act": "silu",
        "vocab_size": config.vocab_size, "hidden_size": config.d_model,
        "intermediate_size": config.d_ff, "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads, "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim, "max_position_embeddings": config.max_seq_length,
        "rms_norm_eps": config.norm_epsilon, "rope_theta": config.rope_theta,
        "rope_scaling": rope_scaling, "tie_word_embeddings": config.tied_embeddings,
        "attention_bias": false, "torch_dtype": "float32",
        "pad_token_id": pad, "bos_token_id": bos, "eos_token_id": eos,
    });
    if config.family == Family::Mistral {
        value["sliding_window"] = json!(config.sliding_window);
    }
    format!("{value:#}\n")
}

struct Keys<'a>(&'a Map<String, Value>);

impl Keys<'_> {
    fn optional_count(&self, key: &'static str) -> Result<Option<usize>, ConfigError> {
        let bad = ConfigError::BadValue { key, expected: "a whole number" };
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
                Some(count) => Ok(Some(count)),
                None => Err(bad),
            },
        }
    }

    fn count(&self, key: &'static str) -> Result<usize, ConfigError> {
        let missing = ConfigError::BadValue { key, expected: "a whole number" };
        self.optional_count(key)?.ok_or(missing)
    }

    fn flag(&self, key: &'static str) -> Result<bool, ConfigError> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(false),
            Some(value) => {
                value.as_bool().ok_or(ConfigError::BadValue { key, expected: "true or false" })
            }
        }
    }

    fn refuse_features(&self) -> Result<(), ConfigError> {
        for key in ["attention_bias", "mlp_bias"] {
            if self.flag(key)? {
                return Err(ConfigError::Unsupported { key, value: "true".to_owned() });
            }
        }
        match self.0.get("hidden_act").and_then(Value::as_str) {
            None | Some("silu") => Ok(()),
            Some(other) => {
                Err(ConfigError::Unsupported { key: "hidden_act", value: other.to_owned() })
            }
        }
    }

    /// The newer `rope_parameters` (transformers 5), else the older `rope_scaling`.
    fn rope(&self) -> Option<&Map<String, Value>> {
        let object = |key| self.0.get(key).and_then(Value::as_object);
        object("rope_parameters").or_else(|| object("rope_scaling"))
    }

    fn rope_theta(&self) -> Result<f64, ConfigError> {
        if let Some(theta) = number(self.0, "rope_theta")? {
            return Ok(theta);
        }
        let inside = self.rope().map(|rope| number(rope, "rope_theta")).transpose()?;
        Ok(inside.flatten().unwrap_or(10_000.0))
    }

    fn rope_scaling(&self) -> Result<RopeScaling, ConfigError> {
        let Some(rope) = self.rope() else { return Ok(RopeScaling::None) };
        let kind = rope.get("rope_type").or_else(|| rope.get("type")).and_then(Value::as_str);
        let need =
            |key| number(rope, key)?.ok_or(ConfigError::BadValue { key, expected: "a number" });
        match kind {
            None | Some("default") => Ok(RopeScaling::None),
            Some("linear") => Ok(RopeScaling::Linear { factor: need("factor")? }),
            Some("llama3") => Ok(RopeScaling::Llama3 {
                factor: need("factor")?,
                low_freq_factor: need("low_freq_factor")?,
                high_freq_factor: need("high_freq_factor")?,
                original_max_seq_length: need("original_max_position_embeddings")? as usize,
            }),
            Some(other) => {
                Err(ConfigError::Unsupported { key: "rope_type", value: other.to_owned() })
            }
        }
    }
}

fn number(object: &Map<String, Value>, key: &'static str) -> Result<Option<f64>, ConfigError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            value.as_f64().map(Some).ok_or(ConfigError::BadValue { key, expected: "a number" })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutated::near;

    /// The published shape of Llama-3.1-8B, the keys we read.
    const LLAMA_31: &str = r#"{"model_type": "llama", "vocab_size": 128256, "hidden_size": 4096,
        "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "max_position_embeddings": 131072, "rms_norm_eps": 1e-05,
        "rope_theta": 500000.0, "hidden_act": "silu", "rope_scaling": {"factor": 8.0,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192, "rope_type": "llama3"}}"#;

    /// A small Mistral with every key that we read and Llama has not.
    const MISTRAL: &str = r#"{"model_type": "mistral", "vocab_size": 7, "hidden_size": 8,
        "intermediate_size": 9, "num_hidden_layers": 1, "num_attention_heads": 4, "head_dim": 2,
        "max_position_embeddings": 16, "sliding_window": null, "rope_parameters": {"type": "linear",
        "factor": 2.0, "rope_theta": 1e6}, "tie_word_embeddings": true, "attention_bias": false,
        "eos_token_id": [1, 2]}"#;

    #[test]
    fn llama_3_1_is_read() {
        let config = parse(LLAMA_31).unwrap();
        assert_eq!((config.head_dim, config.n_kv_heads), (128, 8));
        assert_eq!(
            config.rope_scaling,
            RopeScaling::Llama3 {
                factor: 8.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_seq_length: 8192
            }
        );
    }

    #[test]
    fn the_newer_rope_parameters_are_read() {
        let text = LLAMA_31
            .replace("\"rope_theta\": 500000.0, ", "")
            .replace("\"rope_scaling\": {", "\"rope_parameters\": {\"rope_theta\": 7.0, ");
        let config = parse(&text).unwrap();
        assert!((config.rope_theta - 7.0).abs() < 1e-12);
        assert!(matches!(config.rope_scaling, RopeScaling::Llama3 { .. }));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut config = parse(LLAMA_31).unwrap();
        assert_eq!(parse(&render(&config, [0, 1, 2])).unwrap(), config);
        config.family = Family::Mistral;
        config.sliding_window = Some(4096);
        config.head_dim = 96;
        config.rope_scaling = RopeScaling::Linear { factor: 2.0 };
        assert_eq!(parse(&render(&config, [0, 1, 2])).unwrap(), config);
    }

    #[test]
    fn every_mistake_has_its_error() {
        let broken = |from: &str, to: &str| parse(&LLAMA_31.replace(from, to)).unwrap_err();
        assert!(matches!(broken("\"llama\"", "\"gpt2\""), ConfigError::UnknownFamily { .. }));
        assert!(matches!(broken("llama3", "yarn"), ConfigError::Unsupported { .. }));
        assert!(matches!(broken("silu", "gelu"), ConfigError::Unsupported { .. }));
        assert!(matches!(broken("32,", "\"32\","), ConfigError::BadValue { .. }));
        assert!(matches!(broken("heads\": 8", "heads\": 5"), ConfigError::Contradiction { .. }));
        assert!(matches!(parse("[]"), Err(ConfigError::NotJson { .. })));
        assert!(matches!(parse("{"), Err(ConfigError::NotJson { .. })));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in near(&[LLAMA_31, MISTRAL])) {
            if let Ok(config) = parse(&text) {
                let _ = config.n_weights();
                // Equal to an ulp: JSON's reader may round numbers of more digits than a double has otherwise.
                proptest::prop_assert!(parse(&render(&config, [0, 1, 2])).is_ok());
            }
        }
    }
}
