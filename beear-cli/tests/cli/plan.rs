//! `beear plan`, and what a run records of its memory.

use serde_json::{Value, json};

use crate::fixture::{Place, USUAL};

/// The published shape of Llama 2 7B.
const LLAMA_2: &str = r#"{"model_type": "llama", "vocab_size": 32000, "hidden_size": 4096,
    "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
    "max_position_embeddings": 4096}"#;

/// A place with a folder that holds a `config.json` and no weights.
fn with_large_model() -> Place {
    let place = Place::new();
    std::fs::create_dir(place.path("large")).expect("the folder is new");
    place.write("large/config.json", LLAMA_2);
    place
}

fn plan(place: &Place, more: &[&str]) -> Value {
    place.beear(&[&["plan", "--json", "--model", "large"], more].concat()).json()
}

#[test]
fn a_plan_needs_no_weights() {
    let place = with_large_model();
    let found = plan(&place, &[]);
    assert_eq!(found["weights"], 6_738_415_616_u64);
    let phases = found["plan"]["phases"].as_array().unwrap();
    let largest = phases.iter().filter_map(|phase| phase["bytes"].as_u64()).max();
    assert_eq!(found["plan"]["peak"].as_u64(), largest);
    assert_eq!(found["peak_by_type"]["f32"], found["plan"]["peak"], "flex computes in f32");
    assert!(found["peak_by_type"]["bf16"].as_u64() < largest);
    let printed = place.beear(&["plan", "--model", "large"]).printed();
    assert!(printed.contains("6738.4 million weights"), "{printed}");
}

#[test]
fn the_change_that_a_plan_names_makes_it_fit() {
    let place = with_large_model();
    let memory = ["--memory", "160GiB"];
    let found = plan(&place, &memory);
    assert_eq!(found["fits"], false);
    let changes = found["change"]["set"].as_array().unwrap();
    assert!(!changes.is_empty());
    let set = changes.iter().flat_map(|change| ["--set", change.as_str().unwrap()]);
    let more: Vec<&str> = memory.into_iter().chain(set).collect();
    let changed = plan(&place, &more);
    assert_eq!((&changed["fits"], &changed["change"]["set"]), (&json!(true), &json!([])));
    assert_eq!(changed["plan"]["peak"], found["change"]["peak"]);
    assert_eq!(plan(&place, &["--memory", "1GiB"])["change"], Value::Null);
}

#[test]
fn longer_rows_need_more() {
    let place = with_large_model();
    let peak = |more: &[&str]| plan(&place, more)["plan"]["peak"].as_u64();
    assert!(peak(&["--prompt-tokens", "512"]) > peak(&[]));
    assert!(peak(&["--set", "method.remove.safety_batch_size=1"]) < peak(&[]));
    assert!(peak(&["--method", "fine-tuning"]) < peak(&[]));
}

#[test]
fn what_cannot_be_planned_is_a_mistake() {
    let place = with_large_model();
    let mistake = |more: &[&str], word: &str| {
        let finished = place.beear(&[&["plan", "--model", "large"], more].concat());
        let (code, message) = finished.mistake();
        assert!(message.contains(word), "{message}");
        code
    };
    assert_eq!(mistake(&["--method", "latent-adversarial"], "fine-tuning"), 2);
    assert_eq!(mistake(&["--backend", "tpu"], "not compiled in"), 5);
    let finished = place.beear(&["plan", "--model", "large", "--memory", "much"]);
    assert_eq!((finished.code, finished.stdout.as_str()), (2, ""));
    assert_eq!(place.beear(&["plan", "--model", "nowhere"]).mistake().0, 3);
}

#[test]
fn a_run_records_its_plan_and_what_it_took() {
    let place = Place::new();
    place.defend(USUAL, &[]).printed();
    let memory = place.read_json("run/memory.json");
    let planned = memory["planned_peak"].as_u64().unwrap();
    assert_eq!(memory["plan"]["peak"], planned);
    // A few MiB of weights and rows beside the program itself.
    assert!(planned > 16 << 20 && planned < 1 << 30, "{planned}");
    if cfg!(target_os = "linux") {
        let measured = memory["measured_peak"].as_u64().unwrap();
        assert!(measured > 1 << 20 && measured < 1 << 30, "{measured}");
    }
}
