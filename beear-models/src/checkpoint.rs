//! Hugging Face folders: weights in safetensors, everything else kept byte for byte.

mod dtype;
mod header;
pub mod hf_config;
mod index;
mod keys;
mod load;
mod peft;
mod precision;
mod save;
mod sidecars;
mod staged;
#[cfg(test)]
pub(crate) mod tests;
mod weight;

use std::path::{Path, PathBuf};

use beear_input::{OwnFolder, Refusal};
use thiserror::Error;

use self::hf_config::ConfigError;
use crate::config::DecoderConfig;

pub use dtype::StoredDType;
pub use index::shard_names;
pub use peft::config::{AdapterConfigError, BaseName};
pub use peft::save_adapters;
pub use save::{NewModel, save, save_new};
pub use sidecars::LeftOut;
pub use staged::remove_partial;
pub use weight::StoredWeight;

/// Why a checkpoint cannot be read or written.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// A file cannot be read or written.
    #[error("cannot access `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// `config.json` describes no model we run.
    #[error("cannot use the model in `{}`", path.display())]
    Config {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        source: ConfigError,
    },
    /// The folder holds no safetensors.
    #[error("no safetensors weights in `{}`", path.display())]
    NoWeights {
        /// The folder.
        path: PathBuf,
    },
    /// The folder holds pickled weights only.
    #[error("the weights in `{}` are pickled; pickle files run code and are refused", path.display())]
    Pickle {
        /// The folder.
        path: PathBuf,
    },
    /// The index names a file outside the folder.
    #[error("the index names a file outside the folder: {name}")]
    EscapingShard {
        /// The name.
        name: String,
    },
    /// The index is not one.
    #[error("malformed model.safetensors.index.json: {reason}")]
    MalformedIndex {
        /// What is wrong.
        reason: String,
    },
    /// A weights file is damaged.
    #[error("damaged weights file `{}`: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Tensors the model needs are absent.
    #[error("missing tensors: {}", listed(names))]
    Missing {
        /// Their names.
        names: Vec<String>,
    },
    /// Tensors no part of the model uses.
    #[error("unknown tensors: {}", listed(names))]
    Unused {
        /// Their names.
        names: Vec<String>,
    },
    /// The same tensor is in two files.
    #[error("tensor `{name}` is in two files")]
    Twice {
        /// Its name.
        name: String,
    },
    /// A tensor of another shape than the config says.
    #[error("tensor `{name}` has shape {found:?}, the config says {expected:?}")]
    Shape {
        /// Its name.
        name: String,
        /// The shape stored.
        found: Vec<usize>,
        /// The shape needed.
        expected: Vec<usize>,
    },
    /// A tensor of a type that is not stored in checkpoints we read.
    #[error("tensor `{name}` has type {dtype}: F32, F16 and BF16 are read")]
    DType {
        /// Its name.
        name: String,
        /// Its type.
        dtype: String,
    },
    /// A weight is infinite or not a number.
    #[error("tensor `{name}` has a value that is not finite")]
    NotFinite {
        /// Its name.
        name: String,
    },
    /// `adapter_config.json` describes no adapters we run.
    #[error("cannot use the adapters in `{}`", path.display())]
    Adapter {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        source: AdapterConfigError,
    },
    /// The model that adapters belong to is not on this machine.
    #[error("the adapters belong to `{}`, which is no folder here", name.escape_default())]
    NoBase {
        /// What `adapter_config.json` calls it.
        name: String,
    },
    /// The model that adapters belong to has adapters itself.
    #[error("the adapters belong to `{}`, which holds adapters itself", path.display())]
    BaseIsAdapter {
        /// Its folder.
        path: PathBuf,
    },
    /// The folder to write exists already.
    #[error("`{}` exists already", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// The model to write is of another shape than the checkpoint it should resemble.
    #[error("the model is of another shape than the one in `{}`", path.display())]
    OtherModel {
        /// The folder of the checkpoint.
        path: PathBuf,
    },
}

impl CheckpointError {
    /// What to do about it, in one line.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Io { source, .. } => Refusal::of(source)
                .map_or("check the path, the permissions and the free space", Refusal::hint),
            Self::Config { .. } => "Llama 2 to 3.2 and Mistral v0.1 to v0.3 are supported",
            Self::NoWeights { .. } => "the folder should hold model.safetensors or its index",
            Self::Pickle { .. } => "load it in transformers and save with safe_serialization=True",
            Self::Damaged { .. } | Self::MalformedIndex { .. } => {
                "the file is truncated or altered: copy or download it again"
            }
            Self::NotFinite { .. } => "the model is broken: training diverged or a file is damaged",
            Self::Missing { .. } | Self::Unused { .. } | Self::Shape { .. } => {
                "config.json and the weights belong to different models"
            }
            Self::Adapter { .. } => {
                "plain LoRA of the projections is supported: merge others in PEFT with \
                 merge_and_unload() and save the model"
            }
            Self::NoBase { .. } => {
                "write its folder, or its org/name on the hub, to base_model_name_or_path of adapter_config.json"
            }
            Self::BaseIsAdapter { .. } => "merge the one into its base first",
            Self::Exists { .. } => "choose another folder, or remove it first",
            Self::EscapingShard { .. } => "do not trust this checkpoint",
            Self::OtherModel { .. } => "save it as a copy of the checkpoint it was read from",
            Self::Twice { .. } => {
                "the files belong to different models: download them into an empty folder"
            }
            Self::DType { .. } => {
                "bring the weights from before they were quantised, or cast them with \
                 model.to(torch.bfloat16)"
            }
        })
    }

    fn io(path: &Path) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

/// The first names, and how many more there are: a checkpoint may have thousands.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let more = names.len().saturating_sub(SHOWN);
    let shown = names[..names.len() - more].join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

/// Reads the shape of a model: of `path` itself if that is a file, else of its `config.json`.
///
/// # Errors
///
/// [`CheckpointError`] if there is no such file, or it describes no model we run.
pub fn read_config(path: &Path) -> Result<DecoderConfig, CheckpointError> {
    let text = if path.exists() && !path.is_dir() {
        beear_input::read_to_string(path).map_err(CheckpointError::io(path))?
    } else {
        read_own(path, "config.json")?
    };
    hf_config::parse(&text)
        .map_err(|source| CheckpointError::Config { path: path.to_owned(), source })
}

/// Largest `config.json`, `adapter_config.json` or index, in bytes: a thousand times what models have.
const LARGEST_CONFIG: u64 = 64 << 20;

/// The text of a file that belongs to the folder `dir`.
fn read_own(dir: &Path, name: &str) -> Result<String, CheckpointError> {
    let text =
        OwnFolder::new(dir).and_then(|own| own.read_to_string(name.as_ref(), LARGEST_CONFIG));
    text.map_err(CheckpointError::io(&dir.join(name)))
}

/// A folder whose `config.json` and weight files have been found, with no weight read.
///
/// A folder of adapters is a checkpoint too: that of their base, with the adapters merged when the weights
/// are read.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The folder of everything but adapters.
    pub dir: PathBuf,
    /// The shape of the model.
    pub config: DecoderConfig,
    /// The weight files, relative to the folder.
    pub(crate) shards: Vec<String>,
    adapters: Option<peft::AdapterFolder>,
}

impl Checkpoint {
    /// Opens a folder of a model, or of adapters.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`] if the folder holds no model we run, or adapters we do not run.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        Self::open_on(dir, None)
    }

    /// Opens a folder of a model, or of adapters of the model in `base`; without one their base is the folder
    /// that they name.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_on(dir: &Path, base: Option<&Path>) -> Result<Self, CheckpointError> {
        let adapters = peft::AdapterFolder::open(dir)?;
        let dir = match (&adapters, base) {
            (None, _) => dir.to_owned(),
            (Some(_), Some(base)) => peft::plain(base.to_owned())?,
            (Some(adapters), None) => adapters.base()?,
        };
        let config = read_config(&dir)?;
        let shards = index::shards(&dir)?;
        Ok(Self { dir, config, shards, adapters })
    }

    /// The folder of the adapters that are merged into the weights, if there are any.
    #[must_use]
    pub fn adapters(&self) -> Option<&Path> {
        self.adapters.as_ref().map(|adapters| adapters.dir.as_path())
    }
}

/// What the adapters in `dir` call the model they belong to; `None` if `dir` holds no adapters, or none that can
/// be used.
#[must_use]
pub fn base_name_of_adapters(dir: &Path) -> Option<BaseName> {
    Some(peft::AdapterFolder::open(dir).ok()??.base_name().clone())
}

/// The folder of the model that the adapters in `dir` belong to; `None` if `dir` holds no adapters, or
/// none that can be used.
#[must_use]
pub fn base_of_adapters(dir: &Path) -> Option<PathBuf> {
    peft::AdapterFolder::open(dir).ok()??.base().ok()
}
