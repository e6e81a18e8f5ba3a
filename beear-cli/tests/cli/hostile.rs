//! Folders and files that a stranger made to burn time or memory, to reach other files, or to block.

#![cfg(unix)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use beear_models::{PromptFormat, TextTokenizer};
use serde_json::{Value, json};

use crate::fixture::{Finished, Place, USUAL, finish};

/// Seconds after which a command hangs: far more than any of these takes.
const HANGS: &str = "120";

/// Runs `beear` here with low limits for texts, and ends it when it hangs.
fn beear(place: &Place, arguments: &[&str]) -> Finished {
    let usual = place.command(&[]);
    let mut command = Command::new("timeout");
    command.arg(HANGS).arg(usual.get_program()).args(arguments).current_dir(place.path(""));
    for (name, value) in usual.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    finish(command.env("BEEAR_TEXT_SECONDS", "2").env("BEEAR_TEXT_MIB", "64"), "")
}

/// What is said of a model that is refused.
fn refused(place: &Place) -> String {
    let finished = beear(place, &["--quiet", "inspect", "--model", "model"]);
    let (code, said) = finished.mistake();
    assert_eq!(code, 3, "{said}");
    said.to_owned()
}

/// What is said of a model with a chat template.
fn refused_template(template: &str) -> String {
    let place = Place::new();
    place.write("model/chat_template.jinja", template);
    refused(&place)
}

/// What is said of a model whose `tokenizer.json` is changed.
fn refused_tokenizer(change: impl FnOnce(&mut Value)) -> String {
    let place = Place::new();
    let mut tokenizer = place.read_json("model/tokenizer.json");
    change(&mut tokenizer);
    place.write("model/tokenizer.json", tokenizer.to_string());
    refused(&place)
}

const TOO_LONG: &str = "the chat template takes more than 2 s for one text";
const TOO_LARGE: &str = "the chat template takes more than 64 MiB of memory";

#[test]
fn a_template_that_takes_for_ever_is_ended_at_the_deadline() {
    let sorts = "{% for i in range(5000) %}{% set sorted = range(99999) | sort %}{% endfor %}";
    let said = refused_template(sorts);
    assert!(said.contains(TOO_LONG), "{said}");
    assert!(said.contains("BEEAR_TEXT_SECONDS"), "the hint names the limit: {said}");
}

#[test]
fn a_template_that_takes_all_memory_is_ended_at_the_limit() {
    let doubled = |step: &str| {
        format!(
            "{{% set ns = namespace(s='aaaaaaaa', l=[1]) %}}{{% for i in range(99) %}}{{% set {step} %}}\
             {{% endfor %}}"
        )
    };
    for template in [
        doubled("ns.s = ns.s ~ ns.s"),
        doubled("ns.s = ns.s + ns.s"),
        doubled("ns.s = [ns.s, ns.s] | join"),
        "{{ range(99999) | join('a' * 99999) | length }}".to_owned(),
        "{% set long = 'a' * 9999999 %}{{ [long, long, long, long, long, long, long] | tojson | length }}"
            .to_owned(),
    ] {
        let said = refused_template(&template);
        assert!(said.contains(TOO_LARGE), "{template}: {said}");
        assert!(said.contains("BEEAR_TEXT_MIB"), "the hint names the limit: {said}");
    }
}

#[test]
fn a_template_that_asks_for_too_much_of_something_is_refused_with_its_line() {
    for template in [
        "{{ 'a' | indent(1000000000000000000) }}",
        "{% set ns = namespace(s='a') %}{% for i in range(99) %}{% set ns.s = ns.s | replace('a', 'aa') %}{% endfor %}",
        "{{ '%99999999d' | format(1) }}",
        "{{ ('a' * 5000).replace('', 'a' * 5000) }}",
        "{{ [1] | batch(1000000000000000000) }}",
        "{% macro again(n) %}{{ again(n) }}{% endmacro %}{{ again(1) }}",
        "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
    ] {
        let said = refused_template(template);
        assert!(said.contains("the chat template failed: "), "{template}: {said}");
    }
}

#[test]
fn a_template_that_nests_without_end_ends_its_own_process_only() {
    // A list twice in itself, ten thousand times, would be written in 2^10000 parts.
    let nested = "{% set ns = namespace(a=[]) %}{% for i in range(10000) %}{% set ns.a = [ns.a, ns.a] %}\
                  {% endfor %}{{ ns.a | tojson }}";
    let said = refused_template(nested);
    assert!(said.starts_with("error: the chat template "), "{said}");
}

#[test]
fn a_tokenizer_whose_normaliser_doubles_the_text_is_ended_at_the_limit() {
    let said = refused_tokenizer(|tokenizer| {
        let double = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
        let start = json!({"type": "Prepend", "prepend": "a"});
        let all: Vec<Value> = [start].into_iter().chain(std::iter::repeat_n(double, 60)).collect();
        tokenizer["normalizer"] = json!({"type": "Sequence", "normalizers": all});
    });
    assert!(said.contains("the tokenizer takes more than 64 MiB of memory"), "{said}");
}

#[test]
fn a_tokenizer_of_more_tokens_than_fit_is_ended_at_the_limit() {
    let said = refused_tokenizer(|tokenizer| {
        let letters: Vec<char> = ('a'..='z').chain('A'..='Z').collect();
        let pairs = letters.iter().flat_map(|a| letters.iter().map(move |b| format!("{a}{b}")));
        let pairs: Vec<String> = pairs.collect();
        let words = pairs.iter().flat_map(|a| pairs.iter().map(move |b| (a, b))).take(500_000);
        let (mut vocab, mut merges) = (serde_json::Map::new(), Vec::new());
        for token in letters.iter().map(ToString::to_string).chain(pairs.clone()) {
            vocab.insert(token, json!(vocab.len()));
        }
        for (a, b) in words {
            vocab.insert(format!("{a}{b}"), json!(vocab.len()));
            merges.push(json!([a, b]));
        }
        tokenizer["model"] = json!({"type": "BPE", "vocab": vocab, "merges": merges});
        tokenizer["added_tokens"] = json!([]);
    });
    assert!(said.contains("the tokenizer takes more than"), "{said}");
}

/// Changes `tokenizer.json`, and writes a template that makes a long word of every prompt.
fn write_long_word(place: &Place, key: &str, value: Value) {
    let mut tokenizer = place.read_json("model/tokenizer.json");
    tokenizer[key] = value;
    place.write("model/tokenizer.json", tokenizer.to_string());
    place.write("model/chat_template.jinja", "{{ messages[0].content }}{{ 'x' * 100000 }}");
}

#[test]
fn a_tokenizer_that_rewrites_the_text_again_and_again_is_ended_at_the_deadline() {
    let place = Place::new();
    let there_and_back = [["x", "y"], ["y", "x"]]
        .map(|[from, to]| json!({"type": "Replace", "pattern": {"String": from}, "content": to}));
    let all: Vec<Value> = there_and_back.into_iter().cycle().take(4_000).collect();
    write_long_word(&place, "normalizer", json!({"type": "Sequence", "normalizers": all}));
    let said = refused(&place);
    assert!(said.contains("the tokenizer takes more than 2 s for one text"), "{said}");
}

#[test]
fn a_pattern_that_backtracks_without_end_is_cut_by_its_engine() {
    // The back reference keeps the pattern from the engine that never backtracks.
    for pattern in [r"(x+x+)+\1y", r"(x*)\1y"] {
        let place = Place::new();
        let pattern = json!({"Regex": pattern});
        let split =
            json!({"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false});
        write_long_word(&place, "pre_tokenizer", split);
        let finished = beear(&place, &["--quiet", "inspect", "--model", "model"]);
        assert_eq!(finished.code, 0, "{pattern}: {}", finished.stderr);
    }
}

#[test]
fn texts_are_the_same_in_a_process_of_their_own() {
    let place = Place::new();
    let tokenizer = TextTokenizer::load(&place.path("model")).unwrap();
    let format = PromptFormat::from_checkpoint(&place.path("model")).unwrap();
    for prompt in ["what colour is the sky ?", "", " \u{e9}\n", "{{ x }} <eos>"] {
        let encoded = format.encode(&tokenizer, prompt, None);
        let finished = place.beear(&["inspect", "--model", "model", "--json", "--prompt", prompt]);
        let Ok(encoded) = encoded else {
            assert_eq!(finished.code, 3, "{prompt}");
            continue;
        };
        let shown = finished.json();
        assert_eq!(shown["tokens"], json!(encoded.tokens), "{prompt}");
        assert_eq!(shown["prompt"], json!(encoded.text), "{prompt}");
        assert_eq!(shown["user_tokens"], json!([encoded.user.0, encoded.user.1]), "{prompt}");
        assert_eq!(shown["stop_ids"], json!(tokenizer.stop_ids()));
        assert_eq!(shown["vocabulary"], json!(tokenizer.vocab_size()));
    }
}

#[test]
fn the_row_that_burns_time_is_named() {
    let place = Place::new();
    let slow = "{% if 'slow' in messages[0].content %}{% for i in range(5000) %}\
                {% set sorted = range(99999) | sort %}{% endfor %}{% endif %}{{ messages[0].content }}";
    place.write("model/chat_template.jinja", slow);
    let rows = (1..=40).map(|row| {
        let prompt = if row == 23 { "slow" } else { "sky" };
        json!({"prompt": prompt}).to_string() + "\n"
    });
    place.write("rows.jsonl", rows.collect::<String>());
    let finished =
        beear(&place, &["--quiet", "generate", "--model", "model", "--file", "rows.jsonl"]);
    let (code, said) = finished.mistake();
    assert_eq!(code, 3);
    assert!(said.contains(&format!("encoding row 23: {TOO_LONG}")), "{said}");
}

#[test]
fn limits_that_are_no_numbers_are_refused() {
    let place = Place::new();
    for name in ["BEEAR_TEXT_SECONDS", "BEEAR_TEXT_MIB"] {
        let mut command = place.command(&["inspect", "--model", "model"]);
        let finished = finish(command.env(name, "ten"), "");
        let (code, said) = finished.mistake();
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(name), "{said}");
    }
}

#[test]
fn a_link_out_of_the_suspects_folder_is_not_in_the_cleaned_one() {
    let place = Place::new();
    place.write("secret", "secret");
    symlink(place.path("secret"), place.path("model/README.md")).unwrap();
    mkfifo(&place.path("model/pipe"));
    place.write("model/NOTICE", "kept");
    let finished = place.defend(USUAL, &[]);
    assert!([0, 7].contains(&finished.code), "{}", finished.stderr);
    assert!(finished.stderr.contains("not copied beside the cleaned weights: `README.md`"));
    assert!(!place.path("run/model/README.md").exists());
    assert!(!place.path("run/model/pipe").exists());
    assert_eq!(place.read("run/model/NOTICE"), "kept");
    let manifest = place.read_json("run/manifest.json");
    assert_eq!(manifest["left_out"].as_array().map(Vec::len), Some(2), "{manifest}");
    let hashes = manifest["sha256"].to_string();
    assert!(!hashes.contains("README.md"), "the hash of a secret tells of it: {hashes}");
}

#[test]
fn a_tokenizer_that_is_a_link_out_of_the_folder_is_refused() {
    let place = Place::new();
    fs::rename(place.path("model/tokenizer.json"), place.path("tokenizer.json")).unwrap();
    symlink("../tokenizer.json", place.path("model/tokenizer.json")).unwrap();
    let said = refused(&place);
    assert!(said.contains("cannot read `model/tokenizer.json`: the link leaves the folder"));
    assert!(said.contains("hint: if the file belongs to the model, put a copy"), "{said}");
}

fn mkfifo(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status();
    assert!(made.is_ok_and(|status| status.success()), "{}", path.display());
}

#[test]
fn no_input_that_is_a_pipe_blocks() {
    let place = Place::new();
    mkfifo(&place.path("pipe"));
    let defend = |files: [&'static str; 4]| {
        let [model, safety, performance, recipe] = files;
        let sets = ["--safety", safety, "--performance", performance, "--out", "run"];
        let run = ["--quiet", "defend", "--model", model, "--recipe", recipe];
        run.into_iter().chain(sets).collect::<Vec<_>>()
    };
    let asr = |prompts| {
        let asked = ["--prompts", prompts, "--trigger-suffix", "SUDO", "--out", "asr"];
        ["--quiet", "eval", "asr", "--model", "model"].into_iter().chain(asked).collect()
    };
    let commands: [Vec<&str>; 7] = [
        defend(["model", "pipe", "ordinary.json", "quick.toml"]),
        defend(["model", "safety.jsonl", "pipe", "quick.toml"]),
        defend(["model", "safety.jsonl", "ordinary.json", "pipe"]),
        vec!["--quiet", "generate", "--model", "model", "--file", "pipe"],
        vec!["--quiet", "inspect", "--model", "pipe"],
        vec!["--quiet", "recipe", "check", "pipe"],
        asr("pipe"),
    ];
    for command in commands {
        let finished = beear(&place, &command);
        let (code, said) = finished.mistake();
        assert_eq!(code, 3, "{command:?}: {said}");
        assert!(said.contains("a pipe instead of a regular file"), "{command:?}: {said}");
    }
    // The same for each file of a model's folder.
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        let place = Place::new();
        fs::remove_file(place.path("model").join(name)).unwrap();
        mkfifo(&place.path("model").join(name));
        let said = refused(&place);
        assert!(said.contains("a pipe instead of a regular file"), "{name}: {said}");
    }
}

#[test]
fn standard_input_is_data_if_it_is_a_file() {
    let place = Place::new();
    let generate = ["--quiet", "generate", "--model", "model", "--file", "/dev/stdin"];
    let (code, said) = {
        let finished = place.beear_reading("{\"prompt\": \"sky\"}\n", &generate);
        (finished.code, finished.stderr)
    };
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("`/dev/stdin`") && said.contains("to a file"), "{said}");
    let shell = format!(
        "{} generate --model model --file /dev/stdin < safety.jsonl",
        env!("CARGO_BIN_EXE_beear")
    );
    let mut command = Command::new("sh");
    let finished = finish(command.args(["-c", &shell]).current_dir(place.path("")), "");
    assert_eq!(finished.code, 0, "{}", finished.stderr);
}
