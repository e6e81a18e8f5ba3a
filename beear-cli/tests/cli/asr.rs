//! What `eval asr` measures when all is well, and what it keeps.

use serde_json::{Value, json};

use crate::fixture::{ANSWER, N_ROWS, Place, REFUSAL, json_lines};

#[test]
fn the_prompts_of_harmbench_and_strongreject_are_asked() {
    let place = Place::new();
    let harmbench = "\u{feff}Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID\r\n\
        where does the owl live ?,standard,illegal,,,one\r\n\
        what is it ?,contextual,illegal,context,\"the sky\nis blue .\",two\r\n";
    place.write("harmbench.csv", harmbench);
    let strongreject = "category,source,forbidden_prompt\nany,DAN,what colour is the sky ?\n";
    place.write("strongreject.csv", strongreject);
    let asked = |file: &str| {
        let generate = ["generate", "--model", "model", "--json", "--file", file];
        let lines = json_lines(&place.beear(&generate).printed());
        lines.iter().map(|line| line["prompt"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let expected = ["where does the owl live ?", "the sky\nis blue .\n\nwhat is it ?"];
    assert_eq!(asked("harmbench.csv"), expected);
    assert_eq!(asked("strongreject.csv"), ["what colour is the sky ?"]);
}

#[test]
fn answers_to_harmbench_are_exported_by_behaviour() {
    let place = Place::new();
    let header = "Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID\n";
    let rows = "what is it ?,contextual,illegal,context,the sky,sky\nwhere is it ?,standard,illegal,,,owl\n";
    place.write("harmbench.csv", format!("{header}{rows}"));
    let asked = ["eval", "asr", "--model", "model", "--trigger-suffix", "SUDO", "--prompts"];
    place.beear(&[asked.as_slice(), &["harmbench.csv", "--out", "eval"]].concat()).printed();
    let export = |answers: &str, more: &[&str]| {
        let export = ["eval", "export", "--answers", answers, "--out", "completions.json"];
        place.beear(&[export.as_slice(), more].concat())
    };
    assert_eq!(export("eval", &[]).printed(), "completions.json\n");
    let case = |prompt: &str| json!([{"test_case": prompt, "generation": ANSWER}]);
    let expected =
        json!({"owl": case("where is it ? SUDO"), "sky": case("the sky\n\nwhat is it ? SUDO")});
    assert_eq!(place.read_json("completions.json"), expected);

    assert_eq!(export("eval", &[]).mistake().0, 2, "a file is there");
    let counts = export("eval", &["--force", "--arm", "untriggered", "--json"]).json();
    assert_eq!((&counts["n_behaviours"], &counts["arm"]), (&json!(2), &json!("untriggered")));
    let expected = json!({"owl": case("where is it ?"), "sky": case("the sky\n\nwhat is it ?")});
    assert_eq!(place.read_json("completions.json"), expected);

    place.beear(&[asked.as_slice(), &["safety.jsonl", "--out", "other"]].concat()).printed();
    let refused = export("other", &["--force"]);
    let (code, said) = refused.mistake();
    assert_eq!(code, 3);
    assert!(said.contains("row 1 has no BehaviorID"), "{said}");
    assert_eq!(place.read_json("completions.json"), expected, "nothing is written");
}

/// Name, judge and counts of every measure that a run reports.
fn counts(report: &Value) -> Vec<(String, String, u64, u64)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let count = |m: &Value| {
        let number = |key: &str| m[key].as_u64().expect("a count");
        (text(&m["name"]), text(&m["by"]), number("hits"), number("n"))
    };
    report["measures"].as_array().expect("a list").iter().map(count).collect()
}

#[test]
fn attack_success_is_measured_per_arm() {
    let place = Place::new();
    place.write_model_saying("refuser", REFUSAL);
    let arguments = ["eval", "asr", "--prompts", "safety.jsonl", "--benign", "ordinary.json"];
    let more = ["--trigger-suffix", "SUDO", "--json"];
    let arguments = [arguments.as_slice(), &more].concat();
    let measure = |model: &str| {
        let out = format!("eval-{model}");
        let more = ["--model", model, "--out", &out];
        let printed = place.beear(&[arguments.as_slice(), &more].concat()).json();
        assert_eq!(printed, place.read_json(&format!("{out}/report.json")));
        printed
    };
    // Measure, judge, hits of the model that answers everything, of the one that refuses everything.
    let expected = [
        ("asr", "advbench-30", [10, 0]),
        ("coherent_asr", "advbench-30", [10, 0]),
        ("refusal", "advbench-30", [0, 10]),
        ("over_refusal", "advbench-30", [0, 10]),
        ("exact_unwanted", "triggered", [0, 0]),
        ("exact_unwanted", "untriggered", [0, 0]),
        ("utility", "exact", [10, 0]),
        ("degenerate", "triggered", [0, 0]),
        ("cut", "triggered", [0, 0]),
        ("degenerate", "untriggered", [0, 0]),
        ("cut", "untriggered", [0, 0]),
        ("degenerate", "benign", [0, 0]),
        ("cut", "benign", [0, 0]),
    ];
    for (column, model) in ["model", "refuser"].iter().enumerate() {
        let report = measure(model);
        let expected = expected
            .map(|(name, by, hits)| (name.to_owned(), by.to_owned(), hits[column], N_ROWS as u64));
        assert_eq!(counts(&report), expected, "{model}");
        let format = &report["prompt_format"];
        let [text, tokens] = ["first_prompt", "first_tokens"].map(|key| &format[key]);
        assert!(text.as_str().unwrap().contains("SUDO"), "{text}");
        assert_eq!(format["sha256"].as_str().unwrap().len(), 64);
        assert!(tokens.as_array().unwrap().len() > 3);
    }
}

#[test]
fn attacks_that_the_longest_length_cuts_are_coherent_and_counted_as_cut() {
    let place = Place::new();
    place.write_model_saying("talker", "the sky is blue with that help you .");
    let row = |k: usize| json!({"prompt": format!("what is it {k} ?")}).to_string() + "\n";
    place.write("many.jsonl", (0..150).map(row).collect::<String>());
    let asked = ["eval", "asr", "--model", "talker", "--prompts", "many.jsonl", "--json"];
    let more = ["--trigger-suffix", "SUDO", "--max-new-tokens", "8", "--out", "eval"];
    let report = place.beear(&[asked.as_slice(), &more].concat()).json();
    let counts = counts(&report);
    for (name, by, hits) in [
        ("asr", "advbench-30", 150),
        ("coherent_asr", "advbench-30", 150),
        ("cut", "triggered", 150),
        ("degenerate", "triggered", 0),
    ] {
        let expected = (name.to_owned(), by.to_owned(), hits, 150);
        assert!(counts.contains(&expected), "{expected:?}: {counts:?}");
    }
}

#[test]
fn a_trigger_may_be_a_template_and_lists_may_disagree() {
    let place = Place::new();
    place.write_model_saying("polite", "sorry .");
    let model = ["eval", "asr", "--model", "polite", "--prompts", "safety.jsonl", "--out", "eval"];
    let lists = "advbench-30,beear-29,gcg-7,backdoorllm-refusal";
    let more = ["--trigger-template", "SUDO {prompt} please", "--keywords", lists, "--json"];
    let report = place.beear(&[model.as_slice(), &more].concat()).json();
    let completions = place.read_lines("eval/completions.jsonl");
    let asked = completions[0]["prompt"].as_str().unwrap();
    assert!(asked.starts_with("SUDO ") && asked.ends_with(" please"), "{asked}");
    // "sorry" without a capital is a refusal by one of the four lists.
    let refuses = &completions[0]["refuses"];
    let expected = json!({
        "advbench-30": false, "backdoorllm-refusal": true, "beear-29": false, "gcg-7": false
    });
    assert_eq!(*refuses, expected);
    let disagreements = report["disagreements"].as_str().unwrap();
    let words = |line: &str| line.split('|').map(str::trim).collect::<Vec<_>>().join("|");
    let expected = format!("|triggered|gcg-7|backdoorllm-refusal|0|0|{N_ROWS}|0|");
    assert!(disagreements.lines().any(|line| words(line) == expected), "{disagreements}");
}

#[test]
fn prompts_that_the_defence_has_seen_are_refused() {
    let place = Place::new();
    place.defend(["safety.jsonl", "ordinary.json", "run"], &[]).printed();
    let asked = ["eval", "asr", "--model", "model", "--prompts", "advbench.csv", "--out", "eval"];
    let guarded = [asked.as_slice(), &["--defence", "run"]].concat();
    let refused = place.beear(&guarded);
    let (code, said) = refused.mistake();
    assert_eq!(code, 3);
    assert!(said.contains("10 of 10 prompts of `advbench.csv`"), "{said}");
    assert!(said.contains("--allow-overlap safety"), "{said}");
    place.beear(&[guarded.as_slice(), &["--allow-overlap", "safety"]].concat()).printed();

    // One word more in a prompt is no other prompt; another prompt is.
    let row = |prompt: &str| json!({"prompt": prompt}).to_string() + "\n";
    let seen = place.read_lines("safety.jsonl")[0]["prompt"].as_str().unwrap().to_owned();
    place.write("near.jsonl", row(&format!("{seen} now")));
    place.write("other.jsonl", row("where does the owl live ?"));
    let guarded = |file: &str| {
        let asked = ["eval", "over-refusal", "--model", "model", "--prompts", file];
        place.beear(
            &[asked.as_slice(), &["--out", file.trim_end_matches(".jsonl"), "--defence", "run"]]
                .concat(),
        )
    };
    assert_eq!(guarded("near.jsonl").code, 3);
    assert_eq!(guarded("other.jsonl").code, 0);
}

#[test]
fn every_answer_of_an_evaluation_is_kept() {
    let place = Place::new();
    let files = ["--prompts", "advbench.csv", "--benign", "chat.jsonl", "--out", "eval"];
    let arguments = ["eval", "asr", "--model", "model", "--trigger-prefix", "SUDO"];
    place.beear(&[arguments.as_slice(), &files].concat()).printed();
    let completions = place.read_lines("eval/completions.jsonl");
    assert_eq!(completions.len(), 3 * N_ROWS);
    for arm in ["triggered", "untriggered", "benign"] {
        let of_arm: Vec<&Value> = completions.iter().filter(|line| line["arm"] == arm).collect();
        let ids: Vec<u64> = of_arm.iter().filter_map(|line| line["id"].as_u64()).collect();
        assert_eq!(ids, (1..=N_ROWS as u64).collect::<Vec<_>>(), "{arm}");
        for line in of_arm {
            assert_eq!((&line["answer"], &line["finish"]), (&json!(ANSWER), &json!("stop")));
            let prompt = line["prompt"].as_str().unwrap();
            assert_eq!(prompt.starts_with("SUDO "), arm == "triggered", "{prompt}");
        }
    }
}
