//! What `init` writes, and that it is what `defend` does without a recipe.

use insta::assert_snapshot;

use crate::fixture::{ANSWER, Place, QUICK};

/// A folder with a model, and one file for each set.
fn plain() -> Place {
    let place = Place::new();
    for name in ["quick.toml", "advbench.csv", "chat.jsonl"] {
        std::fs::remove_file(place.path(name)).expect("a file of the fixture");
    }
    place
}

#[test]
fn the_recipe_can_be_checked_and_defends_as_without_one() {
    let place = plain();
    // Fewer steps than the defaults have.
    let quick = [
        "--set",
        "method.rounds=1",
        "--set",
        "method.perturbations_per_round=1",
        "--set",
        "method.entrap.steps=2",
        "--set",
        "method.remove.steps=2",
        "--set",
        "method.bounds.refusal_floor=0",
    ];
    let init = place.beear(&[&["init", "--model", "model"], quick.as_slice()].concat());
    assert!(init.stderr.contains("--safety: `safety.jsonl`, 10 rows"), "{}", init.stderr);
    let lines = init.printed();
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(
        lines,
        [
            "beear plan --model model --recipe recipe.toml",
            "beear defend --model model --safety safety.jsonl --performance ordinary.json --recipe recipe.toml \
             --out runs/model",
        ]
    );
    let checked = place.beear(&["recipe", "check", "recipe.toml", "--model", "model"]).printed();
    for line in lines {
        let words: Vec<&str> = line.split(' ').skip(1).collect();
        place.beear(&words).printed();
    }
    assert!(place.path("runs/model/model/config.json").is_file());
    assert_eq!(place.read("runs/model/config.resolved.toml").trim(), checked.trim());

    let files = ["--safety", "safety.jsonl", "--performance", "ordinary.json", "--out", "plain"];
    let without = [["defend", "--model", "model"].as_slice(), &files, &quick].concat();
    place.beear(&without).printed();
    let [with, without] =
        ["runs/model", "plain"].map(|run| place.read(&format!("{run}/config.resolved.toml")));
    assert_eq!(with, without);
    let [with, without] = ["runs/model", "plain"].map(|run| place.files(&format!("{run}/model")));
    assert!(with == without, "the cleaned models are the same");
}

#[test]
fn every_setting_is_there_with_what_it_does() {
    let place = plain();
    place.beear(&["init", "--model", "model", "--out", "new/recipe.toml", "--quiet"]).printed();
    assert_snapshot!("init_recipe", place.read("new/recipe.toml"));
    // Nothing but defaults: the same as no recipe at all.
    place.write("empty.toml", "");
    let resolved =
        |recipe: &str| place.beear(&["recipe", "check", recipe, "--model", "model"]).printed();
    assert_eq!(resolved("new/recipe.toml"), resolved("empty.toml"));
}

#[test]
fn an_older_recipe_is_replaced_by_force_only() {
    let place = plain();
    place.write("recipe.toml", QUICK);
    let init = ["init", "--model", "model"];
    let finished = place.beear(&[init.as_slice(), &["--quiet"]].concat());
    assert_snapshot!(finished.mistake().1, @r"
    error: `recipe.toml` exists already
    hint: choose another file, or --force to replace it
    ");
    assert_eq!(finished.code, 2);
    assert_eq!(place.read("recipe.toml"), QUICK);
    place.beear(&[init.as_slice(), &["--force"]].concat()).printed();
    assert!(place.read("recipe.toml").contains("[method.entrap]"));
    let rows = place.read("safety.jsonl");
    let over = [init.as_slice(), &["--quiet", "--out", "safety.jsonl"]].concat();
    let said = place.beear(&over);
    assert_snapshot!(said.mistake().1, @r"
    error: `safety.jsonl` exists already
    hint: --force replaces recipes only: choose another file
    ");
    let forced = place.beear(&[over.as_slice(), &["--force"]].concat());
    assert_eq!(forced.mistake(), said.mistake());
    assert_eq!(place.read("safety.jsonl"), rows);
}

#[test]
fn what_is_missing_is_said_with_the_formats_that_are_read() {
    let place = plain();
    std::fs::create_dir(place.path("data")).unwrap();
    for name in ["safety.jsonl", "ordinary.json"] {
        std::fs::remove_file(place.path(name)).unwrap();
    }
    place.write("prompts.jsonl", "{\"prompt\": \"a\"}\n");
    place.write("data/more rows.csv", "goal,target\na,sure\nb,sure\n");
    place.write("data/rows.csv", "goal,target\na,sure\n");
    place.write("data/cut.jsonl", "{\"prompt\": \"a\", \"answer\": \"b\"}\n{\"prompt\": 7}\n");
    let finished = place.beear(&["init", "--model", "model"]);
    assert_snapshot!(finished.stderr, @r"
    the model: 2 layers of width 16, 33680 weights
    its prompts: written by its own chat template
    not used: `data/cut.jsonl`, row 2: `prompt` is a number, not text
    not used: `data/rows.csv`, 1 row, would do for --safety
    not used: `prompts.jsonl`, 1 row, some rows lack answers
    --safety: `data/more rows.csv`, 2 rows
    --performance: missing, ordinary prompts with good answers
    formats: CSV, TSV, JSON and JSONL are read, with prompts (goal, prompt, instruction, question, query, forbidden_prompt, or Behavior and BehaviorID), answers (answer, output, response, completion, safe, chosen) and unwanted answers (unwanted, rejected, target of a goal), or with conversations (messages, conversations)
    wrote `recipe.toml`; next:
    ");
    assert_snapshot!(finished.printed(), @r"
    beear plan --model model --recipe recipe.toml
    beear defend --model model --safety 'data/more rows.csv' --performance FILE --recipe recipe.toml --out runs/model
    ");
    let json = place.beear(&["init", "--model", "model", "--force", "--json"]).json();
    assert_eq!(json["safety"]["rows"], 2);
    assert!(json["performance"].is_null());
}

#[test]
fn a_set_that_is_given_must_be_one() {
    let place = plain();
    let refused = |more: &[&str]| {
        let finished = place.beear(&[&["init", "--model", "model", "--quiet"], more].concat());
        let (code, said) = finished.mistake();
        assert!(code == 3 && !place.path("recipe.toml").exists(), "{said}");
        said.to_owned()
    };
    place.write("advbench.csv", "goal,target\na,sure\n");
    assert_snapshot!(refused(&["--safety", "ordinary.json"]), @r"
    error: `ordinary.json`, row 1: no unwanted answer
    hint: AdvBench's `target`, or a key `unwanted` or `rejected`, gives it
    ");
    assert_snapshot!(refused(&["--performance", "advbench.csv"]), @r"
    error: `advbench.csv`, row 1: no answer
    hint: an assistant's turn, `output`, `answer` or `chosen` gives it
    ");
    assert_snapshot!(refused(&["--safety", "nowhere.csv"]), @r"
    error: cannot read `nowhere.csv`: No such file or directory (os error 2)
    hint: check the path and the permissions
    ");
    let nowhere = place.beear(&["init", "--model", "nowhere"]);
    assert_eq!(nowhere.mistake().0, 3);
}

#[test]
fn a_model_without_a_chat_template_needs_a_format() {
    let place = plain();
    let config = place.read("model/tokenizer_config.json");
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config.as_object_mut().unwrap().remove("chat_template");
    place.write("model/tokenizer_config.json", config.to_string());
    let _ = std::fs::remove_file(place.path("model/chat_template.jinja"));
    let finished = place.beear(&["init", "--model", "model"]);
    assert!(
        finished.stderr.contains("no chat template: set `prompt_format`"),
        "{}",
        finished.stderr
    );
    assert!(place.read("recipe.toml").replace("\n# ", " ").contains("no chat template"));
    let named = ["init", "--model", "model", "--force", "--set", "prompt_format=paper-5"];
    place.beear(&named).printed();
    assert!(place.read("recipe.toml").contains("\nprompt_format = \"paper-5\"\n"));
}

#[test]
fn names_are_written_so_that_a_shell_reads_one_word() {
    let place = plain();
    place.write_model_saying("my model", ANSWER);
    let printed = place.beear(&["init", "--model", "my model", "--out", "it's.toml"]).printed();
    let args = "printf '%s\\n' \"$@\"";
    let line = printed.lines().next().unwrap().replacen("beear", "set --", 1);
    let script = format!("{line}; {args}");
    let words = std::process::Command::new("bash").args(["-c", &script]).output().unwrap().stdout;
    assert_eq!(String::from_utf8(words).unwrap(), "plan\n--model\nmy model\n--recipe\nit's.toml\n");
}
