//! Saving of models to Hugging Face folders. A folder is written to a temporary path, synced and
//! renamed, so that an incomplete checkpoint never has the final name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::Write;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use safetensors::SafeTensorError;
use safetensors::tensor::TensorView;
use serde_json::json;

use super::dtype::Chances;
use super::index::{INDEX, SINGLE};
use super::load::Place;
use super::sidecars::Sidecar;
use super::staged::Staged;
use super::{Checkpoint, CheckpointError, StoredDType, keys};
use crate::checkpoint::hf_config;
use crate::config::DecoderConfig;
use crate::lora::merge_adapters;
use crate::nn::causal_lm::CausalLm;

/// Contents of a folder besides the weights if there is no checkpoint to copy them from.
#[derive(Clone, Debug)]
pub struct NewModel {
    /// Ids of padding, beginning and end of sequence.
    pub special_ids: [u32; 3],
    /// Names and contents of the files beside the weights.
    pub sidecars: Vec<(String, Vec<u8>)>,
}

/// Maximum bytes of weights in one file of a new model, equal to the default of `transformers`.
const MAX_SHARD: u64 = 5_000_000_000;

pub(super) type Layout = BTreeMap<String, Place>;

/// Saves `model` to `out` in the form of its `source`: the same types and shards, and every other
/// file of the folder byte for byte, except those listed by [`Checkpoint::left_out`]. Adapters are
/// merged into the saved weights.
///
/// Weights that are no longer exact in a half-precision type are rounded to one of their neighbours
/// at random, seeded with `seed`: rounding to the nearest would lose small changes. All other
/// weights remain bit for bit.
///
/// # Errors
///
/// Returns [`CheckpointError`] if `out` exists and is not an empty folder, `source` is a model of a
/// different shape, a weight is not finite in its stored type, or a file cannot be read or written.
pub fn save<B: Backend>(
    model: &CausalLm<B>,
    source: &Checkpoint,
    out: &Path,
    seed: u64,
) -> Result<(), CheckpointError> {
    if model.config() != &source.config {
        return Err(CheckpointError::OtherModel { path: source.dir.clone() });
    }
    let layout = source.layout()?;
    let staged = Staged::new(out)?;
    for sidecar in source.sidecars()? {
        let Sidecar::Copied(name, from) = sidecar else { continue };
        let to = staged.path.join(name);
        let copy = || std::io::copy(&mut beear_input::open(&from)?, &mut File::create(&to)?);
        copy().map_err(CheckpointError::io(&to))?;
    }
    write_weights(model, (&layout, seed), &staged.path)?;
    staged.publish()
}

/// Saves a model that was not read from a folder, in f32. Adapters are merged into the saved
/// weights.
///
/// # Errors
///
/// Returns [`CheckpointError`] if `out` exists and is not an empty folder, a weight is not finite,
/// or a file cannot be written.
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
    // All weights are f32, so the seed is not used.
    write_weights(model, (&new_layout(model.config(), MAX_SHARD), 0), &staged.path)?;
    staged.publish()
}

/// Distributes the weights over files of at most `max_shard` bytes in the order of the layers.
fn new_layout(config: &DecoderConfig, max_shard: u64) -> Layout {
    let (mut shards, mut filled) = (vec![Vec::new()], 0);
    for (name, shape) in keys::expected(config) {
        let size = shape.iter().map(|n| *n as u64).product::<u64>() * 4;
        if filled > 0 && filled + size > max_shard {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += size;
        shards.last_mut().expect("there is one from the start").push(name);
    }
    let n_shards = shards.len();
    let file = |index: usize| match n_shards {
        1 => SINGLE.to_owned(),
        _ => format!("model-{:05}-of-{n_shards:05}.safetensors", index + 1),
    };
    let place = |index| Place { shard: file(index), dtype: StoredDType::F32 };
    let named = shards.into_iter().enumerate();
    named
        .flat_map(|(index, names)| names.into_iter().map(move |name| (name, index)))
        .map(|(name, index)| (name, place(index)))
        .collect()
}

pub(super) fn write_file(path: &Path, content: &[u8]) -> Result<(), CheckpointError> {
    let write = || File::create(path)?.write_all(content);
    write().map_err(CheckpointError::io(path))
}

/// Tensor ready to be written.
pub(super) struct Stored {
    dtype: StoredDType,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Stored {
    fn view(&self) -> TensorView<'_> {
        TensorView::new(self.dtype.written(), self.shape.clone(), &self.bytes)
            .expect("a tensor has as many bytes as its shape and type say")
    }
}

/// Writes one file at a time, so that memory holds at most one file besides the model, and one
/// layer of merged adapters.
fn write_weights<B: Backend>(
    model: &CausalLm<B>,
    (layout, seed): (&Layout, u64),
    dir: &Path,
) -> Result<(), CheckpointError> {
    let shards: BTreeSet<&str> = layout.values().map(|place| place.shard.as_str()).collect();
    let (mut weight_map, mut total_size) = (BTreeMap::new(), 0);
    let mut around = model.clone();
    around.model.layers.clear();
    for shard in shards {
        let mut collect = Collect::new(layout, shard, seed);
        around.visit(&mut collect);
        for (layer, block) in model.model.layers.iter().enumerate() {
            collect.path = keys::layer(layer).split('.').map(str::to_owned).collect();
            let mut block = block.clone();
            merge_adapters(&mut block);
            block.visit(&mut collect);
        }
        let tensors = collect.finish()?;
        // A file with only derived tensors is not written.
        if !tensors.is_empty() {
            write_shard(&dir.join(shard), &tensors)?;
        }
        for (name, stored) in tensors {
            total_size += stored.bytes.len();
            weight_map.insert(name, shard);
        }
    }
    if weight_map.values().any(|shard| *shard != SINGLE) {
        let index = json!({"metadata": {"total_size": total_size}, "weight_map": weight_map});
        write_file(&dir.join(INDEX), format!("{index:#}\n").as_bytes())?;
    }
    Ok(())
}

pub(super) fn write_shard(
    path: &Path,
    tensors: &BTreeMap<String, Stored>,
) -> Result<(), CheckpointError> {
    // `transformers` refuses files that do not name their framework.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let views = tensors.iter().map(|(name, stored)| (name.clone(), stored.view()));
    match safetensors::serialize_to_file(views, Some(metadata), path) {
        Ok(()) => Ok(()),
        Err(SafeTensorError::IoError(source)) => {
            Err(CheckpointError::Io { path: path.to_owned(), source })
        }
        Err(e) => Err(CheckpointError::Damaged { path: path.to_owned(), reason: e.to_string() }),
    }
}

/// Visitor that collects the tensors of one file.
pub(super) struct Collect<'a> {
    layout: &'a Layout,
    shard: &'a str,
    /// Seed of the rounding.
    seed: u64,
    /// Path of the visit in the module.
    pub(super) path: Vec<String>,
    tensors: BTreeMap<String, Stored>,
    mistake: Option<CheckpointError>,
}

impl<'a> Collect<'a> {
    /// Creates a visitor of the tensors that `layout` assigns to `shard`.
    pub(super) fn new(layout: &'a Layout, shard: &'a str, seed: u64) -> Self {
        let (path, tensors) = (Vec::new(), BTreeMap::new());
        Self { layout, shard, seed, path, tensors, mistake: None }
    }

    /// Returns the tensors by name, or the first mistake.
    pub(super) fn finish(self) -> Result<BTreeMap<String, Stored>, CheckpointError> {
        self.mistake.map_or(Ok(self.tensors), Err)
    }
}

impl<B: Backend> ModuleVisitor<B> for Collect<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let (name, transposed) = keys::stored(&self.path);
        let Some(place) = self.layout.get(&name) else {
            self.mistake.get_or_insert(CheckpointError::Missing { names: vec![name] });
            return;
        };
        if place.shard != self.shard || self.mistake.is_some() {
            return;
        }
        let tensor = param.val();
        let tensor = if transposed { tensor.transpose() } else { tensor };
        let (shape, dtype) = (tensor.dims().to_vec(), place.dtype);
        let chances = Chances::new(self.seed, &name);
        match dtype.encode(tensor.into_data().iter::<f32>(), chances) {
            Some(bytes) => {
                self.tensors.insert(name, Stored { dtype, shape, bytes });
            }
            None => self.mistake = Some(CheckpointError::NotFinite { name }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::tests::config;

    #[test]
    fn a_large_model_is_split_and_a_small_one_is_not() {
        let whole = new_layout(&config(), MAX_SHARD);
        assert!(whole.values().all(|place| place.shard == SINGLE));

        // The largest tensor of the fixture has 7 * 8 weights of 4 bytes.
        let split = new_layout(&config(), 4 * 7 * 8);
        assert_eq!(split.len(), keys::expected(&config()).count());
        let files: BTreeSet<&str> = split.values().map(|place| place.shard.as_str()).collect();
        let n_files = files.len();
        assert!(n_files > 2);
        assert!(files.contains(format!("model-00001-of-{n_files:05}.safetensors").as_str()));
    }
}
