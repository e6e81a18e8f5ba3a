//! `compare`: two evaluations prompt by prompt, and the gate.

use serde_json::Value;

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
    let asked = ["eval", "asr", "--prompts", "safety.jsonl", "--model", "refuser"];
    let other = ["--format", "paper-5", "--out", "other"];
    place.beear(&[asked.as_slice(), &other].concat()).printed();
    for (after, what) in [
        ("other", "different prompt formats"),
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
