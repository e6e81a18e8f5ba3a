//! How far a run has moved the weights, matrix by matrix and layer by layer.
//!
//! The effective rank is that of Roy and Vetterli, [The effective rank: a measure of effective
//! dimensionality](https://www.eurasip.org/Proceedings/Eusipco/Eusipco2007/Papers/a5p-h05.pdf), EUSIPCO 2007: the
//! exponential of the entropy of the singular values, taken as shares of their sum.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use beear_models::checkpoint::{Checkpoint, StoredWeight};
use nalgebra::DMatrix;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::exit::Mistake;
use crate::hash::{are_same, sha256_of_inputs};
use crate::model::{Model, StoredModel};

/// The longest shorter side of a matrix whose singular values are computed: beyond it they take minutes a model.
const WIDEST: usize = 512;

/// What became of all weights.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct WeightChange {
    /// Layers in their order, the tensors outside of them at the ends.
    pub(crate) layers: Vec<LayerChange>,
    /// Matrices that are too wide for their effective rank.
    pub(crate) n_without_rank: usize,
    /// The side beyond which they are.
    pub(crate) widest: usize,
}

/// What became of the weights of a layer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LayerChange {
    /// `layer 3`, or the name of a tensor outside of the layers.
    pub(crate) name: String,
    /// Frobenius norm of the change.
    pub(crate) norm: f64,
    /// The same as a share of the norm of the weights before.
    pub(crate) relative: f64,
    /// Mean effective rank of the changes of its matrices, where it is computed.
    pub(crate) effective_rank: Option<f64>,
    /// Its tensors.
    pub(crate) tensors: Vec<TensorChange>,
}

/// What became of a tensor.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TensorChange {
    /// Its name in the checkpoint.
    pub(crate) name: String,
    /// Its axes.
    pub(crate) shape: Vec<usize>,
    /// Frobenius norm of the change.
    pub(crate) norm: f64,
    /// Frobenius norm before.
    pub(crate) weight_norm: f64,
    /// The one as a share of the other.
    pub(crate) relative: f64,
    /// Effective rank of the change of a matrix that has changed and is not too wide.
    pub(crate) effective_rank: Option<f64>,
    #[serde(skip)]
    is_too_wide: bool,
}

impl WeightChange {
    /// Compares the model a run was given with the one it left, a tensor at a time.
    ///
    /// # Errors
    ///
    /// If one of them is not there, the first is not the one that the run was given, or they do not match.
    pub(crate) fn of_run(run: &Path, manifest: &Value) -> Result<Self> {
        let given = given(manifest)?;
        let hashes = sha256_of_inputs(Some(&given), &[])?;
        if !are_same(&manifest["sha256"], &hashes, &given) {
            let what = format!("`{given}` is not the model that the run was given");
            return Err(Mistake::input(what, "put it back").into());
        }
        let (before, after) = (given.open()?, Checkpoint::open(&run.join("model"))?);
        let mut layers: BTreeMap<(usize, String), Vec<TensorChange>> = BTreeMap::new();
        for name in before.weight_names() {
            let place = place(&name);
            let change = TensorChange::of(name, [&before, &after])?;
            layers.entry(place).or_default().push(change);
        }
        let n_without_rank = layers.values().flatten().filter(|t| t.is_too_wide).count();
        let layers = layers.into_iter().map(|((_, name), tensors)| LayerChange::of(name, tensors));
        Ok(Self { layers: layers.collect(), n_without_rank, widest: WIDEST })
    }
}

/// The model that a run was given, which is on this machine.
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
            return Err(Mistake::input(what, "name a run that is whole").into());
        }
        let norm =
            |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let weight_norm = norm(&mut was.iter().map(|value| f64::from(*value)));
        let change: Vec<f64> =
            was.iter().zip(&is).map(|(was, is)| f64::from(*is) - f64::from(*was)).collect();
        let norm = norm(&mut change.iter().copied());
        let [rows, columns] = match shape.as_slice() {
            [rows, columns] => [*rows, *columns],
            _ => [0, 0],
        };
        let is_too_wide = rows.min(columns) > WIDEST;
        let has_rank = norm > 0.0 && norm.is_finite() && rows.min(columns) > 0 && !is_too_wide;
        let rank = || effective_rank(&DMatrix::from_row_slice(rows, columns, &change));
        let effective_rank = has_rank.then(rank);
        let relative = share(norm, weight_norm);
        Ok(Self { name, shape, norm, weight_norm, relative, effective_rank, is_too_wide })
    }
}

fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// Where a tensor's layer comes, and what it is called.
fn place(name: &str) -> (usize, String) {
    let layer = name.split("layers.").nth(1).and_then(|rest| rest.split('.').next());
    if let Some(layer) = layer.and_then(|layer| layer.parse::<usize>().ok()) {
        return (layer + 1, format!("layer {layer}"));
    }
    let place = if name.contains("embed") { 0 } else { usize::MAX };
    let own = name.trim_start_matches("model.").trim_end_matches(".weight");
    (place, own.to_owned())
}

/// The effective rank of a matrix that is not zero.
fn effective_rank(matrix: &DMatrix<f64>) -> f64 {
    // Squares of singular values as eigenvalues of the smaller product: in f64 those it loses are below 1e-8 of the
    // largest and weigh nothing.
    let product = if matrix.nrows() <= matrix.ncols() {
        matrix * matrix.transpose()
    } else {
        matrix.tr_mul(matrix)
    };
    let squares = product.symmetric_eigenvalues();
    let values: Vec<f64> = squares.iter().map(|square| square.max(0.0).sqrt()).collect();
    let sum: f64 = values.iter().sum();
    let shares = values.iter().map(|value| value / sum).filter(|share| *share > 0.0);
    (-shares.map(|share| share * share.ln()).sum::<f64>()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_rank_is_the_number_of_equal_singular_values() {
        let outer = DMatrix::from_row_slice(2, 3, &[1.0, 2.0, 3.0, 2.0, 4.0, 6.0]);
        assert!((effective_rank(&outer) - 1.0).abs() < 1e-6);
        let scaled = DMatrix::from_row_slice(3, 2, &[0.0, 5.0, 5.0, 0.0, 0.0, 0.0]);
        assert!((effective_rank(&scaled) - 2.0).abs() < 1e-9);
        // Singular values 3 and 1: shares 3/4 and 1/4, entropy 0.562335.
        let uneven = DMatrix::from_row_slice(2, 2, &[3.0, 0.0, 0.0, 1.0]);
        assert!((effective_rank(&uneven) - 0.562_335_144_618_808_3_f64.exp()).abs() < 1e-9);
    }

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
