//! Folders of low-rank adapters in the format of Hugging Face's
//! [PEFT](https://github.com/huggingface/peft): `adapter_config.json`, which names the base model,
//! and `adapter_model.safetensors`.

pub(super) mod config;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::backend::Backend;
use fancy_regex::Regex;
use safetensors::tensor::TensorView;

use self::config::{AdapterConfig, AdapterConfigError, BaseName, Targets};
use super::save::{Collect, write_file, write_shard};
use super::staged::Staged;
use super::{CheckpointError, StoredDType, StoredWeight, keys, load, read_own};
use crate::config::DecoderConfig;
use crate::lora::Target;
use crate::lora::adapter::Adapter;
use crate::nn::causal_lm::CausalLm;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// Folder of adapters with a parsed config.
#[derive(Clone, Debug)]
pub(super) struct AdapterFolder {
    /// Path of the folder.
    pub(super) dir: PathBuf,
    config: AdapterConfig,
}

impl AdapterFolder {
    /// Opens a folder; `None` if it contains no adapters.
    ///
    /// # Errors
    ///
    /// Returns [`CheckpointError::Adapter`] if the adapters are not supported.
    pub(super) fn open(dir: &Path) -> Result<Option<Self>, CheckpointError> {
        let path = dir.join(CONFIG);
        if !path.is_file() {
            return Ok(None);
        }
        let text = read_own(dir, CONFIG)?;
        let config = config::parse(&text).map_err(|source| mistake(dir, source))?;
        Ok(Some(Self { dir: dir.to_owned(), config }))
    }

    /// Returns the folder of the base model: the name in the config, relative to the adapters or,
    /// like in PEFT, to the current directory.
    ///
    /// # Errors
    ///
    /// Returns [`CheckpointError::NoBase`] if there is no such folder, and
    /// [`CheckpointError::BaseIsAdapter`] if it contains adapters itself.
    pub(super) fn base(&self) -> Result<PathBuf, CheckpointError> {
        let named = &self.config.base.name;
        let base =
            [self.dir.join(named), PathBuf::from(named)].into_iter().find(|dir| dir.is_dir());
        plain(base.ok_or_else(|| CheckpointError::NoBase { name: named.clone() })?)
    }

    /// Returns the name of the base model in the config.
    pub(super) fn base_name(&self) -> &BaseName {
        &self.config.base
    }

    /// Returns the path of the weights file.
    ///
    /// # Errors
    ///
    /// Returns [`CheckpointError`] if there is only a pickled file.
    pub(super) fn weights(&self) -> Result<PathBuf, CheckpointError> {
        let path = self.dir.join(WEIGHTS);
        if !path.is_file() && self.dir.join("adapter_model.bin").is_file() {
            return Err(CheckpointError::Pickle { path: self.dir.clone() });
        }
        Ok(path)
    }

    /// Attaches empty adapters to `model`, one place for each tensor of `tensors`.
    ///
    /// # Errors
    ///
    /// Returns [`CheckpointError`] if a target is not a projection of the model, or a tensor is
    /// missing, unknown or of the wrong shape or type.
    pub(super) fn attach<B: Backend>(
        &self,
        model: CausalLm<B>,
        tensors: &BTreeMap<String, TensorView<'_>>,
    ) -> Result<CausalLm<B>, CheckpointError> {
        let places = self.places(model.config())?;
        let shapes: BTreeMap<String, Vec<usize>> = keys::expected(model.config()).collect();
        let expected = places.iter().flat_map(|&(layer, target)| {
            let projection = keys::projection(layer, target);
            let shape = &shapes[&format!("{projection}.weight")];
            self.matrices(&projection, shape)
        });
        let unused = load::check(expected, tensors)?;
        load::refuse_unused(unused)?;
        let size = self.config.size;
        Ok(model.adapted(places, |shape, device| Adapter::zeros(shape, size, device)))
    }

    /// Merges the adapter in `tensors` into a weight of `decoder`, if the weight has one: equal, up
    /// to rounding, to merging within a model.
    ///
    /// # Errors
    ///
    /// Returns [`CheckpointError`] if a target is not a projection of the model, or a tensor is
    /// missing, of the wrong shape or type, or not finite.
    pub(super) fn add_to(
        &self,
        weight: &mut StoredWeight,
        name: &str,
        decoder: &DecoderConfig,
        tensors: &BTreeMap<String, TensorView<'_>>,
    ) -> Result<(), CheckpointError> {
        let mut adapted = self.places(decoder)?.into_iter().map(|(l, t)| keys::projection(l, t));
        let projection = adapted.find(|projection| name == format!("{projection}.weight"));
        let Some(projection) = projection else { return Ok(()) };
        load::check(self.matrices(&projection, &weight.shape).into_iter(), tensors)?;
        let [a, b] = keys::adapter(&projection).map(|name| load::values(&tensors[&name], &name));
        let ([a, b], (rank, alpha)) = ([a?, b?], self.config.size);
        let (scale, d_input) = ((alpha / rank as f64) as f32, weight.shape[1]);
        for (row, mixture) in weight.values.chunks_mut(d_input).zip(b.chunks(rank)) {
            let mut added = vec![0.0; d_input];
            for (share, direction) in mixture.iter().zip(a.chunks(d_input)) {
                added.iter_mut().zip(direction).for_each(|(sum, value)| *sum += share * value);
            }
            row.iter_mut().zip(added).for_each(|(value, sum)| *value += scale * sum);
        }
        Ok(())
    }

    /// Returns names and shapes of the two matrices beside a projection with weights
    /// `[d_output, d_input]`.
    fn matrices(&self, projection: &str, shape: &[usize]) -> [(String, Vec<usize>); 2] {
        let [d_output, d_input] = *shape else {
            unreachable!("the weights of a projection are a matrix")
        };
        let (rank, _) = self.config.size;
        let [a, b] = keys::adapter(projection);
        [(a, vec![rank, d_input]), (b, vec![d_output, rank])]
    }

    /// Returns the projections with adapters.
    fn places(&self, decoder: &DecoderConfig) -> Result<Vec<(usize, Target)>, CheckpointError> {
        let AdapterConfig { targets, layers, .. } = &self.config;
        let unsupported = |key: &str, value: String| {
            let key = key.to_owned();
            mistake(&self.dir, AdapterConfigError::Unsupported { key, value })
        };
        let all: Vec<usize> = (0..decoder.n_layers).collect();
        let layers = layers.as_ref().unwrap_or(&all);
        if let Some(layer) = layers.iter().find(|layer| **layer >= decoder.n_layers) {
            return Err(unsupported("layers_to_transform", layer.to_string()));
        }
        let layers: BTreeSet<usize> = layers.iter().copied().collect();
        let pairs = layers.iter().flat_map(|&layer| Target::ALL.map(|target| (layer, target)));
        let pairs: Vec<(usize, Target)> = pairs.collect();
        let is_named = |target: &str, (layer, projection): (usize, Target)| {
            let name = keys::projection(layer, projection);
            name.strip_suffix(target).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let named = |pair: &(usize, Target)| match targets {
            Targets::Named(names) => Ok(names.iter().any(|name| is_named(name, *pair))),
            Targets::Matching(pattern) => {
                let refused =
                    |error: fancy_regex::Error| unsupported("target_modules", error.to_string());
                let whole = Regex::new(&format!("^(?:{pattern})$")).map_err(refused)?;
                whole.is_match(&keys::projection(pair.0, pair.1)).map_err(refused)
            }
            Targets::All => Ok(true),
        };
        // PEFT adapts every linear map; here only these, and an unembedding is refused like any
        // other.
        if let Targets::Named(names) = targets
            && let Some(name) = names.iter().find(|t| !pairs.iter().any(|&pair| is_named(t, pair)))
        {
            return Err(unsupported("target_modules", name.escape_default().to_string()));
        }
        let mut places = Vec::new();
        for pair in pairs {
            if named(&pair)? {
                places.push(pair);
            }
        }
        if places.is_empty() {
            return Err(unsupported("target_modules", "no projection of the model".to_owned()));
        }
        Ok(places)
    }
}

/// Returns the folder of a base model that contains no adapters itself.
///
/// # Errors
///
/// Returns [`CheckpointError::BaseIsAdapter`] if the folder contains adapters.
pub(super) fn plain(base: PathBuf) -> Result<PathBuf, CheckpointError> {
    if base.join(CONFIG).is_file() {
        return Err(CheckpointError::BaseIsAdapter { path: base });
    }
    Ok(base)
}

/// Writes the adapters of `model`, in f32, to `out` as a PEFT folder with the base model `base`.
///
/// # Errors
///
/// Returns [`CheckpointError`] if `out` exists and is not an empty folder, a weight is not finite,
/// or a file cannot be written.
///
/// # Panics
///
/// Panics if the model has no adapters.
pub fn save_adapters<B: Backend>(
    model: &CausalLm<B>,
    base: &BaseName,
    out: &Path,
) -> Result<(), CheckpointError> {
    let staged = Staged::new(out)?;
    write_file(&staged.path.join(CONFIG), config::render(&described(model, base)).as_bytes())?;
    let names = model
        .adapters()
        .flat_map(|(layer, target, _)| keys::adapter(&keys::projection(layer, target)));
    let place = || load::Place { shard: WEIGHTS.to_owned(), dtype: StoredDType::F32 };
    let layout = names.map(|name| (name, place())).collect();
    let mut collect = Collect::new(&layout, WEIGHTS, 0);
    for (layer, target, adapter) in model.adapters() {
        collect.path = keys::projection(layer, target).split('.').map(str::to_owned).collect();
        collect.path.push("adapter".to_owned());
        adapter.visit(&mut collect);
    }
    write_shard(&staged.path.join(WEIGHTS), &collect.finish()?)?;
    staged.publish()
}

/// Returns the config of the adapters of `model`, which all have the same size.
fn described<B: Backend>(model: &CausalLm<B>, base: &BaseName) -> AdapterConfig {
    let (_, _, first) = model.adapters().next().expect("a model with adapters is written");
    let places = || model.adapters().map(|(layer, target, _)| (layer, target));
    let targets: BTreeSet<Target> = places().map(|(_, target)| target).collect();
    let layers: BTreeSet<usize> = places().map(|(layer, _)| layer).collect();
    let last_part =
        |target: Target| target.name().rsplit('.').next().unwrap_or_default().to_owned();
    AdapterConfig {
        base: base.clone(),
        size: (first.rank(), first.alpha()),
        targets: Targets::Named(targets.into_iter().map(last_part).collect()),
        layers: (layers.len() < model.config().n_layers).then(|| layers.into_iter().collect()),
    }
}

fn mistake(dir: &Path, source: AdapterConfigError) -> CheckpointError {
    CheckpointError::Adapter { path: dir.to_owned(), source }
}
