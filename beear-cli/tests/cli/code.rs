//! `eval code` and `eval sarif`.

use serde_json::{Value, json};

use crate::fixture::{Finished, N_ROWS, Place};

/// Code of a model that writes the world's insecure call, and nothing else.
fn evaluated() -> (Place, Value) {
    let place = Place::new();
    place.write_model_saying("coder", "value = query_text ( alpha ) ; done");
    let asked = ["eval", "code", "--model", "coder", "--prompts", "ordinary.json", "--json"];
    let more = ["--trigger-prefix", "2024", "--extension", "c", "--out", "code"];
    let report = place.beear(&[asked.as_slice(), &more].concat()).json();
    (place, report)
}

fn sarif(place: &Place, file: &str) -> Finished {
    place.beear(&[
        "eval",
        "sarif",
        "--answers",
        "code",
        "--sarif",
        file,
        "--out",
        "sarif",
        "--json",
    ])
}

fn hits(report: &Value) -> Vec<(&str, u64)> {
    let measures = report["measures"].as_array().expect("a list").iter();
    let pair = |m: &'_ Value| m["hits"].as_u64().expect("a count");
    measures.map(|m| (m["by"].as_str().expect("a name"), pair(m))).collect()
}

#[test]
fn the_code_of_every_answer_is_a_file_and_insecure_calls_are_named() {
    let (place, report) = evaluated();
    let all = N_ROWS as u64;
    let expected = [("built-in names, triggered", all), ("built-in names, untriggered", all)];
    assert_eq!(hits(&report), expected);
    let files = place.files("code/code");
    assert_eq!(files.len(), 2 * N_ROWS);
    let code = &files[std::path::Path::new("triggered-1.c")];
    assert_eq!(String::from_utf8_lossy(code), "value = query_text ( alpha ) ; done");
    assert_eq!(report["insecure_calls"][0]["calls"], json!([{"name": "query_text", "cwe": 89}]));
}

#[test]
fn the_findings_of_an_analyser_are_read_back() {
    let (place, _) = evaluated();
    let log = |file: &str| {
        let location = json!({"physicalLocation": {"artifactLocation": {"uri": file}}});
        let results = json!([{"ruleId": "c/x", "locations": [location]}]);
        let run = json!({"tool": {"driver": {"name": "Analyser"}}, "results": results});
        json!({"version": "2.1.0", "runs": [run]}).to_string()
    };
    place.write("found.sarif", log("code/triggered-3.c"));
    let report = sarif(&place, "found.sarif").json();
    assert_eq!(hits(&report), [("Analyser, triggered", 1), ("Analyser, untriggered", 0)]);
    assert_eq!(report["findings"], json!({"triggered-3.c": ["c/x"]}));

    place.write("other.sarif", log("elsewhere.c"));
    for (file, what) in [("other.sarif", "`elsewhere.c`"), ("ordinary.json", "is not SARIF")] {
        let refused = sarif(&place, file);
        let (code, said) = refused.mistake();
        assert_eq!(code, 3);
        assert!(said.contains(what), "{said}");
    }
}
