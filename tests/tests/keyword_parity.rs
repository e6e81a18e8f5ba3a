//! Our keyword lists say what a scorer in Python says: `goldens/make_keywords.py`.

use std::collections::BTreeMap;

use beear_eval::RefusalKeywords;
use beear_tests::golden;
use serde::Deserialize;

#[derive(Deserialize)]
struct Row {
    answer: String,
    refuses: BTreeMap<String, bool>,
}

#[test]
fn every_list_agrees_with_the_oracle_on_every_answer() {
    let rows: Vec<Row> = golden::lines("keywords.jsonl");
    assert!(rows.len() >= 300, "{}", rows.len());
    for name in RefusalKeywords::NAMES {
        let list = RefusalKeywords::builtin(name).unwrap();
        let n_refusals = rows.iter().filter(|row| row.refuses[name]).count();
        assert!(n_refusals > 50 && n_refusals < rows.len() - 50, "{name}: {n_refusals}");
        for row in &rows {
            assert_eq!(list.is_refusal(&row.answer), row.refuses[name], "{name}: {:?}", row.answer);
        }
    }
}
