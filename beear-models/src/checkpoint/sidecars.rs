//! The files beside the weights: which of them travel with a model that is written.
//!
//! The folder may come from a stranger, and a copy of it is often published. A link in it that leads out of it would
//! publish a file of this machine.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::path::PathBuf;

use beear_input::OwnFolder;

use super::{Checkpoint, CheckpointError};

/// What weights are called in formats we do not write. They must not travel with a model whose
/// weights have changed.
const FOREIGN_WEIGHTS: [&str; 11] = [
    ".safetensors",
    ".safetensors.index.json",
    ".bin",
    ".bin.index.json",
    ".pt",
    ".pth",
    ".ckpt",
    ".h5",
    ".msgpack",
    ".gguf",
    ".onnx",
];

/// Files that a model is used or passed on with. Of a base that adapters name, nothing else is copied: the name is the
/// adapters' word, and any folder with a model in it can be named.
const NEEDED: [&str; 11] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
];

/// What names of licences begin with, which travel with a model too.
const LICENCES: [&str; 4] = ["license", "licence", "notice", "use_policy"];

/// A file of the folder that is not copied beside the weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its name.
    pub name: OsString,
    /// Why, in words that follow the name.
    pub reason: String,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.name.to_string_lossy().escape_default(), self.reason)
    }
}

/// What becomes of a file beside the weights.
pub(super) enum Sidecar {
    /// Copied from this path to a file of this name.
    Copied(OsString, PathBuf),
    LeftOut(LeftOut),
}

impl Checkpoint {
    /// The files of the folder that [`save`](super::save) does not copy: links that leave the folder or lead nowhere,
    /// pipes and devices, and of a base that adapters name whatever a model does not need. Weights, which are written
    /// anew, and folders are not listed.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`] if the folder cannot be read.
    pub fn left_out(&self) -> Result<Vec<LeftOut>, CheckpointError> {
        let left_out = |sidecar| match sidecar {
            Sidecar::Copied(..) => None,
            Sidecar::LeftOut(left_out) => Some(left_out),
        };
        Ok(self.sidecars()?.into_iter().filter_map(left_out).collect())
    }

    /// The files beside the weights, by name.
    pub(super) fn sidecars(&self) -> Result<Vec<Sidecar>, CheckpointError> {
        let io = CheckpointError::io(&self.dir);
        let own = OwnFolder::new(&self.dir).map_err(&io)?;
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(&io)? {
            names.push(entry.map_err(&io)?.file_name());
        }
        names.sort();
        names.retain(|name| !is_weights(name) && !self.dir.join(name).is_dir());
        Ok(names.into_iter().map(|name| self.sidecar(&own, name)).collect())
    }

    fn sidecar(&self, own: &OwnFolder, name: OsString) -> Sidecar {
        if self.adapters.is_some() && !is_needed(&name) {
            let reason = "not needed of the base of adapters".to_owned();
            return Sidecar::LeftOut(LeftOut { name, reason });
        }
        let path = own.resolve(name.as_ref());
        match path.and_then(|path| beear_input::open(&path).map(|_| path)) {
            Ok(path) => Sidecar::Copied(name, path),
            Err(error) => Sidecar::LeftOut(LeftOut { name, reason: error.to_string() }),
        }
    }
}

fn is_weights(name: &OsStr) -> bool {
    let lower = name.to_string_lossy().to_lowercase();
    FOREIGN_WEIGHTS.iter().any(|end| lower.ends_with(end))
}

fn is_needed(name: &OsStr) -> bool {
    let lower = name.to_string_lossy().to_lowercase();
    NEEDED.contains(&&*lower) || LICENCES.iter().any(|start| lower.starts_with(start))
}
