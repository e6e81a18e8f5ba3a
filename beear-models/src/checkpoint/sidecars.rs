//! Selection of the files beside the weights that are copied with a saved model.
//!
//! The folder may be untrusted, and a copy of it is often published. Copying a link that leaves the
//! folder would publish a file of this machine.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::path::PathBuf;

use beear_input::OwnFolder;

use super::{Checkpoint, CheckpointError};

/// Endings of weight files in formats that are not written. They must not be copied with a model
/// whose weights have changed.
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

/// Files needed to use or distribute a model. From a base model named by adapters, nothing else is
/// copied: the adapters can name any folder with a model in it.
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

/// Prefixes of the names of licence files, which are also copied.
const LICENCES: [&str; 4] = ["license", "licence", "notice", "use_policy"];

/// File of the folder that is not copied beside the weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Name of the file.
    pub name: OsString,
    /// Reason, in words that follow the name.
    pub reason: String,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.name.to_string_lossy().escape_default(), self.reason)
    }
}

/// Treatment of a file beside the weights.
pub(super) enum Sidecar {
    /// Copied from this path to a file of this name.
    Copied(OsString, PathBuf),
    LeftOut(LeftOut),
}

impl Checkpoint {
    /// Lists the files of the folder that [`save`](super::save) does not copy: links that are
    /// dangling or leave the folder, pipes and devices, and, for a base model named by adapters,
    /// every file that a model does not need. Folders, and weights, which are written anew, are not
    /// listed.
    ///
    /// # Errors
    ///
    /// Returns [`CheckpointError::Io`] if the folder cannot be read.
    pub fn left_out(&self) -> Result<Vec<LeftOut>, CheckpointError> {
        let left_out = |sidecar| match sidecar {
            Sidecar::Copied(..) => None,
            Sidecar::LeftOut(left_out) => Some(left_out),
        };
        Ok(self.sidecars()?.into_iter().filter_map(left_out).collect())
    }

    /// Lists the files beside the weights by name.
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
