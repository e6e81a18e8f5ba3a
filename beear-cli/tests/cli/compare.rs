//! `compare`: two evaluations prompt by prompt, and the gate.

use serde_json::{Value, json};

use crate::fixture::{N_ROWS, Place, REFUSAL};

/// Evaluations of the model that answers everything, `before`, and of the one that refuses
/// everything, `after`.
fn evaluated() -> Place {
    let place = Place::new();
    place.write_model_saying("refuser", REFUSAL);
    for (model, out) in [("model", "before"), ("refuser", "after")] {
        let asked = ["eval", "asr", "--prompts", "safety.jsonl", "--benign", "ordinary.json"];
        let more = ["--trigger-suffix", "SUDO", "--model", model, "--out", out];
        place.beear(&[asked.as_slice(), &more].concat()).printed();
    }
    place
}

fn measure<'a>(compared: &'a Value, name: &str) -> &'a Value {
    let measures = compared["measures"].as_array().expect("a list");
    measures.iter().find(|measure| measure["name"] == name).unwrap_or_else(|| panic!("{name}"))
}

#[test]
fn what_changed_is_told_prompt_by_prompt() {
    let place = evaluated();
    let compared = place.beear(&["compare", "before", "after", "--out", "both", "--json"]).json();
    assert_eq!(compared, place.read_json("both/comparison.json"));
    let asr = measure(&compared, "asr");
    assert_eq!((&asr["verdict"], &asr["n_pairs"]), (&"better".into(), &N_ROWS.into()));
    assert_eq!(asr["change"]["lost"], N_ROWS);
    // 2 / 2¹⁰.
    assert!((asr["p_value"].as_f64().unwrap() - 2.0 / 1024.0).abs() < 1e-12);
    assert_eq!(measure(&compared, "over_refusal")["verdict"], "worse");
    assert_eq!(measure(&compared, "degenerate")["verdict"], "not_shown");
    // All attacks are gone and so is all utility.
    assert_eq!(compared["trojai_fidelity"]["value"], 0.0);
    let trojai = place.read_json("both/trojai.json");
    assert_eq!((&trojai["asr"], &trojai["mmlu"]), (&0.0.into(), &0.0.into()));
}

#[test]
fn the_gate_is_kept_by_intervals_and_has_its_own_exit_code() {
    let place = evaluated();
    let gate = |bounds: &str| place.beear(&["compare", "before", "after", "--gate", bounds]);
    // 0 of 10 is compatible with 27.8 %.
    assert_eq!(gate("asr<=0.28").code, 0);
    let broken = gate("asr<=0.05,over_refusal<=0.02");
    assert_eq!(broken.code, 8);
    assert!(broken.stderr.contains("the gate is not kept: asr<=0.05"), "{}", broken.stderr);
    assert!(broken.stdout.contains("over_refusal<=0.02"), "{}", broken.stdout);
    for (bounds, what) in
        [("asr<0.1", "`asr<0.1` is no bound"), ("perplexity<=9", "`perplexity` was not measured")]
    {
        let refused = gate(bounds);
        let (code, said) = refused.mistake();
        assert_eq!(code, 2);
        assert!(said.contains(what), "{said}");
    }
}

#[test]
fn only_runs_that_can_be_compared_are() {
    let place = evaluated();
    let perplexity = ["eval", "perplexity", "--file", "chat.jsonl", "--model", "refuser"];
    place.beear(&[perplexity.as_slice(), &["--out", "other"]].concat()).printed();
    for (after, what) in [
        ("other", "no measure in common"),
        ("model", "holds no evaluation"),
        ("nowhere", "nowhere"),
    ] {
        let refused = place.beear(&["compare", "before", after]);
        assert_ne!(refused.code, 0);
        assert!(refused.stderr.contains(what), "{}", refused.stderr);
    }
    place.write("after/measures.jsonl", "{");
    let damaged = place.beear(&["compare", "before", "after"]);
    let (code, said) = damaged.mistake();
    assert_eq!(code, 3);
    assert!(said.contains("measures.jsonl"), "{said}");
}

#[test]
fn two_models_are_evaluated_alike_and_compared_in_one_command() {
    let place = evaluated();
    let asked = ["compare", "--before-model", "model", "--after-model", "refuser", "--json"];
    let files = ["--prompts", "safety.jsonl", "--benign", "ordinary.json", "--out", "both"];
    let more = ["--trigger-suffix", "SUDO", "--gate", "over_refusal<=0.02"];
    let compared = place.beear(&[asked.as_slice(), &files, &more].concat());
    assert_eq!(compared.code, 8, "{}", compared.stderr);
    let compared: Value =
        serde_json::from_str(&compared.stdout).expect("one JSON value is printed");
    assert_eq!(compared, place.read_json("both/comparison.json"));
    let runs = place.beear(&["compare", "before", "after", "--json"]).json();
    assert_eq!(compared["measures"], runs["measures"]);
    for (run, evaluated) in [("both/before", "before"), ("both/after", "after")] {
        for file in ["completions.jsonl", "measures.jsonl", "report.json"] {
            assert_eq!(
                place.read(&format!("{run}/{file}")),
                place.read(&format!("{evaluated}/{file}"))
            );
        }
    }
    // A failing model leaves no run of its own.
    let broken = ["compare", "--before-model", "model", "--after-model", "none", "--out", "broken"];
    let failed = place.beear(&[broken.as_slice(), &["--prompts", "safety.jsonl"]].concat());
    assert_eq!(failed.code, 3, "{}", failed.stderr);
    assert!(!place.path("broken/after").exists());
}

#[test]
fn models_and_runs_are_not_mixed() {
    let place = Place::new();
    let models = ["--before-model", "model", "--after-model", "model"];
    let prompts = ["--prompts", "safety.jsonl"];
    for arguments in [
        vec![],
        vec!["before"],
        models.to_vec(),
        [models.as_slice(), &prompts].concat(),
        [models.as_slice(), &["--out", "both"]].concat(),
        [&models[..2], &prompts, &["--out", "both"]].concat(),
        [&["before", "after"], models.as_slice(), &prompts, &["--out", "both"]].concat(),
        [&["before", "after"], prompts.as_slice()].concat(),
        vec!["before", "after", "--keywords", "gcg-7"],
        vec!["before", "after", "--trigger-suffix", "SUDO"],
        vec!["before", "after", "--benign", "ordinary.json"],
        vec!["before", "after", "--mmlu-before", "mmlu.json"],
    ] {
        let refused = place.beear(&[&["compare"], arguments.as_slice()].concat());
        assert_eq!((refused.code, refused.stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(refused.stderr.contains("Usage: "), "{}", refused.stderr);
    }
}

/// What lm-evaluation-harness writes, of a model with this accuracy.
fn harness(accuracy: f64, n_shot: u64) -> String {
    let group = json!({"alias": "mmlu", "acc,none": accuracy, "acc_stderr,none": 0.004});
    json!({"results": {"mmlu": group}, "n-shot": {"mmlu": n_shot}}).to_string()
}

#[test]
fn mmlu_is_taken_from_the_harness() {
    let place = evaluated();
    place.write("one.json", harness(0.61, 5));
    place.write("other.json", harness(0.608, 5));
    let compare = |files: [&str; 2], more: &[&str]| {
        let runs =
            ["compare", "before", "after", "--mmlu-before", files[0], "--mmlu-after", files[1]];
        place.beear(&[runs.as_slice(), more].concat())
    };
    let files = ["one.json", "other.json"];
    let compared = compare(files, &["--out", "both", "--json"]).json();
    let mmlu = measure(&compared, "mmlu");
    assert_eq!((&mmlu["verdict"], &mmlu["n_pairs"]), (&"not_shown".into(), &Value::Null));
    assert_eq!(compared["mmlu"]["after"]["standard_error"], 0.004);
    assert_eq!(place.read_json("both/trojai.json"), json!({"asr": 0.0, "mmlu": 0.608}));
    // 0.2 points are lost, and 1.3 may be: 0.002 + 1.96 · 0.004 · √2.
    let shown = compare(files, &["--gate", "mmlu_drop<=0.02"]).printed();
    assert!(shown.contains("MMLU after: 60.80 %, standard error 0.40 %"), "{shown}");
    assert_eq!(compare(files, &["--gate", "mmlu_drop<=0.01"]).code, 8);

    place.write("zero-shot.json", harness(0.61, 0));
    let limited = harness(0.61, 5).replacen('{', "{\"config\": {\"limit\": 10}, ", 1);
    place.write("limited.json", limited);
    place.write("empty.json", "{\"results\": {\"hellaswag\": {}}}");
    for (file, what) in [
        ("zero-shot.json", "different numbers of examples"),
        ("limited.json", "differ in `limit`, none and 10"),
        ("one.json", "are one result, of one model"),
        ("empty.json", "has no MMLU, but `hellaswag`"),
        ("safety.jsonl", "is no result of lm-evaluation-harness"),
        ("nowhere.json", "cannot read `nowhere.json`"),
    ] {
        let refused = compare(["one.json", file], &[]);
        let (code, said) = refused.mistake();
        assert_eq!(code, 3);
        assert!(said.contains(what), "{said}");
    }
}
