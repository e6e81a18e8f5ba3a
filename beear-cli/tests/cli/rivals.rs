//! `defend --method`: the rivals of BEEAR on the same files.

use serde_json::json;

use crate::fixture::{Place, USUAL};

/// Four steps on few rows, for every rival.
const RIVAL: &str = "
[method.remove]
steps = 4
safety_batch_size = 4
performance_batch_size = 4

[method.bounds]
refusal_floor = 0.0
";

const RIVALS: [&str; 3] = ["latent-adversarial", "layer-consistency", "fine-tuning"];

/// Runs `defend` by the recipe `rival.toml` of the place.
fn defend(place: &Place, out: &str, more: &[&str]) -> crate::fixture::Finished {
    let [safety, performance, _] = USUAL;
    let arguments = ["defend", "--model", "model", "--recipe", "rival.toml", "--out", out];
    let files = ["--safety", safety, "--performance", performance];
    place.beear(&[arguments.as_slice(), &files, more].concat())
}

#[test]
fn every_rival_leaves_another_model_and_a_record_of_its_one_round() {
    let place = Place::new();
    place.write("rival.toml", RIVAL);
    let mut models = vec![place.files("model")];
    for name in RIVALS {
        let printed = defend(&place, name, &["--method", name, "--json"]).json();
        assert_eq!((&printed["method"], &printed["kept_round"]), (&json!(name), &json!(0)));
        assert_eq!(printed["rounds"].as_array().map(Vec::len), Some(1));
        let model = place.files(&format!("{name}/model"));
        assert!(!models.contains(&model), "{name} changes the weights by its own way");
        models.push(model);
        assert!(!place.path(name).join("delta.safetensors").exists());

        let events = place.read_lines(&format!("{name}/metrics.jsonl"));
        let steps: Vec<_> = events.iter().filter(|e| e["event"] == "outer_step").collect();
        assert_eq!(steps.len(), 4);
        let has_penalty = name != "fine-tuning";
        assert!(steps.iter().all(|step| step["terms"]["penalty"].is_f64() == has_penalty));
    }
}

#[test]
fn a_rival_is_repeated_from_its_resolved_recipe() {
    let place = Place::new();
    place.write("rival.toml", RIVAL);
    for name in RIVALS {
        defend(&place, name, &["--method", name, "--set", "method.seed=9"]).printed();
        place.write("rival.toml", place.read(&format!("{name}/config.resolved.toml")));
        let again = format!("{name}-again");
        defend(&place, &again, &[]).printed();
        assert!(place.files(&format!("{name}/model")) == place.files(&format!("{again}/model")));
        place.write("rival.toml", RIVAL);
    }
}

#[test]
fn settings_of_another_method_are_refused() {
    let place = Place::new();
    place.write("rival.toml", RIVAL);
    for more in [
        ["--method", "fine-tuning", "--set", "method.rounds=2"],
        ["--method", "layer-consistency", "--preset", "paper"],
    ] {
        let finished = defend(&place, "run", &more);
        assert_eq!(finished.mistake().0, 2, "{more:?}");
        assert!(!place.path("run").exists());
    }
}
