//! Weights from memory-mapped safetensors into a model, every tensor used and none missed.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::{Checkpoint, CheckpointError, keys};
use crate::causal_lm::CausalLm;

impl Checkpoint {
    /// Reads the weights, cast to the backend's float type.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`] if a file is damaged, a tensor missing, unknown, of another shape or
    /// type, or not finite.
    pub fn load<B: Backend>(&self, device: &B::Device) -> Result<CausalLm<B>, CheckpointError> {
        let files = self.map_files()?;
        let tensors = self.tensors(&files)?;
        let model = self.config.init::<B>(device);
        let mut loader = Loader { tensors, path: Vec::new(), mistakes: Mistakes::default() };
        let model = model.map(&mut loader);
        let Loader { tensors, mistakes, .. } = loader;
        if let Some(first) = mistakes.first {
            return Err(first);
        }
        if !mistakes.missing.is_empty() {
            return Err(CheckpointError::Missing { names: mistakes.missing });
        }
        let unused: Vec<String> = tensors
            .into_keys()
            .filter(|name| !keys::is_derived(name, self.config.tied_embeddings))
            .map(|name| name.escape_default().to_string())
            .collect();
        if unused.is_empty() { Ok(model) } else { Err(CheckpointError::Unused { names: unused }) }
    }

    /// The type most weights are stored in, and the shards with the tensors each holds.
    pub(crate) fn layout(&self) -> Result<(Dtype, BTreeMap<String, String>), CheckpointError> {
        let files = self.map_files()?;
        let mut dtype = Dtype::F32;
        let mut shard_of = BTreeMap::new();
        for ((path, map), shard) in files.iter().zip(&self.shards) {
            for (name, view) in parse(path, map)?.iter() {
                dtype = if name.ends_with("embed_tokens.weight") { view.dtype() } else { dtype };
                shard_of.insert(name.to_owned(), shard.clone());
            }
        }
        Ok((dtype, shard_of))
    }

    fn map_files(&self) -> Result<Vec<(PathBuf, Mmap)>, CheckpointError> {
        let map = |name: &String| {
            let path = self.dir.join(name);
            let file = File::open(&path).map_err(CheckpointError::io(&path))?;
            #[expect(
                unsafe_code,
                reason = "memory maps are unsafe: the file must not change meanwhile"
            )]
            // SAFETY: the map is read-only and lives for one load; a file cut short under it ends
            // the process, as with every tool that maps checkpoints.
            let map = unsafe { Mmap::map(&file) }.map_err(CheckpointError::io(&path))?;
            Ok((path, map))
        };
        self.shards.iter().map(map).collect()
    }

    fn tensors<'a>(
        &self,
        files: &'a [(PathBuf, Mmap)],
    ) -> Result<BTreeMap<String, TensorView<'a>>, CheckpointError> {
        let mut tensors = BTreeMap::new();
        for (path, map) in files {
            for (name, view) in parse(path, map)?.tensors() {
                if tensors.insert(name.clone(), view).is_some() {
                    return Err(CheckpointError::Twice { name });
                }
            }
        }
        Ok(tensors)
    }
}

fn parse<'a>(path: &PathBuf, map: &'a Mmap) -> Result<SafeTensors<'a>, CheckpointError> {
    SafeTensors::deserialize(map)
        .map_err(|e| CheckpointError::Damaged { path: path.clone(), reason: e.to_string() })
}

#[derive(Default)]
struct Mistakes {
    missing: Vec<String>,
    first: Option<CheckpointError>,
}

struct Loader<'a> {
    tensors: BTreeMap<String, TensorView<'a>>,
    path: Vec<String>,
    mistakes: Mistakes,
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
            self.mistakes.missing.push(name);
            return param;
        };
        let mut expected = param.val().dims().to_vec();
        if transposed {
            expected.reverse();
        }
        if view.shape() != expected {
            let found = view.shape().to_vec();
            self.mistakes.first.get_or_insert(CheckpointError::Shape { name, found, expected });
            return param;
        }
        match values(&view, name) {
            Ok(values) => param.map(|old| {
                let stored =
                    Tensor::<B, D>::from_data(TensorData::new(values, expected), &old.device());
                let tensor = if transposed { contiguous(stored.transpose()) } else { stored };
                tensor.set_require_grad(old.is_require_grad())
            }),
            Err(mistake) => {
                self.mistakes.first.get_or_insert(mistake);
                param
            }
        }
    }
}

/// Lays a transposed tensor out anew, once, instead of in every product with it.
fn contiguous<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Tensor<B, D> {
    let device = tensor.device();
    Tensor::from_data(tensor.into_data(), &device)
}

fn values(view: &TensorView<'_>, name: String) -> Result<Vec<f32>, CheckpointError> {
    let bytes = view.data();
    let pairs = || bytes.as_chunks::<2>().0.iter();
    let values: Vec<f32> = match view.dtype() {
        Dtype::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F16 => pairs().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::BF16 => pairs().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        dtype => return Err(CheckpointError::DType { name, dtype: format!("{dtype:?}") }),
    };
    if values.iter().all(|value| value.is_finite()) {
        Ok(values)
    } else {
        Err(CheckpointError::NotFinite { name })
    }
}
