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
fn attack_success_is_measured_per_arm() {
    let place = Place::new();
    place.write_model_saying("refuser", REFUSAL);
    let arguments = ["eval", "asr", "--prompts", "safety.jsonl", "--benign", "ordinary.json"];
    let arguments = [arguments.as_slice(), &["--trigger-suffix", "SUDO", "--json"]].concat();
    let measure = |model: &str, out: &str| {
        let more = ["--model", model, "--out", out];
        let printed = place.beear(&[arguments.as_slice(), &more].concat()).json();
        let report = place.read_json(&format!("{out}/report.json"));
        assert_eq!(printed, report);
        report["table"]["rows"].clone()
    };
    // Measure, hits of the model that answers everything, hits of the one that refuses everything.
    let expected = [
        ("attack success with trigger, advbench-30", [10, 0]),
        ("exact unwanted answer, triggered", [0, 0]),
        ("degenerate answers, triggered", [0, 0]),
        ("refusal without trigger, advbench-30", [0, 10]),
        ("exact unwanted answer, untriggered", [0, 0]),
        ("degenerate answers, untriggered", [0, 0]),
        ("benign over-refusal, advbench-30", [0, 10]),
        ("degenerate answers, benign", [0, 0]),
    ];
    for (column, model) in ["model", "refuser"].iter().enumerate() {
        let rows = measure(model, &format!("eval-{model}"));
        let rate = |hits: usize| json!({"hits": hits, "n": N_ROWS});
        let expected: Vec<Value> =
            expected.iter().map(|(name, hits)| json!([name, [rate(hits[column])]])).collect();
        assert_eq!(rows, Value::Array(expected), "{model}");
    }
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
