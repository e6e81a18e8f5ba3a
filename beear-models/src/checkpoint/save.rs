//! Models into Hugging Face folders. A folder is written aside, synced, and renamed into place, so
//! nothing half-written ever stands where a checkpoint should be.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use super::index::{INDEX, SINGLE};
use super::{Checkpoint, CheckpointError, keys};
use crate::causal_lm::CausalLm;
use crate::hf_config;

/// What a folder needs besides the weights when there is no checkpoint to copy it from.
#[derive(Clone, Debug)]
pub struct NewModel {
    /// Ids of padding, begin and end of sequence.
    pub special_ids: [u32; 3],
    /// Files to write beside the weights: name and content.
    pub sidecars: Vec<(String, Vec<u8>)>,
}

/// Writes `model` to `out` as its `source` was stored: same type, same shards, and every other
/// file of the folder byte for byte.
///
/// # Errors
///
/// [`CheckpointError`] if `out` exists or a file cannot be read or written.
pub fn save<B: Backend>(
    model: &CausalLm<B>,
    source: &Checkpoint,
    out: &Path,
) -> Result<(), CheckpointError> {
    let (dtype, shard_of) = source.layout()?;
    let staged = Staged::new(out)?;
    for entry in fs::read_dir(&source.dir).map_err(CheckpointError::io(&source.dir))? {
        let path = entry.map_err(CheckpointError::io(&source.dir))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let weights = [".safetensors", ".bin", ".pt", ".pth"].iter().any(|end| name.ends_with(end));
        if path.is_file() && !weights && name != INDEX {
            fs::copy(&path, staged.path.join(&name)).map_err(CheckpointError::io(&path))?;
        }
    }
    let shard =
        |name: &str| shard_of.get(name).cloned().unwrap_or_else(|| source.shards[0].clone());
    write_weights(model, dtype, &shard, &staged.path)?;
    staged.publish()
}

/// Writes a model that was not read from a folder, in f32.
///
/// # Errors
///
/// [`CheckpointError`] if `out` exists or a file cannot be written.
pub fn save_new<B: Backend>(
    model: &CausalLm<B>,
    new: &NewModel,
    out: &Path,
) -> Result<(), CheckpointError> {
    let staged = Staged::new(out)?;
    let config = hf_config::render(model.config(), new.special_ids).into_bytes();
    write_file(&staged.path.join("config.json"), &config)?;
    for (name, content) in &new.sidecars {
        write_file(&staged.path.join(name), content)?;
    }
    write_weights(model, Dtype::F32, &|_| SINGLE.to_owned(), &staged.path)?;
    staged.publish()
}

/// A folder beside its destination; removed unless published.
struct Staged {
    path: PathBuf,
    out: PathBuf,
}

impl Staged {
    fn new(out: &Path) -> Result<Self, CheckpointError> {
        if out.exists() {
            return Err(CheckpointError::Exists { path: out.to_owned() });
        }
        let name = out.file_name().unwrap_or_default().to_string_lossy();
        let path = out.with_file_name(format!(".{name}.partial-{}", std::process::id()));
        fs::create_dir_all(&path).map_err(CheckpointError::io(&path))?;
        Ok(Self { path, out: out.to_owned() })
    }

    fn publish(self) -> Result<(), CheckpointError> {
        let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all());
        for entry in fs::read_dir(&self.path).map_err(CheckpointError::io(&self.path))? {
            let path = entry.map_err(CheckpointError::io(&self.path))?.path();
            sync(&path).map_err(CheckpointError::io(&path))?;
        }
        sync(&self.path).map_err(CheckpointError::io(&self.path))?;
        fs::rename(&self.path, &self.out).map_err(CheckpointError::io(&self.out))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After `publish` the folder has moved and this removes nothing.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn write_file(path: &Path, content: &[u8]) -> Result<(), CheckpointError> {
    let write = || File::create(path)?.write_all(content);
    write().map_err(CheckpointError::io(path))
}

/// A tensor ready to be written.
struct Stored {
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn write_weights<B: Backend>(
    model: &CausalLm<B>,
    dtype: Dtype,
    shard: &dyn Fn(&str) -> String,
    dir: &Path,
) -> Result<(), CheckpointError> {
    let mut collect = Collect { dtype, path: Vec::new(), tensors: BTreeMap::new() };
    model.visit(&mut collect);
    let mut files: BTreeMap<String, Vec<(String, Stored)>> = BTreeMap::new();
    let mut weight_map = BTreeMap::new();
    let mut total_size = 0;
    for (name, stored) in collect.tensors {
        total_size += stored.bytes.len();
        weight_map.insert(name.clone(), shard(&name));
        files.entry(shard(&name)).or_default().push((name, stored));
    }
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    for (file, tensors) in &files {
        let path = dir.join(file);
        let damaged = |e: safetensors::SafeTensorError| CheckpointError::Damaged {
            path: path.clone(),
            reason: e.to_string(),
        };
        let views = tensors
            .iter()
            .map(|(name, stored)| {
                TensorView::new(dtype, stored.shape.clone(), &stored.bytes).map(|view| (name, view))
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(damaged)?;
        safetensors::serialize_to_file(views, Some(metadata.clone()), &path).map_err(damaged)?;
    }
    if files.len() > 1 {
        let index = json!({"metadata": {"total_size": total_size}, "weight_map": weight_map});
        write_file(&dir.join(INDEX), format!("{index:#}\n").as_bytes())?;
    }
    Ok(())
}

struct Collect {
    dtype: Dtype,
    path: Vec<String>,
    tensors: BTreeMap<String, Stored>,
}

impl<B: Backend> ModuleVisitor<B> for Collect {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let (name, transposed) = keys::stored(&self.path);
        let tensor = param.val();
        let tensor = if transposed { tensor.transpose() } else { tensor };
        let shape = tensor.dims().to_vec();
        let data = tensor.into_data();
        let values = data.iter::<f32>();
        let bytes = match self.dtype {
            Dtype::F16 => values.flat_map(|v| f16::from_f32(v).to_le_bytes()).collect(),
            Dtype::BF16 => values.flat_map(|v| bf16::from_f32(v).to_le_bytes()).collect(),
            _ => values.flat_map(f32::to_le_bytes).collect(),
        };
        self.tensors.insert(name, Stored { shape, bytes });
    }
}
