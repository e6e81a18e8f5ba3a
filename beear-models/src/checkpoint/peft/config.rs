//! `adapter_config.json` of a PEFT folder: parsing and writing.
//!
//! Unsupported features are refused if they are on, known or not: every key that is not listed here
//! must be empty (`null`, `false`, or an empty list, object or text).

use serde_json::{Value, json};
use thiserror::Error;

/// Error of parsing an `adapter_config.json`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AdapterConfigError {
    /// The text is not a JSON object.
    #[error("adapter_config.json is not a JSON object: {reason}")]
    NotJson {
        /// Message of the parser.
        reason: String,
    },
    /// A value is missing or has the wrong type.
    #[error("adapter_config.json: `{key}` is missing or not {expected}")]
    BadValue {
        /// Key of the value.
        key: &'static str,
        /// Expected value.
        expected: &'static str,
    },
    /// A feature is not supported.
    #[error("adapter_config.json: `{key}` = `{value}` is not supported")]
    Unsupported {
        /// Key of the feature.
        key: String,
        /// Value of the key.
        value: String,
    },
}

/// Name of the base model in a PEFT folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseName {
    /// `base_model_name_or_path`: a folder, or a repository of a hub.
    pub name: String,
    /// `revision` of the repository.
    pub revision: Option<String>,
}

/// Projections that `target_modules` selects.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Targets {
    /// Names, or ends of names.
    Named(Vec<String>),
    /// Regular expression of Python, which a whole name matches.
    Matching(String),
    /// All linear maps but the unembedding: `all-linear`.
    All,
}

/// Config of the adapters in a PEFT folder.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AdapterConfig {
    /// Base model of the adapters.
    pub(crate) base: BaseName,
    /// Rank $r$ and scale $\alpha$.
    pub(crate) size: (usize, f64),
    /// Projections with adapters.
    pub(crate) targets: Targets,
    /// Layers with adapters; None for all.
    pub(crate) layers: Option<Vec<usize>>,
}

/// Keys that the parser reads.
const READ: [&str; 7] = [
    "base_model_name_or_path",
    "layers_to_transform",
    "lora_alpha",
    "peft_type",
    "r",
    "revision",
    "target_modules",
];

/// Keys without effect on a trained adapter, whatever their value.
const WITHOUT_EFFECT: [&str; 8] = [
    "auto_mapping",
    "inference_mode",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "runtime_config",
    "task_type",
];

/// Key and value that only name the list of layers, which is always the same here.
const LAYERS: (&str, &str) = ("layers_pattern", "layers");

/// Parses `adapter_config.json`.
///
/// # Errors
///
/// Returns [`AdapterConfigError`], with a variant per mistake.
pub(super) fn parse(text: &str) -> Result<AdapterConfig, AdapterConfigError> {
    let not_json = |reason: String| AdapterConfigError::NotJson { reason };
    let value: Value = serde_json::from_str(text).map_err(|e| not_json(e.to_string()))?;
    let object = value.as_object().ok_or_else(|| not_json("another kind of value".to_owned()))?;
    for (key, value) in object {
        if !is_supported(key, value) {
            let (key, value) = (key.escape_default().to_string(), value.to_string());
            return Err(AdapterConfigError::Unsupported { key, value });
        }
    }
    let bad = |key, expected| AdapterConfigError::BadValue { key, expected };
    let get = |key: &str| object.get(key).unwrap_or(&Value::Null);
    if get("peft_type") != "LORA" {
        return Err(bad("peft_type", "`LORA`"));
    }
    let rank = count(get("r")).filter(|rank| *rank > 0);
    let alpha = get("lora_alpha").as_f64().filter(|alpha| alpha.is_finite());
    let base = get("base_model_name_or_path").as_str().filter(|base| !base.is_empty());
    let base = base.ok_or_else(|| bad("base_model_name_or_path", "a folder or a repository"))?;
    let revision = match get("revision") {
        Value::Null => None,
        Value::String(revision) => Some(revision.clone()).filter(|revision| !revision.is_empty()),
        _ => return Err(bad("revision", "a text")),
    };
    let targets = match get("target_modules") {
        Value::String(name) if name == "all-linear" => Some(Targets::All),
        Value::String(pattern) if !pattern.is_empty() => Some(Targets::Matching(pattern.clone())),
        names => list(names, |v| v.as_str().map(str::to_owned)).map(Targets::Named),
    };
    let layers = match get("layers_to_transform") {
        Value::Null => None,
        Value::Number(_) => Some(count(get("layers_to_transform")).map(|layer| vec![layer])),
        layers => Some(list(layers, count)),
    };
    Ok(AdapterConfig {
        base: BaseName { name: base.to_owned(), revision },
        size: (
            rank.ok_or_else(|| bad("r", "a positive whole number"))?,
            alpha.ok_or_else(|| bad("lora_alpha", "a number"))?,
        ),
        targets: targets.ok_or_else(|| bad("target_modules", "a list of names or a pattern"))?,
        layers: match layers {
            None => None,
            Some(layers) => Some(
                layers.ok_or_else(|| bad("layers_to_transform", "a layer or a list of layers"))?,
            ),
        },
    })
}

/// Formats an `adapter_config.json` that PEFT can read.
pub(super) fn render(config: &AdapterConfig) -> String {
    let (rank, alpha) = config.size;
    // PEFT's own files have whole numbers here; floats are accepted as well.
    let alpha =
        if alpha.fract() == 0.0 && alpha.abs() < 1e15 { json!(alpha as i64) } else { json!(alpha) };
    let targets = match &config.targets {
        Targets::Named(names) => json!(names),
        Targets::Matching(pattern) => json!(pattern),
        Targets::All => json!("all-linear"),
    };
    let value = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": config.base.name,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "target_modules": targets,
        "layers_to_transform": config.layers,
        "layers_pattern": null,
        "modules_to_save": null,
        "bias": "none",
        "fan_in_fan_out": false,
        "init_lora_weights": true,
        "inference_mode": true,
        "use_dora": false,
        "use_rslora": false,
        "rank_pattern": {},
        "alpha_pattern": {},
        "revision": config.base.revision,
    });
    format!("{value:#}\n")
}

/// True if `key` is read, has no effect, or switches nothing on.
fn is_supported(key: &str, value: &Value) -> bool {
    match key {
        "bias" => value == "none",
        // Other initialisations change the weights of the base model.
        "init_lora_weights" => value.is_boolean() || value == "gaussian" || value.is_null(),
        _ if READ.contains(&key) || WITHOUT_EFFECT.contains(&key) => true,
        _ if key == LAYERS.0 && (value == LAYERS.1 || *value == json!([LAYERS.1])) => true,
        _ => is_nothing(value),
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(_) => false,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
    }
}

fn count(value: &Value) -> Option<usize> {
    usize::try_from(value.as_u64()?).ok()
}

fn list<T>(value: &Value, item: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    value.as_array()?.iter().map(item).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::mutated::near;

    /// Config written by PEFT 0.18.
    const WRITTEN: &str = r#"{"alora_invocation_tokens": null, "alpha_pattern": {}, "arrow_config": null,
        "auto_mapping": null, "base_model_name_or_path": "base", "bias": "none", "corda_config": null,
        "ensure_weight_tying": false, "eva_config": null, "exclude_modules": null,
        "fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": true,
        "layer_replication": null, "layers_pattern": null, "layers_to_transform": null,
        "loftq_config": {}, "lora_alpha": 16, "lora_bias": false, "lora_dropout": 0.05,
        "megatron_config": null, "megatron_core": "megatron.core", "modules_to_save": null,
        "peft_type": "LORA", "peft_version": "0.18.0", "qalora_group_size": 16, "r": 8,
        "rank_pattern": {}, "revision": null, "target_modules": ["q_proj", "mlp.up_proj"],
        "target_parameters": null, "task_type": "CAUSAL_LM", "trainable_token_indices": null,
        "use_dora": false, "use_qalora": false, "use_rslora": false}"#;

    fn config() -> AdapterConfig {
        AdapterConfig {
            base: BaseName { name: "base".to_owned(), revision: None },
            size: (8, 16.0),
            targets: Targets::Named(vec!["q_proj".to_owned(), "mlp.up_proj".to_owned()]),
            layers: None,
        }
    }

    /// Parses `WRITTEN` with `key` set to `value`.
    fn with(key: &str, value: Value) -> Result<AdapterConfig, AdapterConfigError> {
        let mut object: Map<String, Value> = serde_json::from_str(WRITTEN).unwrap();
        object.insert(key.to_owned(), value);
        parse(&Value::Object(object).to_string())
    }

    #[test]
    fn a_plain_adapter_is_read() {
        assert_eq!(parse(WRITTEN).unwrap(), config());
        let layers = |value: Value| with("layers_to_transform", value).unwrap().layers;
        assert_eq!(layers(json!(2)), Some(vec![2]));
        assert_eq!(layers(json!([1, 3])), Some(vec![1, 3]));
    }

    #[test]
    fn what_is_written_is_read_again() {
        for (alpha, layers) in [(16.0, None), (-116.0, None), (0.5, Some(vec![1, 2]))] {
            let revision = layers.as_ref().map(|_| "v1".to_owned());
            let base = BaseName { name: "org/base".to_owned(), revision };
            let config = AdapterConfig { base, size: (8, alpha), layers, ..config() };
            assert_eq!(parse(&render(&config)).unwrap(), config);
        }
    }

    #[test]
    fn features_that_would_change_the_numbers_are_refused() {
        let features = [
            ("use_dora", json!(true)),
            ("use_rslora", json!(true)),
            ("lora_bias", json!(true)),
            ("fan_in_fan_out", json!(true)),
            ("bias", json!("all")),
            ("modules_to_save", json!(["lm_head"])),
            ("rank_pattern", json!({"q_proj": 4})),
            ("alpha_pattern", json!({"q_proj": 4})),
            ("trainable_token_indices", json!([1])),
            ("layer_replication", json!([[0, 2]])),
            ("init_lora_weights", json!("pissa")),
            ("layers_pattern", json!("h")),
            ("a_feature_of_next_year", json!(1)),
        ];
        for (feature, value) in features {
            let error = with(feature, value).unwrap_err();
            let named =
                matches!(&error, AdapterConfigError::Unsupported { key, .. } if key == feature);
            assert!(named, "{error}");
        }
    }

    #[test]
    fn what_is_missing_or_of_another_kind_is_named() {
        let broken = [
            ("peft_type", json!("IA3")),
            ("r", json!(0)),
            ("r", json!("8")),
            ("lora_alpha", Value::Null),
            ("base_model_name_or_path", json!("")),
            ("target_modules", json!("")),
            ("layers_to_transform", json!([-1])),
            ("revision", json!(1)),
        ];
        for (name, value) in broken {
            let error = with(name, value).unwrap_err();
            let named = matches!(&error, AdapterConfigError::BadValue { key, .. } if *key == name);
            assert!(named, "{error}");
        }
        assert!(matches!(parse("[]"), Err(AdapterConfigError::NotJson { .. })));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in near(&[WRITTEN])) {
            if let Ok(config) = parse(&text) {
                proptest::prop_assert_eq!(parse(&render(&config)).unwrap(), config);
            }
        }
    }
}
