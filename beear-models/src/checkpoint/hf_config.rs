//! `config.json` of Hugging Face folders: parsing into a [`DecoderConfig`] and writing.

use std::cell::RefCell;

use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::config::{DecoderConfig, Family, RopeScaling};

/// Error of parsing a `config.json`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// The text is not a JSON object.
    #[error("config.json is not a JSON object: {reason}")]
    NotJson {
        /// Message of the parser.
        reason: String,
    },
    /// The architecture is not supported.
    #[error("model type `{model_type}` is not supported: `llama` and `mistral` are")]
    UnknownFamily {
        /// Model type in the file.
        model_type: String,
    },
    /// A value is missing or has the wrong type.
    #[error("config.json: `{key}` is missing or not {expected}")]
    BadValue {
        /// Key of the value.
        key: &'static str,
        /// Expected value.
        expected: &'static str,
    },
    /// A feature of the model is not supported.
    #[error("config.json: `{key}` = `{value}` is not supported")]
    Unsupported {
        /// Key of the feature.
        key: &'static str,
        /// Value of the key.
        value: String,
    },
    /// The weights are quantised.
    #[error("the model is quantised ({method})")]
    Quantised {
        /// Name of the method.
        method: String,
    },
    /// Several values are missing, unsupported or of the wrong type.
    #[error("{}", texts(mistakes))]
    Several {
        /// All mistakes found.
        mistakes: Vec<ConfigError>,
    },
    /// The values are impossible or contradict each other.
    #[error("config.json: {}", problems.join("; "))]
    Contradiction {
        /// All problems found.
        problems: Vec<String>,
    },
}

fn texts(mistakes: &[ConfigError]) -> String {
    mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Parses `config.json`.
///
/// # Errors
///
/// Returns [`ConfigError`], with a variant per mistake: all mistakes of the keys, or else all
/// impossible values.
pub fn parse(text: &str) -> Result<DecoderConfig, ConfigError> {
    let value: Value = serde_json::from_str(text)
        .map_err(|error| ConfigError::NotJson { reason: error.to_string() })?;
    let object = value
        .as_object()
        .ok_or_else(|| ConfigError::NotJson { reason: "another kind of value".to_owned() })?;
    if let Some(quantised) = quantised(object) {
        return Err(quantised);
    }
    let keys = Keys { object, mistakes: RefCell::default() };
    let model_type = object.get("model_type").and_then(Value::as_str).unwrap_or_default();
    let family = match model_type {
        "llama" => Family::Llama,
        "mistral" => Family::Mistral,
        other => return Err(ConfigError::UnknownFamily { model_type: other.to_owned() }),
    };
    keys.refuse_features();
    let n_heads = keys.count("num_attention_heads");
    let d_model = keys.count("hidden_size");
    let default_width = d_model.checked_div(n_heads).unwrap_or(0);
    let config = DecoderConfig {
        family,
        vocab_size: keys.count("vocab_size"),
        d_model,
        d_ff: keys.count("intermediate_size"),
        n_layers: keys.count("num_hidden_layers"),
        n_heads,
        n_kv_heads: keys.optional_count("num_key_value_heads").unwrap_or(match family {
            Family::Llama => n_heads,
            Family::Mistral if object.contains_key("num_key_value_heads") => n_heads,
            Family::Mistral => 8,
        }),
        head_dim: keys.optional_count("head_dim").unwrap_or(default_width),
        max_seq_length: keys.count("max_position_embeddings"),
        norm_epsilon: keys.number(object, "rms_norm_eps").unwrap_or(1e-6),
        rope_theta: keys.rope_theta(),
        rope_scaling: keys.rope_scaling(),
        sliding_window: match family {
            // The default of the config class; null means that there is no window.
            Family::Mistral if !object.contains_key("sliding_window") => Some(4096),
            Family::Mistral => keys.optional_count("sliding_window"),
            Family::Llama => None,
        },
        tied_embeddings: keys.flag("tie_word_embeddings"),
    };
    keys.judge()?;
    let problems = config.problems();
    if problems.is_empty() { Ok(config) } else { Err(ConfigError::Contradiction { problems }) }
}

/// Returns an error if the config describes quantised weights.
fn quantised(object: &Map<String, Value>) -> Option<ConfigError> {
    let settings = ["quantization_config", "compression_config"].map(|key| object.get(key));
    let settings = settings.into_iter().flatten().find_map(Value::as_object)?;
    let method = settings.get("quant_method").and_then(Value::as_str).unwrap_or("of some kind");
    Some(ConfigError::Quantised { method: method.escape_default().to_string() })
}

/// Formats a `config.json` for a new model, which `transformers` can read.
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

/// Reader of the file's keys. A mistake is recorded, and its value is 0 or absent.
struct Keys<'a> {
    object: &'a Map<String, Value>,
    mistakes: RefCell<Vec<ConfigError>>,
}

impl Keys<'_> {
    fn note(&self, mistake: ConfigError) {
        self.mistakes.borrow_mut().push(mistake);
    }

    /// Returns all recorded mistakes as an error.
    fn judge(&self) -> Result<(), ConfigError> {
        let mut mistakes = self.mistakes.take();
        match mistakes.len() {
            0 => Ok(()),
            1 => Err(mistakes.swap_remove(0)),
            _ => Err(ConfigError::Several { mistakes }),
        }
    }

    /// Returns the value of a key as converted by `read`; None if the key is absent or null.
    fn value<T>(
        &self,
        object: &Map<String, Value>,
        (key, expected): (&'static str, &'static str),
        read: impl Fn(&Value) -> Option<T>,
    ) -> Option<T> {
        let value = object.get(key).filter(|value| !value.is_null())?;
        let found = read(value);
        if found.is_none() {
            self.note(ConfigError::BadValue { key, expected });
        }
        found
    }

    fn optional_count(&self, key: &'static str) -> Option<usize> {
        self.value(self.object, (key, "a whole number"), |value| {
            usize::try_from(value.as_u64()?).ok()
        })
    }

    fn count(&self, key: &'static str) -> usize {
        if self.object.get(key).is_none_or(Value::is_null) {
            self.note(ConfigError::BadValue { key, expected: "a whole number" });
        }
        self.optional_count(key).unwrap_or(0)
    }

    fn flag(&self, key: &'static str) -> bool {
        self.value(self.object, (key, "true or false"), Value::as_bool).unwrap_or(false)
    }

    fn number(&self, object: &Map<String, Value>, key: &'static str) -> Option<f64> {
        self.value(object, (key, "a number"), Value::as_f64)
    }

    fn refuse_features(&self) {
        for key in ["attention_bias", "mlp_bias"] {
            if self.flag(key) {
                self.note(ConfigError::Unsupported { key, value: "true".to_owned() });
            }
        }
        match self.object.get("hidden_act").and_then(Value::as_str) {
            None | Some("silu") => {}
            Some(other) => {
                self.note(ConfigError::Unsupported { key: "hidden_act", value: other.to_owned() });
            }
        }
    }

    /// Returns `rope_parameters` (transformers 5), or the older `rope_scaling`.
    fn rope(&self) -> Option<&Map<String, Value>> {
        let object = |key| self.object.get(key).and_then(Value::as_object);
        object("rope_parameters").or_else(|| object("rope_scaling"))
    }

    fn rope_theta(&self) -> f64 {
        // The newer form is the one that transformers 5 reads, whatever stands beside it.
        let inside = self.rope().and_then(|rope| self.number(rope, "rope_theta"));
        inside.or_else(|| self.number(self.object, "rope_theta")).unwrap_or(10_000.0)
    }

    fn rope_scaling(&self) -> RopeScaling {
        let Some(rope) = self.rope() else { return RopeScaling::None };
        let kind = rope.get("rope_type").or_else(|| rope.get("type")).and_then(Value::as_str);
        let need = |key| {
            if rope.get(key).is_none_or(Value::is_null) {
                self.note(ConfigError::BadValue { key, expected: "a number" });
            }
            self.number(rope, key).unwrap_or(0.0)
        };
        match kind {
            None | Some("default") => RopeScaling::None,
            Some("linear") => RopeScaling::Linear { factor: need("factor") },
            Some("llama3") => RopeScaling::Llama3 {
                factor: need("factor"),
                low_freq_factor: need("low_freq_factor"),
                high_freq_factor: need("high_freq_factor"),
                original_max_seq_length: need("original_max_position_embeddings") as usize,
            },
            Some(other) => {
                let (key, value) = ("rope_type", other.to_owned());
                self.note(ConfigError::Unsupported { key, value });
                RopeScaling::None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutated::near;

    /// Published shape of Llama-3.1-8B, with the keys that the parser reads.
    const LLAMA_31: &str = r#"{"model_type": "llama", "vocab_size": 128256, "hidden_size": 4096,
        "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "max_position_embeddings": 131072, "rms_norm_eps": 1e-05,
        "rope_theta": 500000.0, "hidden_act": "silu", "rope_scaling": {"factor": 8.0,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192, "rope_type": "llama3"}}"#;

    /// Small Mistral with every key that the parser reads and Llama does not have.
    const MISTRAL: &str = r#"{"model_type": "mistral", "vocab_size": 7, "hidden_size": 8,
        "intermediate_size": 9, "num_hidden_layers": 1, "num_attention_heads": 4, "head_dim": 2,
        "num_key_value_heads": 2, "max_position_embeddings": 16, "sliding_window": null, "rope_parameters": {"type": "linear",
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
    fn rope_parameters_count_where_an_old_theta_lies_beside_them() {
        let text =
            MISTRAL.replace("\"rope_parameters\"", "\"rope_theta\": 3.0, \"rope_parameters\"");
        assert!((parse(&text).unwrap().rope_theta - 1e6).abs() < 1e-6);
    }

    #[test]
    fn keys_that_are_absent_have_the_defaults_of_their_class() {
        let text = MISTRAL.replace("\"sliding_window\": null, ", "");
        assert_eq!(parse(&text).unwrap().sliding_window, Some(4096));
        assert_eq!(parse(MISTRAL).unwrap().sliding_window, None);
    }

    #[test]
    fn quantised_weights_are_named_before_any_shape() {
        for (settings, method) in [
            (r#""quantization_config": {"quant_method": "gptq"}"#, "gptq"),
            (r#""compression_config": {"format": "x"}"#, "of some kind"),
        ] {
            let error = parse(&format!(r#"{{"model_type": "llama", {settings}}}"#)).unwrap_err();
            assert_eq!(error, ConfigError::Quantised { method: method.to_owned() });
        }
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
        assert!(matches!(broken("layers\": 32", "layers\": \"32\""), ConfigError::BadValue { .. }));
        assert!(matches!(broken("heads\": 8", "heads\": 5"), ConfigError::Contradiction { .. }));
        assert!(matches!(parse("[]"), Err(ConfigError::NotJson { .. })));
        assert!(matches!(parse("{"), Err(ConfigError::NotJson { .. })));
    }

    #[test]
    fn every_mistake_of_the_keys_is_named() {
        let text = LLAMA_31.replace("\"vocab_size\": 128256, ", "").replace("silu", "gelu");
        let error = parse(&text.replace("\"factor\": 8.0", "\"factor\": \"8\"")).unwrap_err();
        let said = error.to_string();
        for key in ["vocab_size", "hidden_act", "factor"] {
            assert!(said.contains(&format!("`{key}`")), "{said}");
        }
        assert!(matches!(&error, ConfigError::Several { mistakes } if mistakes.len() == 3));
    }

    #[test]
    fn numbers_that_make_every_logit_nan_are_refused() {
        let parsed = |from: &str, to: &str| {
            assert!(LLAMA_31.contains(from), "{from}");
            parse(&LLAMA_31.replace(from, to))
        };
        let impossible = [
            ("\"rope_theta\": 500000.0", "\"rope_theta\": 0", "rope_theta"),
            ("\"rope_theta\": 500000.0", "\"rope_theta\": -5", "rope_theta"),
            // Frequencies of 1e295 radians per token.
            ("\"rope_theta\": 500000.0", "\"rope_theta\": 1e-300", "rotary angle"),
            ("1e-05", "-1e-05", "norm_epsilon"),
            ("1e-05", "0", "norm_epsilon"),
            // 0 in f32.
            ("1e-05", "1e-60", "norm_epsilon"),
            ("1e-05", "1e60", "norm_epsilon"),
            ("\"factor\": 8.0", "\"factor\": 0.0", "factor"),
            ("\"factor\": 8.0", "\"factor\": -8.0", "factor"),
            ("\"factor\": 8.0", "\"factor\": 1e-300", "rotary angle"),
            ("\"low_freq_factor\": 1.0", "\"low_freq_factor\": 0.0", "low_freq_factor"),
            ("\"low_freq_factor\": 1.0", "\"low_freq_factor\": 4.0", "low_freq_factor"),
            ("\"high_freq_factor\": 4.0", "\"high_freq_factor\": -4.0", "high_freq_factor"),
            ("_embeddings\": 8192", "_embeddings\": -1", "original_max_seq_length"),
        ];
        for (from, to, name) in impossible {
            let said = parsed(from, to).unwrap_err().to_string();
            assert!(said.contains(name), "{to}: {said}");
        }
        assert!(parsed("\"rope_theta\": 500000.0", "\"rope_theta\": 0.5").is_ok());
        // JSON has no infinite number, and 1e999 is not valid JSON either.
        for text in ["1e999", "NaN", "Infinity", "-Infinity"] {
            assert!(matches!(parsed("500000.0", text), Err(ConfigError::NotJson { .. })), "{text}");
        }
        let all = LLAMA_31.replace("500000.0", "0").replace("1e-05", "-1").replace("8.0", "0");
        let error = parse(&all).unwrap_err();
        assert!(matches!(&error, ConfigError::Contradiction { problems } if problems.len() == 3));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in near(&[LLAMA_31, MISTRAL])) {
            if let Ok(config) = parse(&text) {
                let _ = config.n_weights();
                // Equal to an ulp: the JSON parser may round numbers with more digits than a double
                // differently.
                proptest::prop_assert!(parse(&render(&config, [0, 1, 2])).is_ok());
            }
        }
    }
}
