//! SHA-256 of files, read in pieces because weights can be larger than memory.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use beear_input::OwnFolder;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::model::Model;

/// Prefix of the names of a base's files.
const BASE: &str = "base/";

/// Returns the hash of a file in hexadecimal.
///
/// # Errors
///
/// If the file cannot be read.
pub(crate) fn sha256_of_file(path: &Path) -> Result<String> {
    let hashing = || format!("hashing {}", path.display());
    let mut file = beear_input::open(path).with_context(hashing)?;
    let mut hasher = Sha256::new();
    std::io::copy(&mut file, &mut hasher).with_context(hashing)?;
    Ok(hex(hasher.finalize()))
}

/// Formats a hash in hexadecimal.
pub(crate) fn hex(hash: impl IntoIterator<Item = u8>) -> String {
    hash.into_iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes any text");
        text
    })
}

/// Returns the hashes of all inputs of a run: the files of `model` by their names, if there is one;
/// those of the base below `base/` if the model consists of adapters; and `files` by the options
/// that name them, with the path added if an option names several.
///
/// # Errors
///
/// If a file cannot be read.
pub(crate) fn sha256_of_inputs(
    model: Option<&Model>,
    files: &[(&str, &Path)],
) -> Result<Map<String, Value>> {
    let mut hashes = Map::new();
    let folders = [(model.map(Model::folder), ""), (model.and_then(Model::base), BASE)];
    for (folder, prefix) in folders {
        for path in folder.map_or_else(|| Ok(Vec::new()), files_of)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            hashes.insert(format!("{prefix}{name}"), sha256_of_file(&path)?.into());
        }
    }
    for (option, path) in files {
        let is_repeated = files.iter().filter(|(other, _)| other == option).count() > 1;
        let path_of_it = if is_repeated { format!(" {}", path.display()) } else { String::new() };
        hashes.insert(format!("{option}{path_of_it}"), sha256_of_file(path)?.into());
    }
    Ok(hashes)
}

/// Returns true if the inputs with the hashes `now` have not changed since `known`. A file that
/// another tool has added to the folder of a commit belongs to that commit, so it is no change.
pub(crate) fn are_same(known: &Value, now: &Map<String, Value>, model: &Model) -> bool {
    changed(known, now, model).is_none()
}

/// Returns the first input that has changed since `known` was written, in the sense of
/// [`are_same`]. Hidden files that were not there then, such as those of a file manager, are not
/// read and are no change.
pub(crate) fn changed<'a>(
    known: &Value,
    now: &'a Map<String, Value>,
    model: &Model,
) -> Option<&'a str> {
    let is_same = |(name, hash): &(&String, &Value)| {
        if let Some(known) = known.get(name.as_str()) {
            return known == *hash;
        }
        let plain = name.strip_prefix(BASE);
        plain.unwrap_or(name).starts_with('.') || model.is_of_a_commit(plain.is_some())
    };
    now.iter().find(|input| !is_same(input)).map(|(name, _)| name.as_str())
}

/// Returns the files of a model's folder, sorted by name. A link that leaves the folder counts only
/// if it points to weights: no other link is read, and the hash of a file that does not belong to
/// the model would reveal something about that file.
fn files_of(dir: &Path) -> Result<Vec<PathBuf>> {
    let reading = || format!("reading {}", dir.display());
    let own = OwnFolder::new(dir).with_context(reading)?;
    let belongs = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default();
        let is_weights = name.to_string_lossy().contains(".safetensors");
        path.is_file() && (is_weights || own.resolve(name.as_ref()).is_ok())
    };
    let entries = std::fs::read_dir(dir).with_context(reading)?;
    let mut files: Vec<PathBuf> =
        entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).filter(belongs).collect();
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_sha_256_of_the_bytes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc").unwrap();
        // The first test vector of FIPS 180-2.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_of_file(file.path()).unwrap(), expected);
    }
}
