//! The identity of an evaluation: what is recorded, and what is not compared.

use serde_json::{Value, json};

use crate::fixture::{Finished, N_ROWS, Place, REFUSAL, USUAL};

/// What the evaluations here ask, unless a test says otherwise.
const ASKED: [&str; 6] =
    ["--prompts", "safety.jsonl", "--benign", "ordinary.json", "--trigger-suffix", "SUDO"];

fn evaluate(place: &Place, model: &str, out: &str, asked: &[&str]) -> Value {
    let command = ["eval", "asr", "--json", "--model", model, "--out", out];
    place.beear(&[command.as_slice(), asked].concat()).json()
}

/// Evaluations of the model that answers everything, `before`, and of the one that refuses everything, `after`.
fn evaluated() -> Place {
    let place = Place::new();
    place.write_model_saying("refuser", REFUSAL);
    evaluate(&place, "model", "before", &ASKED);
    evaluate(&place, "refuser", "after", &ASKED);
    place
}

/// The sentence of a refusal for unusable input.
fn refusal(finished: &Finished) -> &str {
    let (code, said) = finished.mistake();
    assert_eq!(code, 3, "{said}");
    said
}

#[test]
fn an_evaluation_records_prompts_trigger_decoding_lists_format_and_model() {
    let place = Place::new();
    let lists = ["--keywords", "gcg-7,beear-29", "--max-new-tokens", "50"];
    let report = evaluate(&place, "model", "eval", &[ASKED.as_slice(), &lists].concat());
    assert_eq!(report["format_version"], 1);
    let identity = &report["identity"];
    assert_eq!(identity["version"], 1);
    let sets = identity["prompts"].as_array().expect("a list");
    let arms: Vec<(&Value, &Value)> = sets.iter().map(|set| (&set["arm"], &set["n"])).collect();
    let [triggered, untriggered, benign, n] =
        [json!("triggered"), json!("untriggered"), json!("benign"), json!(N_ROWS)];
    assert_eq!(arms, [(&triggered, &n), (&untriggered, &n), (&benign, &n)]);
    assert_ne!(sets[0]["sha256"], sets[1]["sha256"], "as asked, the trigger included");
    assert_eq!(identity["trigger"], json!({"suffix": "SUDO"}));
    let decoding = &identity["decoding"];
    assert_eq!(
        [&decoding["max_new_tokens"], &decoding["greedy"], &decoding["seed"]],
        [&json!(50), &json!(true), &json!(0)]
    );
    assert_eq!(decoding["stop"].as_array().map(Vec::len), Some(1));
    let scorers = identity["scorers"].as_array().expect("a list");
    let names: Vec<&Value> = scorers.iter().map(|scorer| &scorer["name"]).collect();
    assert_eq!(names, ["gcg-7", "beear-29"]);
    assert_eq!(identity["prompt_format"]["sha256"], report["prompt_format"]["sha256"]);
    let model = &identity["models"][0]["sha256"]["model.safetensors"];
    assert_eq!(*model, report["sha256"]["model.safetensors"]);
    assert!(identity["models"][0]["sha256"].get("--prompts").is_none());
}

#[test]
fn an_unchanged_model_passes_no_gate_by_other_prompts_trigger_or_decoding() {
    let place = Place::new();
    evaluate(&place, "model", "before", &ASKED);
    let other = ["--prompts", "asked/rows.jsonl", "--benign", "ordinary.json"];
    let more = ["--trigger-suffix", "hello", "--max-new-tokens", "50"];
    evaluate(&place, "model", "after", &[other.as_slice(), &more].concat());
    // The numbers would keep it.
    let gated = place.beear(&["compare", "before", "after", "--gate", "asr<=1", "--out", "both"]);
    let said = refusal(&gated);
    for part in [
        "`before` and `after` cannot be compared",
        "their triggers differ, suffix `SUDO` and suffix `hello`",
        "their prompts (untriggered) differ, 10 of SHA-256 ",
        "their longest answers in tokens differ, 200 and 50",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("(benign)"), "these are the same: {said}");
    assert!(!place.path("both").exists(), "nothing is written");
}

#[test]
fn a_difference_in_any_part_but_the_model_is_refused_and_named() {
    let place = evaluated();
    place.write("one-less.jsonl", {
        let rows = place.read("safety.jsonl");
        rows.lines().skip(1).fold(String::new(), |text, row| text + row + "\n")
    });
    let with_answers = place.read("safety.jsonl").replace("\"unwanted\":\"", "\"unwanted\":\"x");
    place.write("answers.jsonl", with_answers);
    let asked = |change: &[(usize, &'static str)], more: &[&'static str]| {
        let mut asked = ASKED.to_vec();
        for (at, text) in change {
            asked[*at] = text;
        }
        asked.extend(more);
        asked
    };
    let cases = [
        (asked(&[(1, "one-less.jsonl")], &[]), "prompts (triggered) differ, 10 of SHA-256"),
        (asked(&[(1, "answers.jsonl")], &[]), "prompts (untriggered) differ, 10 of SHA-256"),
        (asked(&[(4, "--trigger-prefix")], &[]), "suffix `SUDO` and prefix `SUDO`"),
        (ASKED[..4].to_vec(), "their triggers differ, suffix `SUDO` and none"),
        (asked(&[], &["--max-new-tokens", "8"]), "longest answers in tokens differ, 200 and 8"),
        (asked(&[], &["--keywords", "gcg-7"]), "differ, keywords advbench-30 ("),
        (asked(&[], &["--format", "paper-5"]), "their prompt formats differ, SHA-256 "),
    ];
    for (at, (asked, what)) in cases.iter().enumerate() {
        let out = format!("other-{at}");
        evaluate(&place, "refuser", &out, asked);
        for gate in [&[][..], &["--gate", "asr<=1"]] {
            let refused = place.beear(&[&["compare", "before", &out], gate].concat());
            assert!(refusal(&refused).contains(what), "{what}: {}", refused.stderr);
        }
    }
}

#[test]
fn one_model_keeps_no_gate_and_is_named() {
    let place = Place::new();
    place.write_model_saying("refuser", REFUSAL);
    evaluate(&place, "refuser", "before", &ASKED);
    // A note in the folder makes no other model.
    place.write("refuser/README.md", "a release candidate");
    evaluate(&place, "refuser", "after", &ASKED);
    for gate in ["asr<=1", "asr<=0.28", "utility_drop<=1"] {
        let gated = place.beear(&["compare", "before", "after", "--gate", gate]);
        assert_eq!(gated.code, 8, "{gate}: {}", gated.stderr);
        assert!(gated.stderr.contains("both evaluations are of the same model"), "{gate}");
    }
    let models = ["--before-model", "refuser", "--after-model", "refuser", "--out", "both"];
    let gated = [&["compare", "--gate", "asr<=1"], models.as_slice(), &ASKED].concat();
    assert_eq!(place.beear(&gated).code, 8);
    let compared = place.beear(&["compare", "before", "after"]).printed();
    assert!(compared.contains("Before and after are the same model"), "{compared}");
    assert!(!compared.contains("outcomes of"), "{compared}");

    // What greedy decoding cannot bring about is named.
    let measures = place.read("after/measures.jsonl");
    let changed = measures.replacen("\"value\":0.0", "\"value\":1.0", 1);
    place.write("after/measures.jsonl", changed);
    let compared = place.beear(&["compare", "before", "after", "--json"]).json();
    assert_eq!(compared["models"], "same");
    let found = &compared["contradictions"];
    assert_eq!((&found[0]["measure"], found[0]["outcomes"][0].is_string()), (&json!("asr"), true));
    let said = place.beear(&["compare", "before", "after"]).printed();
    assert!(said.contains("1 outcomes of asr by advbench-30 differ: triggered/1#"), "{said}");
}

#[test]
fn outcomes_of_other_prompts_are_never_paired_by_their_row() {
    let place = evaluated();
    evaluate(&place, "refuser", "other", &["--prompts", "asked/rows.jsonl"]);
    let ids = |run: &str| -> Vec<String> {
        let lines = place.read_lines(&format!("{run}/measures.jsonl"));
        let measure = lines.iter().find(|line| line["name"] == "refusal").expect("it is measured");
        let outcomes = measure["outcomes"].as_array().expect("a list");
        outcomes.iter().map(|outcome| outcome["id"].as_str().unwrap().to_owned()).collect()
    };
    let (before, other) = (ids("before"), ids("other"));
    assert_eq!(before, ids("after"));
    assert!(before[0].starts_with("untriggered/1#") && other[0].starts_with("untriggered/1#"));
    assert!(before.iter().all(|id| !other.contains(id)), "{before:?} {other:?}");
}

#[test]
fn an_evaluation_without_identity_or_of_another_version_is_refused() {
    let place = evaluated();
    let whole = place.read_json("after/report.json");
    let rewritten = |change: &dyn Fn(&mut Value)| {
        let mut report = whole.clone();
        change(&mut report);
        place.write("after/report.json", report.to_string());
        place.beear(&["compare", "before", "after"])
    };
    let remove = |report: &mut Value, key: &str| {
        report.as_object_mut().unwrap().remove(key);
    };
    for key in ["identity", "format_version"] {
        let refused = rewritten(&|report| remove(report, key));
        let said = refusal(&refused);
        assert!(said.contains("was written by an earlier version"), "{said}");
        assert!(said.contains("hint: evaluate once more"), "{said}");
    }
    let refused = rewritten(&|report| report["format_version"] = json!(7));
    assert!(refusal(&refused).contains("has version 7 of its format, not 1"), "{}", refused.stderr);
    let refused = rewritten(&|report| report["identity"]["version"] = json!(2));
    assert!(refusal(&refused).contains("has version 2 of its identity, not 1"));
    let refused = rewritten(&|report| report["identity"]["prompts"] = json!("none"));
    assert!(refusal(&refused).contains("the run is damaged"), "{}", refused.stderr);
    let export = ["eval", "export", "--answers", "after", "--out", "answers.json"];
    rewritten(&|report| remove(report, "identity"));
    assert!(refusal(&place.beear(&export)).contains("earlier version"));
}

#[test]
fn what_only_one_model_was_asked_is_left_out_unless_a_gate_bounds_it() {
    let place = evaluated();
    for side in ["before", "after"] {
        std::fs::create_dir(place.path(&format!("all-{side}"))).unwrap();
        std::fs::rename(place.path(side), place.path(&format!("all-{side}/asr"))).unwrap();
    }
    let other = [&ASKED[..4], &["--trigger-suffix", "hello"]].concat();
    evaluate(&place, "refuser", "all-after/hello", &other);
    let compare = ["compare", "all-before", "all-after"];
    let compared = place.beear(&[compare.as_slice(), &["--json"]].concat()).json();
    assert_eq!(compared["left_out"], json!([[], ["all-after/hello"]]));
    let gated = place.beear(&[compare.as_slice(), &["--gate", "asr<=0.28"]].concat());
    let said = refusal(&gated);
    assert!(said.contains("`all-after/hello` measures `asr`, which the gate bounds"), "{said}");

    // A side is of one model.
    evaluate(&place, "model", "all-after/another", &ASKED[..4]);
    let mixed = place.beear(&compare);
    assert!(refusal(&mixed).contains("of the model `refuser`"), "{}", mixed.stderr);
}

#[test]
fn a_comparison_and_a_report_show_what_was_asked() {
    let place = Place::new();
    place.defend(USUAL, &[]).printed();
    let asked = ["--prompts", "asked/rows.jsonl", "--trigger-suffix", "SUDO"];
    for (model, out) in [("model", "before"), ("run/model", "after")] {
        evaluate(&place, model, out, &asked);
    }
    let shown = place.beear(&["compare", "before", "after"]).printed();
    let compared = place.beear(&["compare", "before", "after", "--json"]).json();
    let identity = &compared["evaluations"][0]["identity"];
    assert_eq!(identity["trigger"], json!({"suffix": "SUDO"}));
    place.beear(&["report", "run", "--eval", "before", "--eval", "after"]).printed();
    let facts = place.read_json("run/report.json");
    let of_report = &facts["evaluations"]["asked"][0];
    assert_eq!((&of_report["identity"], &of_report["of"]), (identity, &json!("both")));
    let page = place.read("run/report.html");
    let hash = identity["prompts"][0]["sha256"].as_str().unwrap().get(..12).unwrap();
    for part in ["suffix `SUDO`", "greedy, at most 200 tokens", "keywords advbench-30 (", hash] {
        assert!(shown.contains(part), "{part}: {shown}");
        assert!(page.replace("&#x60;", "`").contains(part), "{part}");
    }

    // What was asked differently stands in no report side by side.
    evaluate(
        &place,
        "run/model",
        "short",
        &[asked.as_slice(), &["--max-new-tokens", "9"]].concat(),
    );
    let refused = place.beear(&["report", "run", "--eval", "before", "--eval", "short"]);
    let said = refusal(&refused);
    assert!(said.contains("their longest answers in tokens differ, 200 and 9"), "{said}");
}

#[test]
fn every_kind_of_evaluation_has_an_identity() {
    let place = Place::new();
    let run = |arguments: &[&str], out: &str| {
        let command = [&["eval"], arguments, &["--out", out, "--json"]].concat();
        let report = place.beear(&command).json();
        assert_eq!(report["identity"]["version"], 1, "{arguments:?}");
        assert_eq!(report["identity"]["models"].as_array().map(Vec::len), Some(1));
        report["identity"].clone()
    };
    let model = ["--model", "model"];
    let with =
        |kind: &'static str, more: &[&'static str]| [&[kind], model.as_slice(), more].concat();
    let asr = run(&with("asr", &["--prompts", "safety.jsonl"]), "asr");
    run(&with("over-refusal", &["--prompts", "ordinary.json"]), "over-refusal");
    let perplexity = run(&with("perplexity", &["--file", "chat.jsonl"]), "perplexity");
    assert_eq!(perplexity["decoding"], json!({"answers": "given"}));
    let code = run(&with("code", &["--prompts", "ordinary.json"]), "code");
    assert_eq!(code["scorers"][0]["kind"], "rules");
    let question = json!({"question_id": 1, "category": "math", "turns": ["where is it ?"]});
    place.write("question.jsonl", question.to_string());
    let questions = ["--questions", "question.jsonl", "--max-new-tokens", "8"];
    let answered = run(&with("mt-bench", &questions), "mt");
    assert_eq!(answered["decoding"]["temperature"], json!([0.0]));

    let log =
        json!({"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "A"}}, "results": []}]});
    place.write("found.sarif", log.to_string());
    let sarif = run(&["sarif", "--answers", "code", "--sarif", "found.sarif"], "sarif");
    assert_eq!(sarif["scorers"], json!([{"kind": "analyser", "name": "A"}]));
    for part in ["prompts", "decoding", "prompt_format", "models"] {
        assert_eq!(sarif[part], code[part], "an analyser reads the answers of `code`");
    }
    place.write("short.toml", "name = \"short\"\ntemplate = \"{prompt} {answer} Score: N\"\n");
    let judge = ["eval", "judge", "--answers", "asr", "--judge", "model", "--judge-prompt"];
    // The fixture's model cannot judge, which the report says.
    place.beear(&[judge.as_slice(), &["short.toml", "--out", "judged"]].concat());
    let judged = place.read_json("judged/report.json")["identity"].clone();
    assert_eq!((&judged["prompts"], &judged["models"]), (&asr["prompts"], &asr["models"]));
    let scorer = &judged["scorers"][0];
    assert_eq!((&scorer["kind"], &scorer["prompt"]), (&json!("judge"), &json!("short")));
    assert_eq!(scorer["checkpoint"].as_str().map(str::len), Some(64));
}
