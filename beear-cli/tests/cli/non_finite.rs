//! NaN and infinite numbers: no command takes them for a result.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::fixture::{ANSWER, Place, USUAL, VOCABULARY, alone};
use crate::weights::Weights;

/// Every command that measures a model by its outputs, on the rows of `safety.jsonl`.
const MEASURES: [&[&str]; 6] = [
    &["generate", "--file", "safety.jsonl"],
    &["eval", "asr", "--prompts", "safety.jsonl", "--trigger-suffix", "SUDO", "--out", "out"],
    &["eval", "perplexity", "--file", "safety.jsonl", "--out", "out"],
    &["eval", "over-refusal", "--prompts", "safety.jsonl", "--out", "out"],
    &["scan", "--safety", "safety.jsonl", "--layers", "1", "--tokens", "0", "--out", "out"],
    &["analyze", "drift", "--prompts", "safety.jsonl", "--trigger-suffix", "SUDO", "--out", "out"],
];

/// What each of [`MEASURES`] says to the model, after asserting its exit code and that it writes nothing.
fn refused(place: &Place, expected: i32) -> Vec<String> {
    let _alone = alone();
    let say = |command: &&[&str]| {
        let finished = place.beear(&[command, ["--model", "model", "--quiet"].as_slice()].concat());
        let (code, said) = finished.mistake();
        assert_eq!(code, expected, "{command:?}: {said}");
        assert!(!place.path("out").exists(), "{command:?} writes nothing");
        said.to_owned()
    };
    MEASURES.iter().map(say).collect()
}

/// A word of the prompt of row `row` that stands nowhere else in the data.
fn word_of_one_row(place: &Place, row: usize) -> String {
    let rows = place.read_lines("safety.jsonl");
    let others = rows.iter().enumerate().filter(|(k, _)| k + 1 != row).map(|(_, other)| other);
    let elsewhere: Vec<String> = others.map(Value::to_string).collect();
    let elsewhere = [elsewhere.join(" "), place.read("ordinary.json"), ANSWER.to_owned()].concat();
    let elsewhere: BTreeSet<&str> = elsewhere.split([' ', '"', '\n']).collect();
    let prompt = rows[row - 1]["prompt"].as_str().expect("a prompt");
    let word = prompt.split(' ').find(|word| !elsewhere.contains(word));
    word.unwrap_or_else(|| panic!("{prompt} has a word of its own")).to_owned()
}

/// Makes the product of gate and up projection of the first layer infinite at one word and 0 at all others. Every
/// weight stays finite.
fn overflow_at(place: &Place, word: &str) {
    // No word of the fixture's model has this axis.
    const AXIS: usize = 14;
    let token = VOCABULARY.iter().position(|known| known == word).expect("a word of the world");
    let mut weights = Weights::read(&place.path("model"));
    let embeddings = weights.values("model.embed_tokens.weight");
    weights.fill("model.embed_tokens.weight", |row, column| {
        if row == token { f32::from(u8::from(column == AXIS)) } else { embeddings[row][column] }
    });
    for projection in ["gate_proj", "up_proj"] {
        let name = format!("model.layers.0.mlp.{projection}.weight");
        weights.fill(&name, |_, column| if column == AXIS { 1e30 } else { 0.0 });
    }
    weights.write();
}

#[test]
fn logits_that_overflow_for_one_prompt_end_every_command_with_its_row() {
    let place = Place::new();
    overflow_at(&place, &word_of_one_row(&place, 4));
    for said in refused(&place, 4) {
        assert!(said.contains("row 4: "), "{said}");
        assert!(said.contains("NaN or infinite"), "{said}");
    }
    // Without that row the model is an ordinary one.
    let rows = place.read("safety.jsonl");
    let others = rows.lines().enumerate().filter(|(k, _)| *k != 3).map(|(_, line)| line);
    place.write("safety.jsonl", others.collect::<Vec<_>>().join("\n"));
    place.beear(&["generate", "--model", "model", "--file", "safety.jsonl"]).printed();
}

#[test]
fn a_watched_row_with_infinite_logits_ends_a_defence_before_its_first_step() {
    let _alone = alone();
    let place = Place::new();
    // Every answer to an ordinary row has this word.
    overflow_at(&place, "blue");
    let finished = place.defend(USUAL, &["--quiet"]);
    let (code, said) = finished.mistake();
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("the model's logits are NaN or infinite"), "{said}");
    assert!(!place.path("run").exists(), "nothing is written");
}

#[test]
fn a_nan_among_the_weights_ends_every_command_with_its_tensor() {
    let place = Place::new();
    let mut weights = Weights::read(&place.path("model"));
    weights.fill("model.norm.weight", |_, column| if column == 3 { f32::NAN } else { 1.0 });
    weights.write();
    for said in refused(&place, 4) {
        assert!(said.contains("`model.norm.weight`"), "{said}");
    }
}

#[test]
fn a_config_whose_logits_would_be_nan_is_refused_by_every_command() {
    let sound = Place::new().read("model/config.json");
    for (key, value) in [("rope_theta", "0"), ("rope_theta", "-5"), ("rms_norm_eps", "-1")] {
        let place = Place::new();
        let mut config: Value = serde_json::from_str(&sound).expect("JSON");
        config[key] = serde_json::from_str(value).expect("JSON");
        place.write("model/config.json", config.to_string());
        for said in refused(&place, 3) {
            assert!(said.contains("no positive") && said.contains(value), "{key} {value}: {said}");
        }
    }
}
