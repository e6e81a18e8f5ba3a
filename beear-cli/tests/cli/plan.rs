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
    let phases = found["plan"]["phases"].as_array().expect("phases");
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
    let memory = ["--memory", "145GiB"];
    let found = plan(&place, &memory);
    assert_eq!(found["fits"], false);
    let changes = found["change"]["set"].as_array().unwrap();
    assert!(!changes.is_empty());
    let set = changes.iter().flat_map(|change| ["--set", change.as_str().unwrap()]);
    let more: Vec<&str> = memory.into_iter().chain(set).collect();
    let changed = plan(&place, &more);
    assert_eq!((&changed["fits"], &changed["change"]["set"]), (&json!(true), &json!([])));
    assert_eq!(changed["plan"]["peak"], found["change"]["peak"]);
}

#[test]
fn a_model_that_fits_in_no_way_ends_with_exit_code_3() {
    let place = with_large_model();
    let finished = place.beear(&["plan", "--json", "--model", "large", "--memory", "1GiB"]);
    assert_eq!(finished.code, 3);
    assert!(finished.stderr.contains("`large` does not fit into 1.00 GiB"), "{}", finished.stderr);
    let found: Value = serde_json::from_str(&finished.stdout).expect("the plan is printed");
    assert_eq!((&found["change"], &found["fits"]), (&Value::Null, &json!(false)));
}

#[test]
fn memory_without_a_unit_is_a_mistake_that_names_the_unit() {
    let place = with_large_model();
    let finished = place.beear(&["plan", "--model", "large", "--memory", "80"]);
    assert_eq!(finished.code, 2);
    assert!(finished.stderr.contains("write 80GiB"), "{}", finished.stderr);
}

fn phase<'a>(found: &'a Value, name: &str) -> &'a Value {
    let phases = found["plan"]["phases"].as_array().expect("phases");
    phases.iter().find(|phase| phase["name"] == name).unwrap_or_else(|| panic!("{name}: {found}"))
}

fn command<'a>(found: &'a Value, name: &str) -> &'a Value {
    let commands = found["commands"].as_array().expect("commands");
    commands.iter().find(|planned| planned["command"] == name).expect("the command is planned")
}

#[test]
fn every_phase_of_a_defence_is_planned() {
    let place = with_large_model();
    let found = plan(&place, &[]);
    let phases = found["plan"]["phases"].as_array().expect("phases");
    let names: Vec<&str> = phases.iter().filter_map(|phase| phase["name"].as_str()).collect();
    let expected = [
        "loading",
        "generating answers",
        "inner level, preparing rows",
        "inner step",
        "outer step, forward and backward",
        "outer step, weights",
        "validation",
        "saving",
    ];
    assert_eq!(names, expected);
    let printed = place.beear(&["plan", "--model", "large"]).printed();
    for name in
        expected.into_iter().chain(["generate, ", "eval asr, ", "eval perplexity, ", "scan, "])
    {
        assert!(printed.lines().any(|line| line.starts_with(name)), "{name}: {printed}");
    }
    assert_eq!(plan(&place, &["--set", "held_out=0"])["plan"]["watched_rows"], 0);
}

#[test]
fn a_system_prompt_is_remembered_for_all_prepared_rows() {
    let place = with_large_model();
    let first = "method.injection_points=[{layer=16,positions={first=5}}]";
    let kept = |system: &str| {
        let rows = ["--rows", "10", "--prompt-tokens", "1000", "--system-tokens", system];
        let found = plan(&place, &[&rows[..], &["--set", first]].concat());
        let parts = phase(&found, "inner step")["parts"].as_array().unwrap().clone();
        let part =
            parts.into_iter().find(|part| part["what"] == "keys and values of prepared rows");
        part.map_or(0, |part| part["bytes"].as_u64().unwrap())
    };
    assert_eq!(kept("0"), 0);
    // By hand: 10 rows of 900 tokens, keys and values of 4096 f32 in each of 16 layers.
    assert_eq!(kept("900"), 10 * 900 * 2 * 4096 * 4 * 16);
    let none_left = ["plan", "--model", "large", "--prompt-tokens", "9", "--system-tokens", "9"];
    assert_eq!(place.beear(&none_left).mistake().0, 2);
}

#[test]
fn less_memory_makes_batches_of_commands_smaller() {
    let place = with_large_model();
    let names = ["generate", "eval asr", "eval perplexity", "scan"];
    let long = ["plan", "--json", "--model", "large", "--answer-tokens", "1000"];
    let unbounded = place.beear(&long).json();
    let unbounded = names.map(|name| command(&unbounded, name)["rows"].as_u64());
    assert_eq!(unbounded, [32, 64, 64, 24].map(Some));
    // A defence of all weights does not fit, which the exit code says; the other commands do.
    let finished = place.beear(&[long.as_slice(), &["--memory", "45GiB"]].concat());
    assert_eq!(finished.code, 3, "{}", finished.stderr);
    let found: Value = serde_json::from_str(&finished.stdout).unwrap();
    for (name, most) in names.into_iter().zip(unbounded) {
        let planned = command(&found, name);
        assert!(planned["rows"].as_u64() < most, "{planned}");
        assert!(planned["bytes"].as_u64() <= Some(45 << 30), "{planned}");
    }
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
