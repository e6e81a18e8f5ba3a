//! `eval perplexity`, on a model whose likelihoods are known.

use crate::fixture::{ANSWER, N_ROWS, Place};

#[test]
fn the_perplexity_of_given_answers_weighs_their_tokens() {
    let place = Place::new();
    let measure = |file: &str| {
        let asked = ["eval", "perplexity", "--model", "model", "--file", file, "--json"];
        let out = format!("out-{}", file.replace('.', "-"));
        place.beear(&[asked.as_slice(), &["--out", &out]].concat()).json()
    };
    let certain = measure("ordinary.json");
    let [value, low, high] = ["value", "low", "high"]
        .map(|end| certain["measures"][0]["estimate"][end].as_f64().unwrap());
    // The likeliest logit is 8 above the others of 300 words: 1 + 300 e⁻⁸ = 1.10 at most.
    assert!(value > 1.0 && value < 1.2 && low <= value && value <= high, "{value} [{low}, {high}]");
    let n_tokens = ANSWER.split(' ').count() + 1;
    assert_eq!(certain["n_tokens"], N_ROWS * n_tokens);

    // A second answer in a conversation counts too; a row without one is counted apart.
    let turns = |n: usize| {
        let turn = |k: usize| {
            let role = ["user", "assistant"][k % 2];
            serde_json::json!({"role": role, "content": ANSWER})
        };
        serde_json::json!({"messages": (0..n).map(turn).collect::<Vec<_>>()}).to_string()
    };
    place.write("long.jsonl", [turns(4), turns(1)].join("\n"));
    let long = measure("long.jsonl");
    assert_eq!((&long["n_tokens"], &long["n_unanswered"]), (&(2 * n_tokens).into(), &1.into()));
}

#[test]
fn a_file_without_answers_has_no_perplexity() {
    let place = Place::new();
    place.write("asked.jsonl", "{\"prompt\": \"where ?\"}");
    let asked = ["eval", "perplexity", "--model", "model", "--file", "asked.jsonl", "--out", "x"];
    let refused = place.beear(&asked);
    let (code, said) = refused.mistake();
    assert_eq!(code, 3);
    assert!(said.contains("has no answers"), "{said}");
}
