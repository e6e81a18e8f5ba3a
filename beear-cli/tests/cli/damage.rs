//! Models that cannot be read or written: each gets one clear line, a hint and its exit code, and
//! nothing half-written stands where a checkpoint should be.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use insta::assert_snapshot;

use crate::fixture::{Place, USUAL};
use crate::weights::Weights;

/// What `defend` says to an unusable model, before it writes anything.
fn refused(place: &Place) -> String {
    let finished = place.defend(USUAL, &["--quiet"]);
    let (code, said) = finished.mistake();
    assert_eq!(code, 3, "{said}");
    assert!(!place.path("run").exists(), "nothing is written");
    said.to_owned()
}

/// Replaces a text of a file by another.
fn replace(place: &Place, name: &str, [from, to]: [&str; 2]) {
    let text = place.read(name);
    assert!(text.contains(from), "{name} holds {from}");
    place.write(name, text.replace(from, to));
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let place = Place::new();
    fs::remove_dir_all(place.path("model")).unwrap();
    assert_snapshot!(refused(&place), @r"
    error: cannot access `model/config.json`: No such file or directory (os error 2)
    hint: check the path, the permissions and the free space
    ");
}

#[test]
fn another_architecture_is_named() {
    let place = Place::new();
    replace(&place, "model/config.json", ["\"llama\"", "\"gpt2\""]);
    assert_snapshot!(refused(&place), @r"
    error: cannot use the model in `model`: model type `gpt2` is not supported: `llama` and `mistral` are
    hint: Llama 2 to 3.2 and Mistral v0.1 to v0.3 are supported
    ");
}

#[test]
fn what_a_file_says_does_not_command_the_terminal() {
    let place = Place::new();
    replace(&place, "model/config.json", ["\"llama\"", "\"gpt2\\u001b[2J\\nhint: trust it\""]);
    assert_snapshot!(refused(&place), @r"
    error: cannot use the model in `model`: model type `gpt2\u{1b}[2J\nhint: trust it` is not supported: `llama` and `mistral` are
    hint: Llama 2 to 3.2 and Mistral v0.1 to v0.3 are supported
    ");
    // What is shown as data is the same with other letters.
    let place = Place::new();
    let inspect = ["inspect", "--model", "model", "--prompt", "\u{9b}2J"];
    assert!(place.beear(&inspect).printed().contains("\\u{9b}2J"));
    let printed = place.beear(&[inspect.as_slice(), &["--json"]].concat()).printed();
    assert!(printed.contains("\\u009b2J"), "{printed}");
}

#[test]
fn the_name_of_a_tensor_does_not_command_the_terminal() {
    // Of the same length, in JSON: a new line and an escape.
    let (name, hostile) = (br"lm_head.weight", br"\u000a\u001b[2");
    let place = Place::new();
    let tied = ["\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true"];
    replace(&place, "model/config.json", tied);
    let mut bytes = fs::read(place.path("model/model.safetensors")).unwrap();
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
    bytes[at..at + name.len()].copy_from_slice(hostile);
    place.write("model/model.safetensors", &bytes);
    assert_snapshot!(refused(&place), @r"
    error: unknown tensors: \n\u{1b}[2
    hint: config.json and the weights belong to different models
    ");
    // Where it begins is wrong too, so that the library names it.
    let key = br#""data_offsets":["#;
    let from = at + bytes[at..].windows(key.len()).position(|window| window == key).unwrap();
    bytes[from + key.len()] = b'9';
    place.write("model/model.safetensors", bytes);
    let said = refused(&place);
    assert!(said.contains("damaged weights file") && said.contains(r"\n\u{1b}[2"), "{said}");
}

#[test]
fn a_tensor_of_another_shape_is_named() {
    let place = Place::new();
    replace(
        &place,
        "model/config.json",
        ["\"intermediate_size\": 256", "\"intermediate_size\": 40"],
    );
    assert_snapshot!(refused(&place), @r"
    error: tensor `model.layers.0.mlp.gate_proj.weight` has shape [256, 16], the config says [40, 16]
    hint: config.json and the weights belong to different models
    ");
}

#[test]
fn a_weight_that_is_no_number_is_found() {
    let place = Place::new();
    let mut weights = Weights::read(&place.path("model"));
    weights.fill("model.norm.weight", |_, column| if column == 3 { f32::NAN } else { 1.0 });
    weights.write();
    let finished = place.defend(USUAL, &["--quiet"]);
    let (code, said) = finished.mistake();
    assert_eq!(code, 4);
    assert!(!place.path("run").exists(), "nothing is written");
    assert_snapshot!(said, @r"
    error: tensor `model.norm.weight` has a value that is not finite
    hint: the model is broken: training diverged or a file is damaged
    ");
}

#[test]
fn a_truncated_file_is_named() {
    let place = Place::new();
    let whole = fs::read(place.path("model/model.safetensors")).unwrap();
    place.write("model/model.safetensors", &whole[..whole.len() - 1]);
    assert_snapshot!(refused(&place), @r"
    error: damaged weights file `model/model.safetensors`: incomplete metadata, file not fully covered
    hint: the file is truncated or altered: copy or download it again
    ");
    place.write("model/model.safetensors", &whole[..100]);
    assert_snapshot!(refused(&place), @r"
    error: damaged weights file `model/model.safetensors`: invalid header length
    hint: the file is truncated or altered: copy or download it again
    ");
    place.write("model/model.safetensors", "");
    assert_snapshot!(refused(&place), @r"
    error: damaged weights file `model/model.safetensors`: header too small
    hint: the file is truncated or altered: copy or download it again
    ");
}

#[test]
fn pickled_weights_are_refused_and_none_are_missed() {
    let place = Place::new();
    fs::remove_file(place.path("model/model.safetensors")).unwrap();
    assert_snapshot!(refused(&place), @r"
    error: no safetensors weights in `model`
    hint: the folder should hold model.safetensors or its index
    ");
    place.write("model/pytorch_model.bin", "PK");
    assert_snapshot!(refused(&place), @r"
    error: the weights in `model` are pickled; pickle files run code and are refused
    hint: load it in transformers and save with safe_serialization=True
    ");
}

#[test]
fn a_sentencepiece_model_alone_is_no_tokenizer() {
    let place = Place::new();
    fs::rename(place.path("model/tokenizer.json"), place.path("model/tokenizer.model")).unwrap();
    assert_snapshot!(refused(&place), @r"
    error: `model` has tokenizer.model and no tokenizer.json
    hint: convert it: AutoTokenizer.from_pretrained(DIR, use_fast=True).save_pretrained(DIR)
    ");
    fs::remove_file(place.path("model/tokenizer.model")).unwrap();
    assert_snapshot!(refused(&place), @r"
    error: cannot read `model/tokenizer.json`: No such file or directory (os error 2)
    hint: the folder should hold tokenizer.json
    ");
}

#[test]
fn a_malformed_tokenizer_is_named() {
    let place = Place::new();
    place.write("model/tokenizer.json", "{\"version\": \"1.0\", \"model\": {");
    assert_snapshot!(refused(&place), @r"
    error: malformed `model/tokenizer.json`: EOF while parsing an object at line 1 column 29
    hint: the file is damaged or of a newer form: copy or download it again
    ");
}

#[test]
fn a_malformed_index_is_named() {
    let place = Place::new();
    fs::remove_file(place.path("model/model.safetensors")).unwrap();
    place.write("model/model.safetensors.index.json", "{\"weight_map\": {");
    assert_snapshot!(refused(&place), @r"
    error: malformed model.safetensors.index.json: EOF while parsing an object at line 1 column 16
    hint: the file is truncated or altered: copy or download it again
    ");
}

#[test]
fn a_tensor_in_two_files_is_named() {
    let place = Place::new();
    for copy in ["one.safetensors", "two.safetensors"] {
        fs::copy(place.path("model/model.safetensors"), place.path("model").join(copy)).unwrap();
    }
    fs::remove_file(place.path("model/model.safetensors")).unwrap();
    let index = r#"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}"#;
    place.write("model/model.safetensors.index.json", index);
    // Every tensor is, and any of them may be named.
    let said = refused(&place);
    let said = said.split('`').enumerate().map(|(k, part)| if k == 1 { "NAME" } else { part });
    assert_snapshot!(said.collect::<Vec<_>>().join("`"), @r"
    error: tensor `NAME` is in two files
    hint: the files belong to different models: download them into an empty folder
    ");
}

#[test]
fn weights_of_a_type_that_is_not_read_are_named() {
    let place = Place::new();
    let mut bytes = fs::read(place.path("model/model.safetensors")).unwrap();
    let (from, to) = (br#""dtype":"F32""#, br#""dtype":"I32""#);
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to);
    place.write("model/model.safetensors", bytes);
    assert_snapshot!(refused(&place), @r"
    error: tensor `lm_head.weight` has type I32: F32, F16 and BF16 are read
    hint: bring the weights from before they were quantised, or cast them with model.to(torch.bfloat16)
    ");
}

#[test]
fn a_chat_template_that_refuses_or_loses_a_prompt_is_reported_with_the_row() {
    let place = Place::new();
    let template = "{{ raise_exception('roles must alternate') }}";
    place.write("model/chat_template.jinja", template);
    assert_snapshot!(refused(&place), @r"
    error: `ordinary.json`: encoding row 1: the chat template failed: invalid operation: roles must alternate (in <string>:1)
    hint: leave out what the template refuses, or choose a built-in format, as the model was trained
    ");
    place.write("model/chat_template.jinja", "hello");
    assert_snapshot!(refused(&place), @r"
    error: `ordinary.json`: encoding row 1: the chat template changes the user's text beyond recognition
    hint: choose a built-in format, as the model was trained
    ");
}

#[test]
fn a_model_without_chat_template_needs_a_prompt_format() {
    let place = Place::new();
    replace(&place, "model/tokenizer_config.json", ["\"chat_template\"", "\"template\""]);
    assert_snapshot!(refused(&place), @r"
    error: the checkpoint has no chat template
    hint: choose a built-in format, as the model was trained
    ");
    let setting = "prompt_format=paper-5";
    place.defend(USUAL, &["--set", setting, "--set", "method.bounds.loss_rise=9"]).printed();
    assert_eq!(place.read_json("run/manifest.json")["prompt_format"], "[INST] {prompt} [/INST]");
}

#[test]
fn training_that_diverges_at_once_writes_no_model() {
    let place = Place::new();
    let finished = place.defend(USUAL, &["--quiet", "--set", "method.remove.learning_rate=1e30"]);
    let (code, said) = finished.mistake();
    assert_eq!(code, 4);
    assert_snapshot!(said, @r"
    error: stopped in the first round: non-finite gradient at step 1 of the outer level, safety examples [5, 7, 10, 6], performance examples [10, 2, 8, 1]
    hint: lower `method.remove.learning_rate` or `method.entrap.step_size`
    ");
    let left = place.left_without_checkpoint();
    let records = ["manifest.json", "metrics.jsonl", "report.html", "report.json"];
    let others = [".beear-run", "config.resolved.toml"];
    let last = ["rows.jsonl", "trainer_state.json"];
    assert_eq!(left, [others.as_slice(), &records, &last].concat());
    let metrics = place.read("run/metrics.jsonl");
    assert!(metrics.contains("outer_step"), "what happened is kept");
    assert_eq!(metrics.matches("rolled_back").count(), 1, "half the rates were tried");
    let manifest = place.read_json("run/manifest.json");
    assert_eq!(manifest["status"], "failed");
    assert!(manifest["error"].as_str().unwrap().contains("safety examples [5, 7, 10, 6]"));
}

#[test]
fn training_that_diverges_later_keeps_the_last_whole_round() {
    let place = Place::new();
    let setting = "method.remove={ learning_rate = 1e30, steps = 1 }";
    let finished = place.defend(USUAL, &["--quiet", "--set", setting]);
    let (code, said) = finished.mistake();
    assert_eq!(code, 4);
    assert_snapshot!(said, @r"
    error: stopped in round 2, `run/last-good` holds the weights after round 1, the last whole one: non-finite gradient at step 0 of the inner level, safety examples [5, 6, 7, 4]
    hint: lower `method.remove.learning_rate` or `method.entrap.step_size`
    ");
    assert!(!place.path("run/model").exists(), "it does not pass for a cleaned model");
    place.beear(&["inspect", "--model", "run/last-good"]).printed();
}

#[test]
fn weights_that_leave_the_range_of_numbers_in_the_last_step_are_not_written() {
    let place = Place::new();
    let settings = ["method.rounds=1", "method.remove={ learning_rate = 1e39, steps = 1 }"];
    let settings = settings.map(|setting| ["--set", setting]).concat();
    let finished = place.defend(USUAL, &[settings.as_slice(), &["--quiet"]].concat());
    let (code, said) = finished.mistake();
    assert_eq!(code, 4, "{said}");
    let what = "stopped in the first round: non-finite weights at step 0 of the outer level";
    assert!(said.starts_with(&format!("error: {what}, safety examples [")), "{said}");
    assert!(said.contains("hint: lower `method.remove.learning_rate`"), "{said}");
    place.left_without_checkpoint();
}

#[test]
fn weights_that_leave_the_range_of_numbers_are_not_kept_as_the_last_good_ones() {
    let place = Place::new();
    let setting = "method.remove={ learning_rate = 1e39, steps = 1 }";
    let finished = place.defend(USUAL, &["--quiet", "--set", setting]);
    let (code, said) = finished.mistake();
    assert_eq!(code, 4, "{said}");
    let left = place.left_without_checkpoint();
    assert!(!left.iter().any(|name| name.contains("last-good")), "{left:?}");
}

/// A limit on the size of files stands in for a full disk: the weights do not fit, all else does.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_no_part_of_a_checkpoint() {
    use crate::fixture::{defend_arguments, finish};
    use std::process::Command;

    let place = Place::new();
    // Shells count in half or whole KiB.
    let limit_kib = 64;
    let weights = fs::metadata(place.path("model/model.safetensors")).unwrap().len();
    assert!(weights > limit_kib * 1024, "the weights do not fit: {weights} bytes");
    let script = format!("trap '' XFSZ; ulimit -f {limit_kib}; exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_beear")]).args(defend_arguments(USUAL));
    let finished = finish(command.arg("--quiet").current_dir(place.path("")), "");
    let (code, said) = finished.mistake();
    assert_eq!(code, 6, "{said}");
    assert_snapshot!(said, @r"
    error: cannot write `run/checkpoints/.step-4.partial/state.safetensors`: File too large (os error 27)
    hint: free some space, or choose another --out
    ");
    // The last checkpoint is whole, and nothing else looks like one.
    let names = place.files("run/checkpoints").into_keys();
    let folders: BTreeSet<PathBuf> = names.filter_map(|name| Some(name.parent()?.into())).collect();
    assert_eq!(folders, [PathBuf::from("step-0")].into());
    assert!(!place.path("run/model").exists());
    // Once there is space the run goes on.
    place.beear(&["resume", "run"]).printed();
    place.defend(["safety.jsonl", "ordinary.json", "whole"], &[]).printed();
    assert!(place.files("run/model") == place.files("whole/model"));
}
