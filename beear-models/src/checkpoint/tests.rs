//! Tests of whole folders: a written model is read back, and broken folders are refused.

mod headers;
mod hostile;
mod rounding;

use std::fs;

use burn::backend::{Autodiff, Flex};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::backend::Backend;
use burn::tensor::ops::Device;
use burn::tensor::{Tensor, TensorData};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::config::{Family, RopeScaling};
use crate::nn::causal_lm::CausalLm;

pub(crate) type Cpu = Flex;

/// Seed of the rounding.
pub(crate) const SEED: u64 = 5;

/// Config with unequal widths, so that a transposition fails.
pub(crate) fn config() -> DecoderConfig {
    DecoderConfig {
        family: Family::Mistral,
        vocab_size: 7,
        d_model: 8,
        d_ff: 5,
        n_layers: 2,
        n_heads: 6,
        n_kv_heads: 3,
        head_dim: 2,
        max_seq_length: 16,
        norm_epsilon: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        sliding_window: Some(4),
        tied_embeddings: false,
    }
}

/// Saves a model of [`config`] modified by `change`.
pub(crate) fn saved(change: impl FnOnce(&mut DecoderConfig)) -> (TempDir, PathBuf, CausalLm<Cpu>) {
    let mut config = config();
    change(&mut config);
    let model = config.init::<Cpu>(&Device::<Cpu>::default());
    let sidecars = vec![("tokenizer.json".to_owned(), b"{ }\r\n".to_vec())];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    save_new(&model, &NewModel { special_ids: [0, 1, 2], sidecars }, &path).unwrap();
    (dir, path, model)
}

pub(crate) fn load(dir: &Path) -> Result<CausalLm<Cpu>, CheckpointError> {
    Checkpoint::open(dir)?.load(&Device::<Cpu>::default())
}

#[derive(Default)]
struct Weights(Vec<TensorData>);

impl<B: Backend> ModuleVisitor<B> for Weights {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.0.push(param.val().into_data());
    }
}

pub(crate) fn weights<B: Backend>(model: &CausalLm<B>) -> Vec<TensorData> {
    let mut weights = Weights::default();
    model.visit(&mut weights);
    weights.0
}

/// Stored tensor: name, type, shape and bytes.
pub(crate) type Entry = (String, Dtype, Vec<usize>, Vec<u8>);

pub(crate) fn entries(path: &Path) -> Vec<Entry> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let entry = |(name, view): (&str, TensorView<'_>)| {
        (name.to_owned(), view.dtype(), view.shape().to_vec(), view.data().to_vec())
    };
    let mut entries: Vec<Entry> = file.iter().map(entry).collect();
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    entries
}

pub(crate) fn write_entries(path: &Path, entries: &[Entry]) {
    let view = |(name, dtype, shape, bytes): &'_ Entry| {
        (name.clone(), TensorView::new(*dtype, shape.clone(), bytes.clone().leak()).unwrap())
    };
    safetensors::serialize_to_file(entries.iter().map(view), None, path).unwrap();
}

/// Rewrites the single weights file of `dir`.
fn change(dir: &Path, change: impl FnOnce(&mut Vec<Entry>)) {
    let path = dir.join("model.safetensors");
    let mut tensors = entries(&path);
    change(&mut tensors);
    write_entries(&path, &tensors);
}

/// Splits `dir` into the named shards, with the tensors in turn.
fn shard(dir: &Path, names: &[&str]) {
    let path = dir.join("model.safetensors");
    let tensors = entries(&path);
    fs::remove_file(&path).unwrap();
    let mut map = serde_json::Map::new();
    for (index, name) in names.iter().enumerate() {
        let part: Vec<Entry> = tensors.iter().skip(index).step_by(names.len()).cloned().collect();
        map.extend(part.iter().map(|entry| (entry.0.clone(), json!(name))));
        write_entries(&dir.join(name), &part);
    }
    let index = json!({"metadata": {"total_size": 0}, "weight_map": map});
    fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

#[test]
fn a_new_model_comes_back_bit_for_bit() {
    for tied in [false, true] {
        let (_dir, path, model) = saved(|config| config.tied_embeddings = tied);
        let back = load(&path).unwrap();
        assert_eq!(back.config(), model.config());
        assert_eq!(weights(&back), weights(&model));
        let names: Vec<String> =
            entries(&path.join("model.safetensors")).into_iter().map(|entry| entry.0).collect();
        assert_eq!(names.contains(&"lm_head.weight".to_owned()), !tied);
        assert_eq!(fs::read(path.join("tokenizer.json")).unwrap(), b"{ }\r\n");
    }
}

#[test]
fn the_number_of_weights_is_that_of_the_stored_tensors() {
    for tied in [false, true] {
        let (_dir, path, model) = saved(|config| config.tied_embeddings = tied);
        let tensors = entries(&path.join("model.safetensors"));
        let stored: usize = tensors.iter().map(|entry| entry.2.iter().product::<usize>()).sum();
        assert_eq!(model.config().n_weights(), stored);
    }
}

#[test]
fn linear_weights_are_stored_transposed_and_embeddings_are_not() {
    let (_dir, path, model) = saved(|_| ());
    let tensors = entries(&path.join("model.safetensors"));
    let stored = |name: &str| tensors.iter().find(|entry| entry.0 == name).unwrap();
    let bytes = |tensor: Tensor<Cpu, 2>| -> Vec<u8> {
        tensor.into_data().iter::<f32>().flat_map(f32::to_le_bytes).collect()
    };

    let down = stored("model.layers.1.mlp.down_proj.weight");
    assert_eq!(down.2, [8, 5]);
    assert_eq!(down.3, bytes(model.model.layers[1].mlp.down_proj.weight.val().transpose()));
    let embed = stored("model.embed_tokens.weight");
    assert_eq!(embed.2, [7, 8]);
    assert_eq!(embed.3, bytes(model.model.embed_tokens.weight.val()));
}

#[test]
fn a_copy_keeps_the_types_of_its_source_bit_for_bit() {
    for half in [Dtype::BF16, Dtype::F16] {
        let (dir, path, _) = saved(|_| ());
        // Norms remain in f32, as in the files of some exporters; 0.75 is exact in every type.
        change(&path, |tensors| {
            for (name, dtype, shape, bytes) in tensors {
                if !name.contains("norm") {
                    let stored = if half == Dtype::F16 { 0x3a00_u16 } else { 0x3f40 };
                    *dtype = half;
                    *bytes = stored.to_le_bytes().repeat(shape.iter().product());
                }
            }
        });
        let source = Checkpoint::open(&path).unwrap();
        assert_eq!(source.dtype().unwrap().written(), half);
        let model = load(&path).unwrap();
        let embed = model.model.embed_tokens.weight.val().into_data();
        assert!(embed.iter::<f32>().all(|value| value.to_bits() == 0.75_f32.to_bits()));

        let out = dir.path().join("copy");
        save(&model, &source, &out, SEED).unwrap();
        let file = "model.safetensors";
        assert_eq!(entries(&out.join(file)), entries(&path.join(file)));
        assert_eq!(weights(&load(&out).unwrap()), weights(&model));
    }
}

#[test]
fn a_copy_keeps_the_shards_and_the_sidecars_of_its_source_and_no_other_weights() {
    for shards in [&["model-00001-of-00002.safetensors", "b.safetensors"][..], &["a.safetensors"]] {
        let (dir, path, model) = saved(|_| ());
        shard(&path, shards);
        fs::write(path.join("chat_template.jinja"), b"\xef\xbb\xbf{{ x }}\r\n").unwrap();
        fs::write(path.join("pytorch_model.bin"), "old weights").unwrap();
        fs::write(path.join("Model.GGUF"), "old weights").unwrap();

        let out = dir.path().join("deep/copy");
        save(&load(&path).unwrap(), &Checkpoint::open(&path).unwrap(), &out, SEED).unwrap();
        assert_eq!(weights(&load(&out).unwrap()), weights(&model));
        for name in ["chat_template.jinja", "config.json", "tokenizer.json"] {
            assert_eq!(fs::read(out.join(name)).unwrap(), fs::read(path.join(name)).unwrap());
        }
        for name in shards {
            assert_eq!(entries(&out.join(name)), entries(&path.join(name)));
        }
        assert!(!out.join("pytorch_model.bin").exists() && !out.join("Model.GGUF").exists());
        let left = fs::read_dir(dir.path().join("deep")).unwrap().count();
        assert_eq!(left, 1, "nothing is left beside the copy");
    }
}

#[test]
fn what_transformers_needs_to_know_is_in_the_file() {
    let (_dir, path, _) = saved(|_| ());
    let bytes = fs::read(path.join("model.safetensors")).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header.metadata().as_ref().unwrap()["format"], "pt");
}

#[test]
fn nothing_is_overwritten_and_nothing_half_written_stays() {
    let (dir, path, mut model) = saved(|_| ());
    let source = Checkpoint::open(&path).unwrap();
    let error = save(&model, &source, &path, SEED).unwrap_err();
    assert!(matches!(error, CheckpointError::Exists { .. }), "{error}");

    let out = dir.path().join("out");
    model.model.norm.weight = model.model.norm.weight.map(|gain| gain * f32::NAN);
    let error = save(&model, &source, &out, SEED).unwrap_err();
    assert!(matches!(&error, CheckpointError::NotFinite { name } if name == "model.norm.weight"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "only the source is left");

    fs::create_dir(&out).unwrap();
    save(&load(&path).unwrap(), &source, &out, SEED).unwrap();
    assert!(load(&out).is_ok(), "an empty folder is filled");
}

#[test]
fn a_model_of_another_shape_is_not_saved_as_a_copy() {
    let (dir, path, _) = saved(|_| ());
    let (_other, _, model) = saved(|config| config.d_ff = 6);
    let out = dir.path().join("out");
    let error = save(&model, &Checkpoint::open(&path).unwrap(), &out, SEED).unwrap_err();
    assert!(matches!(error, CheckpointError::OtherModel { .. }), "{error}");
}

#[test]
fn loaded_weights_require_gradients_where_the_backend_has_them() {
    let (_dir, path, _) = saved(|_| ());
    let device = Device::<Cpu>::default();
    let model = Checkpoint::open(&path).unwrap().load::<Autodiff<Cpu>>(&device).unwrap();
    assert!(model.model.embed_tokens.weight.val().is_require_grad());
    assert!(model.model.layers[0].self_attn.k_proj.weight.val().is_require_grad());
}

#[test]
fn derived_tensors_are_tolerated_and_others_are_not() {
    let extra = |name: &str| (name.to_owned(), Dtype::F32, vec![1], vec![0; 4]);
    let (_dir, path, _) = saved(|config| config.tied_embeddings = true);
    change(&path, |tensors| {
        tensors.push(extra("model.layers.0.self_attn.rotary_emb.inv_freq"));
        tensors.push(extra("lm_head.weight"));
    });
    load(&path).unwrap();
    change(&path, |tensors| tensors.push(extra("score.weight")));
    let error = load(&path).unwrap_err();
    assert!(matches!(&error, CheckpointError::Unused { names } if names == &["score.weight"]));
}

#[test]
fn every_broken_tensor_is_named() {
    let broken = |edit: &dyn Fn(&mut Vec<Entry>)| {
        let (_dir, path, _) = saved(|_| ());
        change(&path, |tensors| edit(tensors));
        load(&path).unwrap_err()
    };
    let at = |tensors: &[Entry], name: &str| tensors.iter().position(|t| t.0 == name).unwrap();
    let norm = "model.norm.weight";

    let error = broken(&|tensors| drop(tensors.remove(at(tensors, norm))));
    assert!(matches!(&error, CheckpointError::Missing { names } if names == &[norm]), "{error}");
    for poison in [f32::NAN, f32::INFINITY] {
        let error = broken(&|tensors| {
            let index = at(tensors, norm);
            tensors[index].3[4..8].copy_from_slice(&poison.to_le_bytes());
        });
        assert!(matches!(&error, CheckpointError::NotFinite { name } if name == norm), "{error}");
    }
    let error = broken(&|tensors| {
        let index = at(tensors, norm);
        tensors[index].2 = vec![2, 4];
    });
    assert!(matches!(&error, CheckpointError::Shape { found, expected, .. }
        if (found.as_slice(), expected.as_slice()) == (&[2, 4], &[8])));
    let error = broken(&|tensors| {
        let index = at(tensors, norm);
        tensors[index].1 = Dtype::I32;
    });
    assert!(matches!(error, CheckpointError::DType { .. }), "{error}");
}

#[test]
fn a_tensor_in_two_files_is_refused() {
    let (_dir, path, _) = saved(|_| ());
    shard(&path, &["a.safetensors", "b.safetensors"]);
    let mut tensors = entries(&path.join("a.safetensors"));
    tensors.extend(entries(&path.join("b.safetensors")).pop());
    write_entries(&path.join("a.safetensors"), &tensors);
    let error = load(&path).unwrap_err();
    assert!(matches!(error, CheckpointError::Twice { .. }), "{error}");
}

#[test]
fn a_file_cut_anywhere_is_damaged() {
    let (_dir, path, _) = saved(|_| ());
    let file = path.join("model.safetensors");
    let bytes = fs::read(&file).unwrap();
    for length in [0, 7, 8, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&file, &bytes[..length]).unwrap();
        let error = load(&path).unwrap_err();
        assert!(matches!(error, CheckpointError::Damaged { .. }), "{length}: {error}");
        assert!(error.hint().unwrap().contains("truncated"));
    }
}

#[test]
fn a_config_that_claims_a_giant_is_an_error_and_no_allocation() {
    for key in ["num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size", "head_dim"] {
        let (_dir, path, _) = saved(|_| ());
        let file = path.join("config.json");
        let mut value: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        value[key] = json!(1_u64 << 62);
        fs::write(&file, value.to_string()).unwrap();
        let error = load(&path).unwrap_err();
        assert!(error.hint().unwrap().contains("different models"), "{key}: {error}");
        assert!(error.to_string().len() < 1_000, "{key}: {error}");
    }
}

#[test]
fn pickles_and_empty_folders_are_refused_with_a_hint() {
    let (_dir, path, _) = saved(|_| ());
    fs::remove_file(path.join("model.safetensors")).unwrap();
    let error = Checkpoint::open(&path).unwrap_err();
    assert!(matches!(error, CheckpointError::NoWeights { .. }), "{error}");
    fs::write(path.join("pytorch_model.bin"), "pickle").unwrap();
    let error = Checkpoint::open(&path).unwrap_err();
    assert!(matches!(error, CheckpointError::Pickle { .. }), "{error}");
    assert!(error.hint().unwrap().contains("safe_serialization"));
}

#[test]
fn shards_outside_the_folder_or_absent_are_not_read() {
    let (_dir, path, _) = saved(|_| ());
    fs::remove_file(path.join("model.safetensors")).unwrap();
    let index = |name: &str| {
        let text = json!({"weight_map": {"model.norm.weight": name}}).to_string();
        fs::write(path.join("model.safetensors.index.json"), text).unwrap();
        load(&path).unwrap_err()
    };
    let error = index("../model/model.safetensors");
    assert!(matches!(error, CheckpointError::EscapingShard { .. }), "{error}");
    let error = index(path.join("model.safetensors").to_str().unwrap());
    assert!(matches!(error, CheckpointError::EscapingShard { .. }), "{error}");
    let error = index("model-00009-of-00009.safetensors");
    assert!(matches!(error, CheckpointError::Io { .. }), "{error}");
}
