//! Tests of whole adapter folders: written adapters are read back, and broken folders are refused.

use std::fs;
use std::path::{Path, PathBuf};

use burn::backend::Autodiff;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::checkpoint::tests::{Cpu, Entry, SEED, entries, load, saved, weights, write_entries};
use crate::checkpoint::{Checkpoint, base_name_of_adapters, base_of_adapters, save};
use crate::lora::tests::{adapted, logits};
use crate::lora::training_scope::n_trained;

/// Writes a base model in `model` and its adapters in `adapter`; returns the folders and the
/// adapted model.
fn written() -> (TempDir, PathBuf, CausalLm<Cpu>) {
    let dir = tempfile::tempdir().unwrap();
    let model = adapted(0..2);
    let (_other, other, _) = saved(|_| ());
    let base = dir.path().join("model");
    save(&model.clone().without_adapters(), &Checkpoint::open(&other).unwrap(), &base, SEED)
        .unwrap();
    let out = dir.path().join("adapter");
    save_adapters(&model, &named(&base), &out).unwrap();
    (dir, out, model)
}

/// Returns a folder as the name of a base model.
fn named(dir: &Path) -> BaseName {
    BaseName { name: dir.to_str().unwrap().to_owned(), revision: None }
}

/// Sets a key of `adapter_config.json`.
fn set(dir: &Path, key: &str, value: Value) {
    let path = dir.join(CONFIG);
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config[key] = value;
    fs::write(path, config.to_string()).unwrap();
}

/// Returns the error of loading a folder after `edit`.
fn refused(edit: impl FnOnce(&Path, &mut Vec<Entry>)) -> CheckpointError {
    let (_dir, path, _) = written();
    let mut tensors = entries(&path.join(WEIGHTS));
    edit(&path, &mut tensors);
    write_entries(&path.join(WEIGHTS), &tensors);
    load(&path).unwrap_err()
}

#[test]
fn a_folder_of_adapters_is_the_merged_model() {
    let (_dir, path, model) = written();
    let back = load(&path).unwrap();
    let merged = model.clone().merge_adapters();
    assert_eq!(weights(&back), weights(&merged));
    assert_eq!(logits(&back), logits(&merged));
    let opened = Checkpoint::open(&path).unwrap();
    assert_eq!(opened.adapters(), Some(path.as_path()));
    assert_eq!(base_of_adapters(&path), Some(opened.dir.clone()));
    assert_eq!(base_of_adapters(&opened.dir), None);
}

#[test]
fn a_weight_alone_is_that_of_the_merged_model() {
    let (dir, path, model) = written();
    let merged = dir.path().join("merged");
    save(
        &load(&path).unwrap(),
        &Checkpoint::open(&dir.path().join("model")).unwrap(),
        &merged,
        SEED,
    )
    .unwrap();
    let (adapted, merged) = (Checkpoint::open(&path).unwrap(), Checkpoint::open(&merged).unwrap());
    let base = Checkpoint::open(&adapted.dir).unwrap();
    let mut n_adapted = 0;
    for name in adapted.weight_names() {
        let [one, whole, base] = [&adapted, &merged, &base].map(|c| c.weight(&name).unwrap());
        assert_eq!(one.shape, whole.shape, "{name}");
        let pairs = one.values.iter().zip(&whole.values);
        assert!(pairs.clone().all(|(one, whole)| (one - whole).abs() < 1e-6), "{name}");
        n_adapted += usize::from(one != base);
    }
    assert_eq!(n_adapted, model.adapters().count());
    assert!(matches!(base.weight("model.layers.9.x"), Err(CheckpointError::Missing { .. })));
}

#[test]
fn merged_weights_require_gradients_where_the_backend_has_them() {
    let (_dir, path, _) = written();
    let device = Default::default();
    let model = Checkpoint::open(&path).unwrap().load::<Autodiff<Cpu>>(&device).unwrap();
    assert_eq!(n_trained(&model), model.config().n_weights());
    let layer = &model.model.layers[0];
    assert!(layer.self_attn.q_proj.weight.val().is_require_grad(), "merged");
    assert!(layer.self_attn.k_proj.weight.val().is_require_grad(), "as it was");
}

#[test]
fn tensors_have_the_names_and_shapes_of_peft() {
    let (_dir, path, model) = written();
    let tensors = entries(&path.join(WEIGHTS));
    assert_eq!(tensors.len(), 2 * 3 * 2);
    let prefix = "base_model.model.model.layers.1.mlp.down_proj";
    let found = |part: &str| {
        let name = format!("{prefix}.{part}.weight");
        tensors.iter().find(|entry| entry.0 == name).unwrap()
    };
    assert_eq!(found("lora_A").2, [2, 5]);
    assert_eq!(found("lora_B").2, [8, 2]);
    let b = model.model.layers[1].mlp.down_proj.adapter.as_ref().unwrap().lora_b.val();
    let values = b.transpose().into_data();
    let bytes = values.iter::<f32>().flat_map(f32::to_le_bytes);
    assert_eq!(found("lora_B").3, bytes.collect::<Vec<u8>>());

    let config: Value = serde_json::from_slice(&fs::read(path.join(CONFIG)).unwrap()).unwrap();
    assert_eq!((&config["r"], &config["lora_alpha"]), (&json!(2), &json!(3)));
    assert_eq!(config["target_modules"], json!(["q_proj", "o_proj", "down_proj"]));
    assert_eq!(config["layers_to_transform"], Value::Null);
}

#[test]
fn adapters_of_some_layers_come_back() {
    let (dir, path, _) = written();
    let model = adapted(1..2);
    let base = Checkpoint::open(&path).unwrap();
    let out = dir.path().join("one");
    save_adapters(&model, &named(&base.dir), &out).unwrap();
    assert_eq!(entries(&out.join(WEIGHTS)).len(), 6);
    load(&out).unwrap();
}

#[test]
fn a_model_with_adapters_is_saved_merged() {
    let (dir, path, model) = written();
    let out = dir.path().join("merged");
    save(&model, &Checkpoint::open(&path).unwrap(), &out, SEED).unwrap();
    assert_eq!(weights(&load(&out).unwrap()), weights(&load(&path).unwrap()));
    assert!(!out.join(CONFIG).exists() && !out.join(WEIGHTS).exists());
}

#[test]
fn the_base_is_found_beside_the_adapters_or_named_as_missing() {
    let (_dir, path, _) = written();
    set(&path, "base_model_name_or_path", json!("../model"));
    load(&path).unwrap();
    set(&path, "base_model_name_or_path", json!("an-organisation/a-model"));
    let error = load(&path).unwrap_err();
    assert!(matches!(error, CheckpointError::NoBase { .. }), "{error}");
    assert!(error.hint().unwrap().contains("base_model_name_or_path"));
    set(&path, "base_model_name_or_path", json!("."));
    let error = load(&path).unwrap_err();
    assert!(matches!(error, CheckpointError::BaseIsAdapter { .. }), "{error}");
}

#[test]
fn a_base_that_is_elsewhere_can_be_brought() {
    let (dir, path, _) = written();
    let here = weights(&load(&path).unwrap());
    set(&path, "base_model_name_or_path", json!("an-organisation/a-model"));
    set(&path, "revision", json!("v2"));
    let name = base_name_of_adapters(&path).unwrap();
    assert_eq!((&*name.name, name.revision.as_deref()), ("an-organisation/a-model", Some("v2")));
    assert_eq!(base_of_adapters(&path), None);

    let base = dir.path().join("model");
    let opened = Checkpoint::open_on(&path, Some(&base)).unwrap();
    assert_eq!(weights(&opened.load::<Cpu>(&Default::default()).unwrap()), here);
    let error = Checkpoint::open_on(&path, Some(&path)).unwrap_err();
    assert!(matches!(error, CheckpointError::BaseIsAdapter { .. }), "{error}");
    // Only the model is read from a folder without adapters.
    assert_eq!(Checkpoint::open_on(&base, Some(&path)).unwrap().dir, base);
    assert_eq!(base_name_of_adapters(&base), None);
}

#[test]
fn every_broken_tensor_is_named() {
    let error = refused(|_, tensors| drop(tensors.remove(3)));
    assert!(matches!(error, CheckpointError::Missing { .. }), "{error}");
    let error = refused(|_, tensors| tensors[3].2.reverse());
    assert!(matches!(error, CheckpointError::Shape { .. }), "{error}");
    let error = refused(|_, tensors| tensors[3].3[..4].copy_from_slice(&f32::NAN.to_le_bytes()));
    assert!(matches!(error, CheckpointError::NotFinite { .. }), "{error}");
    let error = refused(|_, tensors| {
        let mut extra = tensors[0].clone();
        extra.0 = "base_model.model.lm_head.lora_A.weight".to_owned();
        tensors.push(extra);
    });
    assert!(matches!(error, CheckpointError::Unused { .. }), "{error}");
}

#[test]
fn a_config_that_does_not_fit_the_base_or_the_tensors_is_refused() {
    let with = |key: &str, value: Value| refused(|path, _| set(path, key, value));
    for (key, value) in
        [("target_modules", json!(["lm_head"])), ("layers_to_transform", json!([2]))]
    {
        let error = with(key, value);
        assert!(matches!(error, CheckpointError::Adapter { .. }), "{error}");
    }
    let error = with("r", json!(3));
    assert!(matches!(error, CheckpointError::Shape { .. }), "{error}");
    let error = with("target_modules", json!(["q_proj", "o_proj", "mlp.up_proj"]));
    assert!(matches!(error, CheckpointError::Missing { .. }), "{error}");
    let error = with("target_modules", json!(["q_proj", "o_proj"]));
    assert!(matches!(error, CheckpointError::Unused { .. }), "{error}");
}

#[test]
fn pickled_adapters_are_refused() {
    let (_dir, path, _) = written();
    fs::rename(path.join(WEIGHTS), path.join("adapter_model.bin")).unwrap();
    let error = load(&path).unwrap_err();
    assert!(matches!(error, CheckpointError::Pickle { .. }), "{error}");
}
