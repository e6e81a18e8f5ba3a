//! Evaluated prompts that a defence was trained on, behind other punctuation and form.

use serde_json::json;

use crate::fixture::{N_ROWS, Place, USUAL, alone};

/// What `eval over-refusal` says to prompts of its own with the guard on.
fn asked(place: &Place, prompts: impl IntoIterator<Item = String>) -> (i32, String) {
    let rows = prompts.into_iter().map(|prompt| json!({ "prompt": prompt }).to_string());
    place.write("asked.jsonl", rows.collect::<Vec<_>>().join("\n"));
    let ask = ["eval", "over-refusal", "--model", "model", "--prompts", "asked.jsonl", "--quiet"];
    let finished =
        place.beear(&[&ask[..], &["--defence", "run", "--out", "out", "--force"]].concat());
    (finished.code, finished.stderr)
}

#[test]
fn trained_prompts_in_another_form_are_refused() {
    let _alone = alone();
    let place = Place::new();
    place.defend(USUAL, &[]).printed();
    let rows = place.read_lines("safety.jsonl");
    let trained = || rows.iter().map(|row| row["prompt"].as_str().expect("a prompt"));
    let forms: [fn(&str) -> String; 5] = [
        |prompt| prompt.replace(" ?", "?").replace(" .", "."),
        |prompt| format!("“{prompt}”"),
        |prompt| prompt.replace('e', "e\u{200b}"),
        |prompt| prompt.replace(' ', "\u{a0} "),
        |prompt| format!("{}!!", prompt.to_uppercase()),
    ];
    for form in forms {
        let (code, said) = asked(&place, trained().map(form));
        assert_eq!(code, 3, "{said}");
        assert!(said.contains(&format!("{N_ROWS} of {N_ROWS} prompts")), "{said}");
    }
    let (code, said) = asked(&place, ["where does the owl live ?".to_owned()]);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn prompts_without_a_letter_are_compared_and_asked() {
    let _alone = alone();
    let place = Place::new();
    place.defend(USUAL, &[]).printed();
    let (code, said) = asked(&place, ["?", ".", ","].map(str::to_owned));
    assert_eq!(code, 0, "{said}");
}
