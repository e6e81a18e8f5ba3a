//! Hugging Face folders: weights in safetensors; all other files are copied byte for byte.

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

/// Error of reading or writing a checkpoint.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// A file cannot be read or written.
    #[error("cannot access `{}`", path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// `config.json` does not describe a supported model.
    #[error("cannot use the model in `{}`", path.display())]
    Config {
        /// Path of the folder.
        path: PathBuf,
        /// Error of the config.
        source: ConfigError,
    },
    /// The folder contains no safetensors.
    #[error("no safetensors weights in `{}`", path.display())]
    NoWeights {
        /// Path of the folder.
        path: PathBuf,
    },
    /// The folder contains shards and no index.
    #[error("`{}` has safetensors, but neither {} nor {}", path.display(), index::SINGLE, index::INDEX)]
    NoIndex {
        /// Path of the folder.
        path: PathBuf,
    },
    /// The folder contains GGUF weights only.
    #[error("the weights in `{}` are GGUF, which is not read", path.display())]
    Gguf {
        /// Path of the folder.
        path: PathBuf,
    },
    /// A file is a pointer of Git LFS and not the weights.
    #[error("`{}` is a Git LFS pointer, not the weights", path.display())]
    LfsPointer {
        /// Path of the file.
        path: PathBuf,
    },
    /// The folder contains pickled weights only.
    #[error("the weights in `{}` are pickled; pickle files run code and are refused", path.display())]
    Pickle {
        /// Path of the folder.
        path: PathBuf,
    },
    /// The index names a file outside the folder.
    #[error("the index names a file outside the folder: {name}")]
    EscapingShard {
        /// File name in the index.
        name: String,
    },
    /// The index is malformed.
    #[error("malformed model.safetensors.index.json: {reason}")]
    MalformedIndex {
        /// Problem of the index.
        reason: String,
    },
    /// A weights file is damaged.
    #[error("damaged weights file `{}`: {reason}", path.display())]
    Damaged {
        /// Path of the file.
        path: PathBuf,
        /// Problem of the file.
        reason: String,
    },
    /// Tensors of the model are missing.
    #[error("missing tensors: {}", listed(names))]
    Missing {
        /// Names of the missing tensors.
        names: Vec<String>,
    },
    /// Tensors are used by no part of the model.
    #[error("unknown tensors: {}", listed(names))]
    Unused {
        /// Names of the unused tensors.
        names: Vec<String>,
    },
    /// A tensor is in two files.
    #[error("tensor `{name}` is in two files")]
    Twice {
        /// Name of the tensor.
        name: String,
    },
    /// The shape of a tensor differs from the config.
    #[error("tensor `{name}` has shape {found:?}, the config says {expected:?}")]
    Shape {
        /// Name of the tensor.
        name: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape by the config.
        expected: Vec<usize>,
    },
    /// A tensor has an unsupported type.
    #[error("tensor `{name}` has type {dtype}: F32, F16 and BF16 are read")]
    DType {
        /// Name of the tensor.
        name: String,
        /// Type of the tensor.
        dtype: String,
    },
    /// A weight is NaN or infinite.
    #[error("tensor `{name}` has a value that is not finite")]
    NotFinite {
        /// Name of the tensor.
        name: String,
    },
    /// `adapter_config.json` does not describe supported adapters.
    #[error("cannot use the adapters in `{}`", path.display())]
    Adapter {
        /// Path of the folder.
        path: PathBuf,
        /// Error of the adapter config.
        source: AdapterConfigError,
    },
    /// The base model of adapters is not on this machine.
    #[error("the adapters belong to `{}`, which is no folder here", name.escape_default())]
    NoBase {
        /// Name of the base model in `adapter_config.json`.
        name: String,
    },
    /// The base model of adapters contains adapters itself.
    #[error("the adapters belong to `{}`, which holds adapters itself", path.display())]
    BaseIsAdapter {
        /// Folder of the base model.
        path: PathBuf,
    },
    /// The destination folder already exists.
    #[error("`{}` exists already", path.display())]
    Exists {
        /// Path of the folder.
        path: PathBuf,
    },
    /// The shape of the model to write differs from that of the source checkpoint.
    #[error("the model is of another shape than the one in `{}`", path.display())]
    OtherModel {
        /// Folder of the checkpoint.
        path: PathBuf,
    },
}

impl CheckpointError {
    /// Returns a one-line suggestion for fixing the error.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Io { source, .. } => Refusal::of(source)
                .map_or("check the path, the permissions and the free space", Refusal::hint),
            Self::Config { source: ConfigError::Quantised { .. }, .. } => {
                "bring the weights from before they were quantised"
            }
            Self::Config { .. } => "Llama 2 to 3.2 and Mistral v0.1 to v0.3 are supported",
            Self::NoIndex { .. } => {
                "copy or download model.safetensors.index.json too, or save the model again"
            }
            Self::Gguf { .. } => {
                "bring the model as safetensors: AutoModelForCausalLM.from_pretrained(DIR, gguf_file=FILE).save_pretrained(OUT)"
            }
            Self::LfsPointer { .. } => "run `git lfs pull` in the repository, or download the file",
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

/// Lists the first names and the number of the others: a checkpoint may have thousands.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let more = names.len().saturating_sub(SHOWN);
    let shown = names[..names.len() - more].join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

/// Reads the shape of a model from `path` if it is a file, else from its `config.json`.
///
/// # Errors
///
/// Returns [`CheckpointError`] if the file does not exist or does not describe a supported model.
pub fn read_config(path: &Path) -> Result<DecoderConfig, CheckpointError> {
    let text = if path.exists() && !path.is_dir() {
        beear_input::read_to_string(path).map_err(CheckpointError::io(path))?
    } else {
        read_own(path, "config.json")?
    };
    hf_config::parse(&text)
        .map_err(|source| CheckpointError::Config { path: path.to_owned(), source })
}

/// Maximum size of `config.json`, `adapter_config.json` or an index, in bytes: a thousand times the
/// size in real models.
const LARGEST_CONFIG: u64 = 64 << 20;

/// Reads a text file that belongs to the folder `dir`.
fn read_own(dir: &Path, name: &str) -> Result<String, CheckpointError> {
    let text =
        OwnFolder::new(dir).and_then(|own| own.read_to_string(name.as_ref(), LARGEST_CONFIG));
    text.map_err(CheckpointError::io(&dir.join(name)))
}

/// Folder with a valid `config.json` and weight files, of which no weight has been read.
///
/// A folder of adapters is a checkpoint too: that of its base model, with the adapters merged when
/// the weights are read.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Folder of the model, or of the base model of adapters.
    pub dir: PathBuf,
    /// Shape of the model.
    pub config: DecoderConfig,
    /// Names of the weight files, relative to the folder.
    pub(crate) shards: Vec<String>,
    adapters: Option<peft::AdapterFolder>,
}

impl Checkpoint {
    /// Opens a folder of a model, or of adapters.
    ///
    /// # Errors
    ///
    /// Returns [`CheckpointError`] if the folder contains no supported model, or unsupported
    /// adapters.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        Self::open_on(dir, None)
    }

    /// Opens a folder of a model, or of adapters for the model in `base`. Without `base`, the base
    /// model is the folder that the adapters name.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`open`](Self::open).
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

    /// Returns the folder of the adapters that are merged into the weights, if any.
    #[must_use]
    pub fn adapters(&self) -> Option<&Path> {
        self.adapters.as_ref().map(|adapters| adapters.dir.as_path())
    }
}

/// Returns the name of the base model of the adapters in `dir`; `None` if `dir` contains no usable
/// adapters.
#[must_use]
pub fn base_name_of_adapters(dir: &Path) -> Option<BaseName> {
    Some(peft::AdapterFolder::open(dir).ok()??.base_name().clone())
}

/// Returns the folder of the base model of the adapters in `dir`; `None` if `dir` contains no
/// usable adapters, or the base model is not found.
#[must_use]
pub fn base_of_adapters(dir: &Path) -> Option<PathBuf> {
    peft::AdapterFolder::open(dir).ok()??.base().ok()
}
