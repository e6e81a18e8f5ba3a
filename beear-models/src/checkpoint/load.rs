//! Loading of weights from memory-mapped safetensors into a model: every tensor is used and none is
//! missing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use memmap2::Mmap;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::{Checkpoint, CheckpointError, StoredDType, header, keys};
use crate::nn::causal_lm::CausalLm;

/// Number of missing names after which the search ends.
const ENOUGH_MISSING: usize = 64;

/// File and type of a stored weight.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// File, relative to the folder.
    pub(super) shard: String,
    pub(super) dtype: StoredDType,
}

impl Checkpoint {
    /// Loads the weights, cast to the backend's float type, and merges the adapters if there are
    /// any.
    ///
    /// # Errors
    ///
    /// Returns [`CheckpointError`] if a file is damaged, or a tensor is missing, unknown, of the
    /// wrong shape or type, or not finite.
    pub fn load<B: Backend>(&self, device: &B::Device) -> Result<CausalLm<B>, CheckpointError> {
        let files = self.map_files()?;
        let mut all = tensors(&files)?;
        self.check(&all)?;
        let model = self.config.lazy::<B>(device);
        let Some(adapters) = &self.adapters else { return fill(model, all) };
        let files = [map(adapters.weights()?)?];
        let added = tensors(&files)?;
        let model = adapters.attach(model, &added)?;
        all.extend(added);
        Ok(fill(model, all)?.merge_adapters())
    }

    /// Returns the stored type of the embedding, which is nearly always the type of all weights.
    ///
    /// # Errors
    ///
    /// Returns [`CheckpointError`] if a file is damaged, or contains an unsupported type.
    pub fn dtype(&self) -> Result<StoredDType, CheckpointError> {
        let name = "model.embed_tokens.weight";
        let missing = || CheckpointError::Missing { names: vec![name.to_owned()] };
        Ok(self.layout()?.get(name).ok_or_else(missing)?.dtype)
    }

    /// Returns file and type of each stored tensor.
    pub(super) fn layout(&self) -> Result<BTreeMap<String, Place>, CheckpointError> {
        let files = self.map_files()?;
        let mut layout = BTreeMap::new();
        for ((path, map), shard) in files.iter().zip(&self.shards) {
            for (name, view) in parse(path, map)?.iter() {
                let dtype = stored_dtype(name, view.dtype())?;
                layout.insert(name.to_owned(), Place { shard: shard.clone(), dtype });
            }
        }
        Ok(layout)
    }

    /// Compares the files with the config before allocating anything as large as a model.
    fn check(&self, tensors: &BTreeMap<String, TensorView<'_>>) -> Result<(), CheckpointError> {
        let mut unused = check(keys::expected(&self.config), tensors)?;
        unused.retain(|name| !keys::is_derived(name, self.config.tied_embeddings));
        refuse_unused(unused)
    }

    pub(super) fn map_files(&self) -> Result<Vec<(PathBuf, Mmap)>, CheckpointError> {
        self.shards.iter().map(|name| map(self.dir.join(name))).collect()
    }
}

/// Compares tensors with the `expected` names and shapes, and returns the names of all other
/// tensors.
pub(super) fn check<'a>(
    expected: impl Iterator<Item = (String, Vec<usize>)>,
    tensors: &'a BTreeMap<String, TensorView<'_>>,
) -> Result<BTreeSet<&'a str>, CheckpointError> {
    let mut unused: BTreeSet<&str> = tensors.keys().map(String::as_str).collect();
    let mut missing = Vec::new();
    for (name, expected) in expected {
        let Some(view) = tensors.get(&name) else {
            missing.push(name);
            if missing.len() < ENOUGH_MISSING {
                continue;
            }
            break;
        };
        unused.remove(name.as_str());
        if view.shape() != expected {
            let found = view.shape().to_vec();
            return Err(CheckpointError::Shape { name, found, expected });
        }
        stored_dtype(&name, view.dtype())?;
    }
    if missing.is_empty() { Ok(unused) } else { Err(CheckpointError::Missing { names: missing }) }
}

/// Returns an error if tensors are used by no part of a model.
pub(super) fn refuse_unused(unused: BTreeSet<&str>) -> Result<(), CheckpointError> {
    let names: Vec<String> = unused.iter().map(|n| n.escape_default().to_string()).collect();
    if names.is_empty() { Ok(()) } else { Err(CheckpointError::Unused { names }) }
}

pub(super) fn map(path: PathBuf) -> Result<(PathBuf, Mmap), CheckpointError> {
    let file = beear_input::open(&path).map_err(CheckpointError::io(&path))?;
    #[expect(unsafe_code, reason = "memory maps are unsafe: the file must not change meanwhile")]
    // SAFETY: the map is read-only and lives for one load; truncating the file meanwhile ends the
    // process, as with every tool that maps checkpoints.
    let map = unsafe { Mmap::map(&file) }.map_err(CheckpointError::io(&path))?;
    if map.starts_with(b"version https://git-lfs") {
        return Err(CheckpointError::LfsPointer { path });
    }
    Ok((path, map))
}

/// Fills `model` with the values of `tensors`, which have been checked.
fn fill<B: Backend>(
    model: CausalLm<B>,
    tensors: BTreeMap<String, TensorView<'_>>,
) -> Result<CausalLm<B>, CheckpointError> {
    let mut loader = Loader { tensors, path: Vec::new(), mistake: None };
    let model = model.map(&mut loader);
    loader.mistake.map_or(Ok(model), Err)
}

/// Returns all tensors of the files, or an error if a tensor is in two of them.
pub(super) fn tensors(
    files: &[(PathBuf, Mmap)],
) -> Result<BTreeMap<String, TensorView<'_>>, CheckpointError> {
    let mut tensors = BTreeMap::new();
    for (path, map) in files {
        for (name, view) in parse(path, map)?.tensors() {
            if tensors.insert(name.clone(), view).is_some() {
                let name = name.escape_default().to_string();
                return Err(CheckpointError::Twice { name });
            }
        }
    }
    Ok(tensors)
}

fn parse<'a>(path: &Path, map: &'a Mmap) -> Result<SafeTensors<'a>, CheckpointError> {
    let damaged = |reason: String| CheckpointError::Damaged { path: path.to_owned(), reason };
    let tensors = SafeTensors::deserialize(map).map_err(|e| damaged(e.to_string()))?;
    header::refuse_doubled(map).map_err(|e| damaged(e.to_string()))?;
    Ok(tensors)
}

fn stored_dtype(name: &str, dtype: Dtype) -> Result<StoredDType, CheckpointError> {
    StoredDType::read(dtype).ok_or_else(|| CheckpointError::DType {
        name: name.escape_default().to_string(),
        dtype: format!("{dtype:?}"),
    })
}

/// Mapper that inserts the tensors, which have been checked, into the module.
struct Loader<'a> {
    tensors: BTreeMap<String, TensorView<'a>>,
    path: Vec<String>,
    mistake: Option<CheckpointError>,
}

impl<B: Backend> ModuleMapper<B> for Loader<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (name, transposed) = keys::stored(&self.path);
        let Some(view) = self.tensors.remove(&name) else {
            self.mistake.get_or_insert(CheckpointError::Missing { names: vec![name] });
            return param;
        };
        let values = match values(&view, &name) {
            Ok(values) => TensorData::new(values, view.shape()),
            Err(mistake) => {
                self.mistake.get_or_insert(mistake);
                return param;
            }
        };
        let stored = Tensor::<B, D>::from_data(values, &param.lazy_device());
        let tensor = if transposed { contiguous(stored.transpose()) } else { stored };
        assert_eq!(tensor.shape(), param.lazy_shape(), "{name} fits the module it was checked for");
        let id = param.id;
        param.transform_for_load(tensor, id)
    }
}

/// Makes a transposed tensor contiguous once, instead of in every product with it.
fn contiguous<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Tensor<B, D> {
    let device = tensor.device();
    Tensor::from_data(tensor.into_data(), &device)
}

/// Decodes the values of a tensor, all of which must be finite.
pub(super) fn values(view: &TensorView<'_>, name: &str) -> Result<Vec<f32>, CheckpointError> {
    let values = stored_dtype(name, view.dtype())?.decode(view.data());
    if values.iter().all(|value| value.is_finite()) {
        Ok(values)
    } else {
        Err(CheckpointError::NotFinite { name: name.to_owned() })
    }
}
