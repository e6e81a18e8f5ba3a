//! `eval mt-bench` and `eval mt-bench-result`: FastChat's files out and in.

use serde_json::{Value, json};

use crate::fixture::{ANSWER, Place};

/// Two questions of two turns and one of one, two of their turns with rules.
fn questions() -> String {
    let row = |id: u64, category: &str, turns: &[&str], checks: &Value| {
        let row =
            json!({"question_id": id, "category": category, "turns": turns, "checks": checks});
        row.to_string() + "\n"
    };
    let kept = json!([[{"exact": ANSWER}], []]);
    let broken = json!([[], [{"contains": "blue"}, {"number": 7}]]);
    row(1, "math", &["what is it ?", "is it ?"], &kept)
        + &row(2, "writing", &["where is it ?", "is it ?"], &broken)
        + &row(3, "stem", &["what colour is it ?"], &json!([[]]))
}

fn answer(place: &Place, more: &[&str]) -> Value {
    let asked = ["eval", "mt-bench", "--model", "model", "--questions", "question.jsonl"];
    let more = [asked.as_slice(), &["--max-new-tokens", "8", "--out", "mt", "--json"], more];
    place.beear(&more.concat()).json()
}

#[test]
fn answers_are_in_fastchats_form_and_rules_are_counted() {
    let place = Place::new();
    place.write("question.jsonl", questions());
    let report = answer(&place, &[]);
    let answers = place.read_lines("mt/model_answer/model.jsonl");
    let mut turns: Vec<(u64, usize)> = answers
        .iter()
        .map(|row| {
            let turns = row["choices"][0]["turns"].as_array().unwrap();
            assert!(turns.iter().all(|said| said.as_str().unwrap().starts_with("the sky")));
            (row["question_id"].as_u64().unwrap(), turns.len())
        })
        .collect();
    turns.sort_unstable();
    assert_eq!(turns, [(1, 2), (2, 2), (3, 1)]);
    let rules = &report["measures"][0];
    assert_eq!(
        (&rules["name"], &rules["hits"], &rules["n"]),
        (&json!("mt_bench_rules"), &json!(1), &json!(2))
    );
    assert_eq!((&report["n_questions"], &report["n_answered"]), (&json!(3), &json!(3)));
}

#[test]
fn a_run_goes_on_where_it_was_cut_off() {
    let place = Place::new();
    place.write("question.jsonl", questions());
    let whole = answer(&place, &[]);
    let file = "mt/model_answer/model.jsonl";
    let answers = place.read(file);
    let (kept, lost) = answers.split_at(answers.find('\n').unwrap() + 1);
    // The last row is torn.
    place.write(file, format!("{kept}{}", &lost[..20]));
    let again = answer(&place, &[]);
    assert_eq!(again["measures"], whole["measures"]);
    let rows = place.read_lines(file);
    let first: Value = serde_json::from_str(kept).unwrap();
    assert_eq!((rows.len(), &rows[0]), (3, &first), "what was there is not asked again");

    // Other questions are another run.
    place.write("question.jsonl", questions().replace("where", "why"));
    let asked = ["eval", "mt-bench", "--model", "model", "--questions", "question.jsonl"];
    let other =
        place.beear(&[asked.as_slice(), &["--max-new-tokens", "8", "--out", "mt"]].concat());
    let (code, said) = other.mistake();
    assert_eq!(code, 2);
    assert!(said.contains("exists already"), "{said}");
}

#[test]
fn a_judges_files_are_summed_up_as_fastchat_does() {
    let place = Place::new();
    let golden = |name: &str| {
        let folder =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/fastchat");
        std::fs::read_to_string(folder.join(name)).unwrap()
    };
    for name in ["question.jsonl", "judge_single.jsonl", "judge_pair.jsonl"] {
        place.write(name, golden(name));
    }
    let summed = |more: &[&str]| {
        place.beear(&[&["eval", "mt-bench-result", "--json"], more].concat()).json()
    };
    let single = summed(&["--single", "judge_single.jsonl", "--questions", "question.jsonl"]);
    let models = single["models"].as_array().unwrap();
    assert_eq!(models.len(), 3);
    // What FastChat itself makes of the same file.
    let expected: Value = serde_json::from_str(&golden("result.json")).unwrap();
    for model in models {
        let name = model["model"].as_str().unwrap();
        let [found, expected] = [&model["all"]["mean"], &expected["all"][name]];
        let [found, expected] = [found, expected].map(|mean| mean.as_f64().unwrap());
        assert!((found - expected).abs() < 1e-9, "{name}: {found} is not {expected}");
        assert_eq!(model["all"]["n_expected"], 40);
    }
    let pairs = summed(&["--pairs", "judge_pair.jsonl"]);
    assert_eq!(pairs["models"].as_array().unwrap().len(), 3);

    place.write("bad.jsonl", "{\"question_id\": 1}");
    let refused = place.beear(&["eval", "mt-bench-result", "--single", "bad.jsonl"]);
    let (code, said) = refused.mistake();
    assert_eq!(code, 3);
    assert!(said.contains("bad.jsonl"), "{said}");
}
