//! Files of a repository that a model needs, and the check that a folder has them.

use std::ffi::OsStr;
use std::path::Path;

use beear_models::CheckpointError;
use beear_models::checkpoint::shard_names;

use super::HubError;

/// Part of a model that is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needed {
    /// The shape only.
    Config,
    /// All of the model.
    Everything,
}

const CONFIG: &str = "config.json";
const ADAPTER_CONFIG: &str = "adapter_config.json";
const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";
const WEIGHTS: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";
const TOKENIZER: &str = "tokenizer.json";

/// Files beside the weights, except those of the tokenizer.
const BESIDE: [&str; 5] = [
    CONFIG,
    "generation_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
];

/// Prefix and suffixes of the tokenizer's files.
const TOKENIZERS: (&str, [&str; 2]) = ("tokenizer", [".json", ".model"]);

/// Content of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Model,
    Adapters,
}

impl Kind {
    pub(super) fn of(files: &[String]) -> Self {
        if has(files, ADAPTER_CONFIG) { Self::Adapters } else { Self::Model }
    }
}

/// Returns the small files of a repository.
///
/// # Errors
///
/// [`HubError::NoFile`] if it has no `config.json`.
pub(super) fn small(
    repository: &str,
    files: &[String],
    needed: Needed,
) -> Result<Vec<String>, HubError> {
    if Kind::of(files) == Kind::Model && !has(files, CONFIG) {
        let (repository, file) = (repository.to_owned(), CONFIG.to_owned());
        return Err(HubError::NoFile { repository, file });
    }
    let is_needed = |file: &str| match (Kind::of(files), needed) {
        (Kind::Adapters, _) => file == ADAPTER_CONFIG,
        (Kind::Model, Needed::Config) => file == CONFIG,
        (Kind::Model, Needed::Everything) => {
            let (start, ends) = TOKENIZERS;
            let is_tokenizer = file.starts_with(start) && ends.iter().any(|e| file.ends_with(e));
            BESIDE.contains(&file) || file == INDEX || (is_tokenizer && !file.contains('/'))
        }
    };
    Ok(files.iter().filter(|file| is_needed(file)).cloned().collect())
}

/// Returns the weight files of a repository whose small files are in `folder`.
///
/// # Errors
///
/// [`CheckpointError::Pickle`] or [`CheckpointError::NoWeights`] if it has no supported ones;
/// another error if the index names none or a file outside the folder; [`HubError::NoFile`] if the
/// index names a file that is not there.
pub(super) fn weights(
    repository: &str,
    files: &[String],
    folder: &Path,
) -> anyhow::Result<Vec<String>> {
    let single = match Kind::of(files) {
        Kind::Adapters => ADAPTER_WEIGHTS,
        Kind::Model if has(files, INDEX) => {
            let path = folder.join(INDEX);
            let text = beear_input::read_to_string(&path)
                .map_err(|source| HubError::Unreadable { path, source })?;
            let names = shard_names(&text)?;
            return match names.iter().find(|name| !has(files, name)) {
                None => Ok(names),
                Some(file) => {
                    let (repository, file) = (repository.to_owned(), file.clone());
                    Err(HubError::NoFile { repository, file }.into())
                }
            };
        }
        Kind::Model => WEIGHTS,
    };
    if has(files, single) {
        return Ok(vec![single.to_owned()]);
    }
    let path = repository.into();
    let is_pickle = |file: &String| {
        let extension = Path::new(file).extension().map(OsStr::to_ascii_lowercase);
        extension.is_some_and(|e| ["bin", "pt", "pth", "ckpt"].iter().any(|known| e == *known))
    };
    let error = if files.iter().any(is_pickle) {
        CheckpointError::Pickle { path }
    } else {
        CheckpointError::NoWeights { path }
    };
    Err(error.into())
}

/// Returns true if a folder of the cache has all files that are needed.
pub(super) fn is_whole(folder: &Path, needed: Needed) -> bool {
    let is_there = |file: &str| folder.join(file).is_file();
    match needed {
        Needed::Config => is_there(CONFIG) || is_there(ADAPTER_CONFIG),
        Needed::Everything if is_there(ADAPTER_CONFIG) => is_there(ADAPTER_WEIGHTS),
        Needed::Everything => {
            let shards = match beear_input::read_to_string(folder.join(INDEX)) {
                Ok(text) => shard_names(&text).is_ok_and(|names| names.iter().all(|n| is_there(n))),
                Err(_) => is_there(WEIGHTS),
            };
            is_there(CONFIG) && is_there(TOKENIZER) && shards
        }
    }
}

/// Rejects a list with a file outside the folder.
///
/// # Errors
///
/// [`HubError::EscapingFile`].
pub(super) fn refuse_escaping(files: &[String]) -> Result<(), HubError> {
    let escapes = |file: &&String| {
        let is_plain = |part: &str| !part.is_empty() && part != "." && part != "..";
        file.contains(['\\', '\0']) || !file.split('/').all(is_plain)
    };
    match files.iter().find(escapes) {
        None => Ok(()),
        Some(file) => Err(HubError::EscapingFile { file: file.escape_default().to_string() }),
    }
}

fn has(files: &[String], name: &str) -> bool {
    files.iter().any(|file| file == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn pickles_examples_and_other_formats_are_not_needed() {
        let all = files(&[
            "README.md",
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "onnx/model.onnx",
            "original/tokenizer.model",
            "pytorch_model.bin",
            "tokenizer.json",
            "tokenizer.model",
            "tokenizer_config.json",
            "training_args.bin",
            "tokenizer.py",
        ]);
        let expected = [
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer.model",
            "tokenizer_config.json",
        ];
        assert_eq!(small("org/name", &all, Needed::Everything).unwrap(), expected);
        assert_eq!(small("org/name", &all, Needed::Config).unwrap(), ["config.json"]);
        let error = small("org/name", &all[2..], Needed::Config).unwrap_err();
        assert!(matches!(error, HubError::NoFile { .. }), "{error}");
        let folder = Path::new("nowhere");
        assert_eq!(weights("org/name", &all, folder).unwrap(), ["model.safetensors"]);
    }

    #[test]
    fn of_adapters_all_else_is_their_bases() {
        let all = files(&[
            "adapter_config.json",
            "adapter_model.safetensors",
            "config.json",
            "tokenizer.json",
        ]);
        for needed in [Needed::Config, Needed::Everything] {
            assert_eq!(small("org/name", &all, needed).unwrap(), ["adapter_config.json"]);
        }
        let folder = Path::new("nowhere");
        assert_eq!(weights("org/name", &all, folder).unwrap(), ["adapter_model.safetensors"]);
    }

    #[test]
    fn weights_that_are_not_read_are_told_apart() {
        let error = |names: &[&str]| {
            let error = weights("org/name", &files(names), Path::new("nowhere")).unwrap_err();
            error.downcast::<CheckpointError>().unwrap()
        };
        for pickled in [
            &["pytorch_model-00001-of-00002.bin"],
            &["adapter_config.json", "adapter_model.bin"][..],
        ] {
            let error = error(pickled);
            assert!(matches!(error, CheckpointError::Pickle { .. }), "{error}");
        }
        let error = error(&["config.json", "model.gguf"]);
        assert!(matches!(error, CheckpointError::NoWeights { .. }), "{error}");
    }

    #[test]
    fn a_file_outside_the_folder_is_refused() {
        refuse_escaping(&files(&["config.json", "original/params.json", "a..b"])).unwrap();
        for name in ["../x", "/etc/x", "a/../../x", "a//b", "..", "./x", "a\\b", "", "a\0"] {
            let error = refuse_escaping(&files(&["config.json", name])).unwrap_err();
            assert!(matches!(error, HubError::EscapingFile { .. }), "{name}");
        }
    }
}
