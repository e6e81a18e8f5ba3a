//! Names of the weight files: a single file, or the shards of an index.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use serde::Deserialize;

use super::CheckpointError;

pub(super) const SINGLE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";

#[derive(Deserialize)]
struct Index {
    weight_map: std::collections::BTreeMap<String, String>,
}

/// Returns the names of the weight files in `dir`.
pub(super) fn shards(dir: &Path) -> Result<Vec<String>, CheckpointError> {
    // An index beside the single file is left from an earlier save, as `transformers` reads it.
    if dir.join(SINGLE).exists() {
        return Ok(vec![SINGLE.to_owned()]);
    }
    let index = dir.join(INDEX);
    if index.exists() {
        let text = beear_input::read_to_string(&index).map_err(CheckpointError::io(&index))?;
        return shard_names(&text);
    }
    let entries = std::fs::read_dir(dir).map_err(CheckpointError::io(dir))?;
    let names: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.file_name()).collect();
    let any = |extensions: &[&str]| {
        let mut found = names.iter().filter_map(|name| Path::new(name).extension());
        found.any(|found| extensions.iter().any(|e| found.eq_ignore_ascii_case(e)))
    };
    let path = dir.to_owned();
    Err(if any(&["safetensors"]) {
        CheckpointError::NoIndex { path }
    } else if any(&["gguf"]) {
        CheckpointError::Gguf { path }
    } else if any(&["bin", "pt", "pth", "ckpt"]) {
        CheckpointError::Pickle { path }
    } else {
        CheckpointError::NoWeights { path }
    })
}

/// Parses a `model.safetensors.index.json` and returns the distinct names of its weight files,
/// which are plain names of files beside the index.
///
/// # Errors
///
/// Returns [`CheckpointError::MalformedIndex`], or [`CheckpointError::EscapingShard`] if a name
/// leaves the folder.
pub fn shard_names(text: &str) -> Result<Vec<String>, CheckpointError> {
    let malformed = |reason: String| CheckpointError::MalformedIndex { reason };
    let index: Index = serde_json::from_str(text).map_err(|e| malformed(e.to_string()))?;
    let names: BTreeSet<String> = index.weight_map.into_values().collect();
    if names.is_empty() {
        return Err(malformed("it names no file".to_owned()));
    }
    for name in &names {
        let mut parts = Path::new(name).components();
        let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
        if !plain || name.contains(['\\', '\0', '/']) {
            return Err(CheckpointError::EscapingShard { name: name.escape_default().to_string() });
        }
    }
    Ok(names.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutated::near;

    const TWO_SHARDS: &str = r#"{"metadata": {"total_size": 9}, "weight_map":
        {"a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors"}}"#;

    fn found(files: &[&str]) -> Result<Vec<String>, CheckpointError> {
        let dir = tempfile::tempdir().unwrap();
        for name in files {
            std::fs::write(dir.path().join(name), TWO_SHARDS).unwrap();
        }
        shards(dir.path())
    }

    #[test]
    fn a_single_file_counts_before_an_index_of_an_earlier_save() {
        assert_eq!(found(&[INDEX, SINGLE, "1.safetensors"]).unwrap(), [SINGLE]);
        assert_eq!(found(&[INDEX, "1.safetensors"]).unwrap(), ["1.safetensors", "2.safetensors"]);
    }

    #[test]
    fn a_folder_without_weights_is_named_for_what_it_holds() {
        let shards = found(&["model-00001-of-00002.safetensors", "a.gguf"]).unwrap_err();
        assert!(matches!(shards, CheckpointError::NoIndex { .. }), "{shards}");
        let gguf = found(&["model-Q4_K_M.GGUF", "config.json"]).unwrap_err();
        assert!(matches!(gguf, CheckpointError::Gguf { .. }), "{gguf}");
        let pickle = found(&["pytorch_model.bin"]).unwrap_err();
        assert!(matches!(pickle, CheckpointError::Pickle { .. }), "{pickle}");
        let nothing = found(&["config.json"]).unwrap_err();
        assert!(matches!(nothing, CheckpointError::NoWeights { .. }), "{nothing}");
    }

    #[test]
    fn shards_are_listed_once() {
        assert_eq!(shard_names(TWO_SHARDS).unwrap(), ["1.safetensors", "2.safetensors"]);
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for name in ["../x", "/etc/x", "a/../../x", "..", "a/b", "a\\\\b", ""] {
            let text = format!(r#"{{"weight_map": {{"a": "{name}"}}}}"#);
            let error = shard_names(&text).unwrap_err();
            assert!(matches!(error, CheckpointError::EscapingShard { .. }), "{name}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in near(&[TWO_SHARDS])) {
            for name in shard_names(&text).into_iter().flatten() {
                let at = Path::new("model").join(&name);
                proptest::prop_assert_eq!(at.parent(), Some(Path::new("model")), "{}", name);
            }
        }
    }
}
