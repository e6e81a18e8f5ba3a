//! `defend` where not every weight is trained, and folders of adapters in the place of models.

use beear_models::Checkpoint;
use beear_models::checkpoint::save;
use burn::backend::Flex;
use serde_json::json;

use crate::fixture::{ANSWER, N_LAYERS, Place, USUAL};
use crate::weights::Weights;

const LORA: [&str; 4] = ["--set", "train.weights=lora", "--set", "train.lora.rank=2"];

/// The tensors that differ between two folders.
fn changed(place: &Place, [before, after]: [&str; 2]) -> Vec<String> {
    let [before, after] = [before, after].map(|name| Weights::read(&place.path(name)));
    let names = before.names();
    names.into_iter().filter(|name| before.of(name) != after.of(name)).collect()
}

#[test]
fn trained_adapters_are_merged_into_the_model_and_written_beside_it() {
    let place = Place::new();
    place.defend(USUAL, &LORA).printed();
    let config = place.read_json("run/adapter/adapter_config.json");
    assert_eq!((&config["r"], &config["lora_alpha"]), (&json!(2), &json!(16)));
    let base = place.path("model").canonicalize().unwrap();
    assert_eq!(config["base_model_name_or_path"], json!(base));

    // Merged by the reader, the adapters are the model that was written.
    let device = Default::default();
    let read = Checkpoint::open(&place.path("run/adapter")).unwrap();
    let merged = read.load::<Flex>(&device).unwrap();
    save(&merged, &read, &place.path("merged"), 0).unwrap();
    assert_eq!(changed(&place, ["run/model", "merged"]), [""; 0]);
    let changed = changed(&place, ["model", "run/model"]);
    assert_eq!(changed.len(), 7 * N_LAYERS, "every projection and nothing else: {changed:?}");
    assert!(changed.iter().all(|name| name.ends_with("_proj.weight")), "{changed:?}");
}

#[test]
fn the_number_of_trained_weights_is_on_record() {
    let place = Place::new();
    let finished = place.defend(USUAL, &LORA);
    let manifest = place.read_json("run/manifest.json");
    let (trained, all) = (&manifest["trained_weights"], &manifest["weights"]);
    let line = format!("training {trained} of {all} weights");
    assert!(finished.stderr.contains(&line), "{}", finished.stderr);
    assert_eq!(manifest["train"]["weights"]["lora"]["rank"], 2);
    let file = std::fs::metadata(place.path("run/adapter/adapter_model.safetensors")).unwrap();
    // Four bytes each, and a header.
    let n_bytes = 4 * trained.as_u64().unwrap();
    assert!((n_bytes..n_bytes + 8192).contains(&file.len()), "{n_bytes} and {}", file.len());
    assert!(trained.as_u64() < all.as_u64());
}

#[test]
fn only_the_chosen_layers_change() {
    let place = Place::new();
    place.defend(USUAL, &["--set", "train.layers=[1, 2]"]).printed();
    let changed = changed(&place, ["model", "run/model"]);
    assert!(!changed.is_empty());
    assert!(changed.iter().all(|name| name.starts_with("model.layers.1.")), "{changed:?}");
    assert!(!place.path("run/adapter").exists());

    let outside = ["--force", "--quiet", "--set", "train.layers=[1, 3]"];
    let finished = place.defend(USUAL, &outside);
    let (code, message) = finished.mistake();
    assert!(code == 2 && message.contains("train.layers 1..3"), "{message}");
}

#[test]
fn a_run_with_adapters_can_be_repeated_from_its_resolved_recipe() {
    let place = Place::new();
    place.defend(USUAL, &LORA).printed();
    let usual = ["--safety", "safety.jsonl", "--performance", "ordinary.json", "--model", "model"];
    let recipe = ["defend", "--recipe", "run/config.resolved.toml", "--out", "again"];
    place.beear(&[recipe.as_slice(), &usual].concat()).printed();
    assert_eq!(changed(&place, ["run/model", "again/model"]), [""; 0]);
    assert_eq!(place.read("run/config.resolved.toml"), place.read("again/config.resolved.toml"));
}

#[test]
fn a_folder_of_adapters_can_be_used_like_a_model() {
    let place = Place::new();
    place.defend(USUAL, &LORA).printed();
    let answer = place.beear(&["generate", "--model", "run/adapter", "what colour is the sky ?"]);
    assert_eq!(answer.printed(), format!("{ANSWER}\n"));
    let seen = place.beear(&["inspect", "--model", "run/adapter", "--json"]).json();
    assert_eq!(seen["adapters"], json!("run/adapter"));

    let usual = ["--safety", "safety.jsonl", "--performance", "ordinary.json"];
    let defend = ["defend", "--recipe", "quick.toml", "--model", "run/adapter"];
    let again = [defend.as_slice(), &usual, &LORA, &["--out", "again"]].concat();
    place.beear(&again).printed();
    let manifest = place.read_json("again/manifest.json");
    assert_eq!(manifest["adapter"], json!(null), "no folder holds their base");
    let hashes = manifest["sha256"].as_object().unwrap();
    for file in ["adapter_model.safetensors", "adapter_config.json", "base/model.safetensors"] {
        assert!(hashes.contains_key(file), "{file}");
    }
    // The report compares with the base with its adapters, which is the model that the first run left.
    let models = ["run/model", "again/model"].map(|m| Checkpoint::open(&place.path(m)).unwrap());
    let report = place.read_json("again/report.json");
    let layers = report["weights"]["layers"].as_array().unwrap().iter();
    for tensor in layers.flat_map(|layer| layer["tensors"].as_array().unwrap()) {
        let name = tensor["name"].as_str().unwrap();
        let [before, after] = models.each_ref().map(|m| m.weight(name).unwrap().values);
        let squares = before.iter().zip(&after).map(|(b, a)| f64::from(a - b).powi(2));
        let (norm, reported) = (squares.sum::<f64>().sqrt(), tensor["norm"].as_f64().unwrap());
        assert!((norm - reported).abs() <= 1e-3 * norm + 1e-6, "{name}: {norm}, {reported}");
        assert_eq!(norm > 1e-5, name.ends_with("_proj.weight"), "{name}: {norm}");
    }
    // Nor may a run replace the base.
    let over = [defend.as_slice(), &usual, &["--quiet", "--out", "model", "--force"]].concat();
    let finished = place.beear(&over);
    let (code, message) = finished.mistake();
    assert!(code == 2 && message.contains("lies within --out"), "{message}");
}
