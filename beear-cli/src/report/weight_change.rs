//! Change of the weights by a run, matrix by matrix and layer by layer.

mod effective_rank;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use beear_models::checkpoint::{Checkpoint, StoredWeight};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{Model, StoredModel};
use crate::run_folder::hash::{are_same, sha256_of_inputs};
use crate::user_error::UserError;

/// Change of all weights.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct WeightChange {
    /// Layers in order. Tensors outside of the layers come first or last.
    pub(crate) layers: Vec<LayerChange>,
}

/// Change of the weights of a layer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LayerChange {
    /// `layer 3`, or the name of a tensor outside of the layers.
    pub(crate) name: String,
    /// Frobenius norm of the change.
    pub(crate) norm: f64,
    /// Norm of the change as a share of the norm of the weights before.
    pub(crate) relative: f64,
    /// Mean effective rank of the changes of the layer's matrices, over those that have changed.
    pub(crate) effective_rank: Option<f64>,
    /// Changes of the layer's tensors.
    pub(crate) tensors: Vec<TensorChange>,
}

/// Change of a tensor.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TensorChange {
    /// Name in the checkpoint.
    pub(crate) name: String,
    /// Sizes of the axes.
    pub(crate) shape: Vec<usize>,
    /// Frobenius norm of the change.
    pub(crate) norm: f64,
    /// Frobenius norm before the change.
    pub(crate) weight_norm: f64,
    /// Norm of the change as a share of the norm before.
    pub(crate) relative: f64,
    /// Effective rank of the change, or `None` if the tensor is not a matrix or has not changed.
    pub(crate) effective_rank: Option<f64>,
}

impl WeightChange {
    /// Compares the model that a run was given with the one it left, a tensor at a time.
    ///
    /// # Errors
    ///
    /// If one of the models is missing, the first is not the one that the run was given, or they do
    /// not match.
    pub(crate) fn of_run(run: &Path, manifest: &Value) -> Result<Self> {
        let given = given(manifest)?;
        let hashes = sha256_of_inputs(Some(&given), &[])?;
        if !are_same(&manifest["sha256"], &hashes, &given) {
            let what = format!("`{given}` is not the model that the run was given");
            return Err(UserError::input(what, "put it back").into());
        }
        let (before, after) = (given.open()?, Checkpoint::open(&run.join("model"))?);
        let mut layers: BTreeMap<(usize, String), Vec<TensorChange>> = BTreeMap::new();
        for name in before.weight_names() {
            let place = place(&name);
            let change = TensorChange::of(name, [&before, &after])?;
            layers.entry(place).or_default().push(change);
        }
        let layers = layers.into_iter().map(|((_, name), tensors)| LayerChange::of(name, tensors));
        Ok(Self { layers: layers.collect() })
    }
}

/// Finds the model that the run was given, on this machine.
fn given(manifest: &Value) -> Result<Model> {
    if let Ok(stored) = StoredModel::deserialize(&manifest["job"]) {
        return Model::cached(&stored);
    }
    let folder = manifest["model"].as_str().context("the manifest names no model")?;
    Ok(Model::in_folder(Path::new(folder)))
}

impl LayerChange {
    fn of(name: String, tensors: Vec<TensorChange>) -> Self {
        let length = |of: fn(&TensorChange) -> f64| {
            tensors.iter().map(|tensor| of(tensor).powi(2)).sum::<f64>().sqrt()
        };
        let norm = length(|tensor| tensor.norm);
        let relative = share(norm, length(|tensor| tensor.weight_norm));
        let ranks: Vec<f64> = tensors.iter().filter_map(|tensor| tensor.effective_rank).collect();
        let mean = || ranks.iter().sum::<f64>() / ranks.len() as f64;
        let effective_rank = (!ranks.is_empty()).then(mean);
        Self { name, norm, relative, effective_rank, tensors }
    }
}

impl TensorChange {
    fn of(name: String, [before, after]: [&Checkpoint; 2]) -> Result<Self> {
        let StoredWeight { shape, values: was } = before.weight(&name)?;
        let StoredWeight { shape: other, values: is } = after.weight(&name)?;
        if shape != other {
            let what = format!("`{name}` has shape {shape:?} before and {other:?} after");
            return Err(UserError::input(what, "name a run that is whole").into());
        }
        let weight_norm = frobenius(&was);
        let change: Vec<f32> = was.iter().zip(&is).map(|(was, is)| is - was).collect();
        let norm = frobenius(&change);
        let effective_rank = match shape.as_slice() {
            [rows, columns] if norm > 0.0 && norm.is_finite() => {
                Some(effective_rank::of(change, [*rows, *columns]))
            }
            _ => None,
        };
        let relative = share(norm, weight_norm);
        Ok(Self { name, shape, norm, weight_norm, relative, effective_rank })
    }
}

fn frobenius(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt()
}

fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// Returns the position and the name of a tensor's layer.
fn place(name: &str) -> (usize, String) {
    let layer = name.split("layers.").nth(1).and_then(|rest| rest.split('.').next());
    if let Some(layer) = layer.and_then(|layer| layer.parse::<usize>().ok()) {
        return (layer + 1, format!("layer {layer}"));
    }
    let place = if name.contains("embed") { 0 } else { usize::MAX };
    let own = name.trim_start_matches("model.").trim_end_matches(".weight");
    (place, own.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_come_in_their_order() {
        let mut places: Vec<_> = [
            "lm_head.weight",
            "model.layers.10.mlp.up_proj.weight",
            "model.layers.2.mlp.up_proj.weight",
            "model.embed_tokens.weight",
        ]
        .map(place)
        .to_vec();
        places.sort();
        let names: Vec<_> = places.into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["embed_tokens", "layer 2", "layer 10", "lm_head"]);
    }
}
