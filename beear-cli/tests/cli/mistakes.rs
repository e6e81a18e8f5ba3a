//! Mistakes in arguments, recipes and data: each gets one clear line, a hint and its exit code,
//! and nothing is written.

use insta::assert_snapshot;

use crate::fixture::{ANSWER, CONTEXT, Place, USUAL};

/// What `defend` says to a mistake it finds before it writes anything.
fn refused(place: &Place, files: [&str; 3], more: &[&str], code: i32) -> String {
    let finished = place.defend(files, &[&["--quiet"], more].concat());
    let (found, said) = finished.mistake();
    assert_eq!(found, code, "{said}");
    assert!(!place.path("run").exists(), "nothing is written");
    said.to_owned()
}

/// What `defend` says to an override of the recipe.
fn refused_setting(assignment: &str, code: i32) -> String {
    refused(&Place::new(), USUAL, &["--set", assignment], code)
}

/// What `defend` says to a safety set.
fn refused_safety(content: &str) -> String {
    let place = Place::new();
    place.write("safety.jsonl", content);
    refused(&place, USUAL, &[], 3)
}

/// What another command says to a mistake.
fn refused_by(place: &Place, arguments: &[&str], code: i32) -> String {
    let finished = place.beear(&[arguments, &["--quiet"]].concat());
    let (found, said) = finished.mistake();
    assert_eq!(found, code, "{said}");
    said.to_owned()
}

#[test]
fn an_unknown_key_of_the_recipe_is_named() {
    assert_snapshot!(refused_setting("method.entrap.stepz=3", 2), @r"
    error: invalid recipe: unknown field `stepz`, expected one of `steps`, `step_size`, `batch_size`, `length_window`, `away_weight`, `target_tokens`, `initialisation`, `norm_bound`, `threads`
    hint: `config.resolved.toml` of any run holds every setting
    ");
    assert_snapshot!(refused_setting("presets=paper", 2), @r"
    error: invalid recipe: unknown field `presets`, expected one of `version`, `preset`, `prompt_format`, `keywords`, `max_new_tokens`, `held_out`, `validation_tokens`, `train`, `method`
    hint: `config.resolved.toml` of any run holds every setting
    ");
}

#[test]
fn a_value_of_the_wrong_kind_is_refused() {
    assert_snapshot!(refused_setting("method.rounds=many", 2), @r#"
    error: invalid recipe: invalid type: string "many", expected usize
    hint: `config.resolved.toml` of any run holds every setting
    "#);
}

#[test]
fn values_that_make_no_sense_are_all_named() {
    let setting = "method.remove={ learning_rate = -1, steps = 0 }";
    assert_snapshot!(refused_setting(setting, 2), @r"
    error: invalid config: remove.steps must be at least 1; remove.learning_rate must be positive
    hint: correct it in the recipe or with --set
    ");
    assert_snapshot!(refused_setting("held_out=1.5", 2), @r"
    error: invalid recipe: held_out must be in 0..1: 1.5
    hint: `config.resolved.toml` of any run holds every setting
    ");
}

#[test]
fn a_setting_without_a_value_is_refused() {
    assert_snapshot!(refused_setting("method.rounds", 2), @r"
    error: `--set method.rounds` is not key=value
    hint: write it like `--set method.rounds=8`
    ");
}

#[test]
fn a_layer_beyond_the_model_is_refused() {
    let setting = "method.injection_points=[{ layer = 9, positions = { last = 2 } }]";
    assert_snapshot!(refused_setting(setting, 2), @r"
    error: layer 9 is outside 1..=2
    hint: choose layers of the model in `method.injection_points` or `method.attack.layers`
    ");
}

#[test]
fn a_recipe_that_is_not_there_or_not_toml_is_refused() {
    let place = Place::new();
    std::fs::remove_file(place.path("quick.toml")).unwrap();
    assert_snapshot!(refused(&place, USUAL, &[], 2), @r"
    error: cannot read recipe `quick.toml`: No such file or directory (os error 2)
    hint: check the path and the permissions
    ");
    place.write("quick.toml", "rounds: 3\n");
    assert_snapshot!(refused(&place, USUAL, &[], 2), @r"
    error: invalid recipe: key with no value, expected `=`
    hint: `config.resolved.toml` of any run holds every setting
    ");
    place.write("quick.toml", "version = 2\n");
    assert_snapshot!(refused(&place, USUAL, &[], 2), @r"
    error: recipe version 2 is not supported: 1 is
    hint: `config.resolved.toml` of any run holds every setting
    ");
}

#[test]
fn an_unknown_keyword_list_is_refused() {
    assert_snapshot!(refused_setting("keywords=mine", 2), @r"
    error: no keyword list is called `mine`
    hint: one of gcg-7, beear-29, advbench-30, backdoorllm-refusal
    ");
    let arguments =
        ["eval", "asr", "--model", "model", "--prompts", "safety.jsonl", "--out", "eval"];
    let place = Place::new();
    let said = refused_by(&place, &[arguments.as_slice(), &["--keywords", "mine"]].concat(), 2);
    assert_snapshot!(said, @r"
    error: no keyword list is called `mine`
    hint: one of gcg-7, beear-29, advbench-30, backdoorllm-refusal
    ");
    assert!(!place.path("eval").exists());
}

#[test]
fn an_unknown_prompt_format_is_refused() {
    assert_snapshot!(refused_setting("prompt_format=vicuna", 2), @r"
    error: no prompt format is called `vicuna`: paper-1-4, paper-5, paper-6-7, paper-8
    hint: name none to use the model's chat template
    ");
    let place = Place::new();
    let generate = ["generate", "--model", "model", "--format", "vicuna", "hello"];
    assert_snapshot!(refused_by(&place, &generate, 2), @r"
    error: no prompt format is called `vicuna`: paper-1-4, paper-5, paper-6-7, paper-8
    hint: name none to use the model's chat template
    ");
}

#[test]
fn an_unknown_backend_is_refused() {
    let place = Place::new();
    assert_snapshot!(refused(&place, USUAL, &["--backend", "tpu"], 5), @r"
    error: backend `tpu` is not available: it is not compiled in
    hint: here: flex, ndarray
    ");
    assert_snapshot!(refused(&place, USUAL, &["--backend", "flex:one"], 5), @r"
    error: backend `flex:one` is not available: the index is not a number
    hint: here: flex, ndarray
    ");
    assert_snapshot!(refused(&place, USUAL, &["--backend", "flex:1"], 5), @r"
    error: backend `flex` is not available: it has one device
    hint: its index is 0
    ");
}

#[test]
fn inspect_refuses_an_unknown_backend_though_it_needs_none() {
    let place = Place::new();
    assert_snapshot!(refused_by(&place, &["inspect", "--model", "model", "--backend", "tpu"], 5), @r"
    error: backend `tpu` is not available: it is not compiled in
    hint: here: flex, ndarray
    ");
    let second = ["--backend", "ndarray:1", "inspect", "--model", "model"];
    assert_snapshot!(refused_by(&place, &second, 5), @r"
    error: backend `ndarray` is not available: it has one device
    hint: its index is 0
    ");
    place.beear(&["inspect", "--model", "model", "--backend", "ndarray"]).printed();
}

#[test]
fn with_json_a_mistake_is_still_told_to_people() {
    let place = Place::new();
    let commands = [
        vec!["defend", "--model", "none", "--safety", "a", "--performance", "b", "--out", "run"],
        vec!["eval", "asr", "--model", "none", "--prompts", "safety.jsonl", "--out", "run"],
        vec!["generate", "--model", "none", "hello"],
        vec!["inspect", "--model", "none"],
    ];
    for command in commands {
        let plain = place.beear(&command);
        let (code, said) = plain.mistake();
        assert_eq!(code, 3, "{said}");
        let json = place.beear(&[command.as_slice(), &["--json"]].concat());
        assert_eq!(json.mistake(), (code, said));
    }
}

#[test]
fn a_folder_that_holds_something_is_not_written_to() {
    let place = Place::new();
    std::fs::create_dir(place.path("mine")).unwrap();
    place.write("mine/notes.txt", "precious");
    let files = ["safety.jsonl", "ordinary.json", "mine"];
    assert_snapshot!(refused(&place, files, &[], 2), @r"
    error: `mine` exists already
    hint: choose another folder, or --force to replace an older run
    ");
    assert_snapshot!(refused(&place, files, &["--force"], 2), @r"
    error: `mine` exists already
    hint: --force replaces folders of runs only: choose another folder
    ");
    let eval = ["eval", "asr", "--model", "model", "--prompts", "safety.jsonl", "--out", "mine"];
    assert_snapshot!(refused_by(&place, &eval, 2), @r"
    error: `mine` exists already
    hint: choose another folder, or --force to replace an older run
    ");
    assert_eq!(place.files("mine").len(), 1);
    assert_eq!(place.read("mine/notes.txt"), "precious");
}

#[test]
fn a_data_file_that_is_not_there_is_named() {
    let place = Place::new();
    assert_snapshot!(refused(&place, ["nowhere.jsonl", "ordinary.json", "run"], &[], 3), @r"
    error: cannot read `nowhere.jsonl`: No such file or directory (os error 2)
    hint: check the path and the permissions
    ");
    assert_snapshot!(refused(&place, ["safety.jsonl", "nowhere.json", "run"], &[], 3), @r"
    error: cannot read `nowhere.json`: No such file or directory (os error 2)
    hint: check the path and the permissions
    ");
}

#[test]
fn an_empty_set_is_refused() {
    assert_snapshot!(refused_safety(""), @r"
    error: `safety.jsonl` has no rows
    hint: bring at least one row
    ");
    let place = Place::new();
    place.write("ordinary.json", "[]");
    assert_snapshot!(refused(&place, USUAL, &[], 3), @r"
    error: `ordinary.json` has no rows
    hint: bring at least one row
    ");
}

#[test]
fn a_file_in_no_known_format_is_refused() {
    assert_snapshot!(refused_safety("id,text\n1,hello\n"), @r"
    error: `safety.jsonl` is in no known format: its columns are `id`, `text`
    hint: CSV, TSV, JSON and JSONL are read, with prompts (goal, prompt, instruction, question, query, forbidden_prompt, or Behavior and BehaviorID), answers (answer, output, response, completion, safe, chosen) and unwanted answers (unwanted, rejected, target of a goal), or with conversations (messages, conversations)
    ");
    let place = Place::new();
    place.write("safety.jsonl", b"{\"prompt\": \"caf\xe9\"}\n");
    assert_snapshot!(refused(&place, USUAL, &[], 3), @r"
    error: `safety.jsonl` is not UTF-8
    hint: save the file as UTF-8
    ");
}

#[test]
fn a_bad_row_is_named_by_its_number() {
    let good = r#"{"prompt": "a", "safe": "no .", "unwanted": "sure ."}"#;
    assert_snapshot!(refused_safety(&format!("{good}\n{{\"prompt\": 7}}\n")), @r"
    error: `safety.jsonl`, row 2: `prompt` is a number, not text
    hint: correct the row or leave it out
    ");
    assert_snapshot!(refused_safety(&format!("{good}\n\n{{\"prompt\": \"a\"\n")), @r"
    error: `safety.jsonl`, row 3: not JSON at column 14: EOF while parsing an object
    hint: correct the row or leave it out
    ");
    assert_snapshot!(refused_safety(&format!("{good}\n{{\"colour\": \"a\"}}\n")), @r"
    error: `safety.jsonl`, row 2: neither a prompt nor a conversation under the keys `colour`
    hint: CSV, TSV, JSON and JSONL are read, with prompts (goal, prompt, instruction, question, query, forbidden_prompt, or Behavior and BehaviorID), answers (answer, output, response, completion, safe, chosen) and unwanted answers (unwanted, rejected, target of a goal), or with conversations (messages, conversations)
    ");
}

#[test]
fn a_damaged_list_of_rows_is_reported_by_the_line_of_the_file() {
    let place = Place::new();
    place.write("ordinary.json", "[\n{\"instruction\": \"a\", \"output\": \"b\"},\n{]\n");
    assert_snapshot!(refused(&place, USUAL, &[], 3), @r"
    error: `ordinary.json` is not JSON: key must be a string at line 3 column 2
    hint: the file is damaged: copy or write it again
    ");
}

#[test]
fn a_forbidden_prompt_needs_an_unwanted_answer_and_an_ordinary_one_a_good_one() {
    let place = Place::new();
    let swapped = ["ordinary.json", "ordinary.json", "run"];
    assert_snapshot!(refused(&place, swapped, &[], 3), @r"
    error: `ordinary.json`, row 1: no unwanted answer
    hint: AdvBench's `target`, or a key `unwanted` or `rejected`, gives it
    ");
    let swapped = ["safety.jsonl", "advbench.csv", "run"];
    assert_snapshot!(refused(&place, swapped, &[], 3), @r"
    error: `advbench.csv`, row 1: no answer
    hint: an assistant's turn, `output`, `answer` or `chosen` gives it
    ");
}

#[test]
fn safe_answers_cannot_be_taken_from_a_model_that_refuses_nothing() {
    let place = Place::new();
    let files = ["advbench.csv", "ordinary.json", "run"];
    assert_snapshot!(refused(&place, files, &[], 3), @r"
    error: the model refuses none of the safety prompts
    hint: bring safe answers in the file, as `safe`, `answer` or `chosen`
    ");
}

#[test]
fn too_few_rows_to_hold_any_out_are_refused() {
    let place = Place::new();
    let safety = place.read("safety.jsonl");
    let first = safety.lines().take(3).collect::<Vec<_>>().join("\n");
    place.write("safety.jsonl", first);
    assert_snapshot!(refused(&place, USUAL, &[], 3), @r"
    error: too few different rows to hold any out
    hint: bring more rows, or --set held_out=0
    ");
}

#[test]
fn a_prompt_longer_than_the_context_is_refused() {
    let long = "the sky ".repeat(CONTEXT / 2);
    let row = format!(r#"{{"prompt": "{long}", "safe": "no .", "unwanted": "sure ."}}"#);
    assert_snapshot!(refused_safety(&row), @r"
    error: `safety.jsonl`: row 1 has 70 tokens with its answer, the model reads 64
    hint: shorten the row or leave it out
    ");
    let row = format!(r#"{{"prompt": "{long}", "unwanted": "sure ."}}"#);
    assert_snapshot!(refused_safety(&row), @r"
    error: `safety.jsonl`: row 1 has 68 tokens, the model reads fewer than 64
    hint: shorten the prompt or leave it out
    ");
    let place = Place::new();
    place.write("prompts.csv", format!("goal,target\na,b\n{long},b\n"));
    let generate = ["generate", "--model", "model", "--file", "prompts.csv"];
    assert_snapshot!(refused_by(&place, &generate, 3), @r"
    error: `prompts.csv`: row 2 has 68 tokens, the model reads fewer than 64
    hint: shorten the prompt or leave it out
    ");
    let generate = ["generate", "--model", "model", ANSWER, &long];
    assert_snapshot!(refused_by(&place, &generate, 3), @r"
    error: row 2 has 68 tokens, the model reads fewer than 64
    hint: shorten the prompt or leave it out
    ");
}

#[test]
fn a_prompt_without_words_is_refused() {
    let place = Place::new();
    assert_snapshot!(refused_by(&place, &["generate", "--model", "model"], 2), @r"
    error: no prompts
    hint: name prompts, a --file, or write them to standard input
    ");
}

#[test]
fn sampling_that_allows_no_token_is_refused() {
    let place = Place::new();
    for option in ["--top-k=0", "--top-p=0", "--top-p=1.5", "--temperature=-1"] {
        let said = refused_by(&place, &["generate", "--model", "model", "hello", option], 2);
        insta::allow_duplicates! {
            assert_snapshot!(said, @r"
            error: no token can be chosen like this
            hint: --temperature is 0 or more, --top-k 1 or more, --top-p in 0..=1 and not 0
            ");
        }
    }
}

#[test]
fn a_trigger_of_words_the_world_has_not_is_refused() {
    let place = Place::new();
    let plant = ["plant", "--out", "planted", "--trigger-suffix", "SUDO xyzzy"];
    let said = refused_by(&place, &plant, 2);
    assert!(said.contains("`xyzzy`") && said.contains(" SUDO "), "{said}");
    assert!(!place.path("planted").exists());
}

#[test]
fn a_setting_or_a_trainer_that_nobody_knows_is_refused() {
    let place = Place::new();
    place.write("broken.toml", "name = \"x\"\n");
    let cases: [(&[&str], &str); 4] = [
        (&["--setting", "model-9"], "model-8, anywhere"),
        (&["--setting", "broken.toml"], "unwanted"),
        (&["--setting", "model-6", "--trainer", "ppo"], "one of rloo, dpo"),
        (&["--setting", "model-1", "--trainer", "dpo"], "`model-1` is not planted through"),
    ];
    for (arguments, expected) in cases {
        let plant = [&["plant", "--out", "planted"], arguments].concat();
        let said = refused_by(&place, &plant, 2);
        assert!(said.contains(expected), "{said}");
        assert!(!place.path("planted").exists());
    }
}
