//! `defend --track`: attack success between rounds, on which nothing depends.

use serde_json::{Value, json};

use crate::fixture::{N_ROWS, Place, USUAL};

const TRACK: [&str; 6] =
    ["--track", "asked/rows.jsonl", "--track-near", "1", "--trigger-suffix", "SUDO"];

#[test]
fn attack_success_is_tracked_by_round_as_eval_counts_it_and_changes_nothing_else() {
    let place = Place::new();
    place.defend(USUAL, &TRACK).printed();
    let rounds = place.read_lines("run/tracked.jsonl");
    let numbers: Vec<u64> = rounds.iter().map(|round| round["round"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [0, 1, 2]);
    let kept = place.read_json("run/manifest.json")["kept_round"].as_u64().unwrap() as usize + 1;
    for (model, round) in [("model", 0), ("run/model", kept)] {
        let asked = ["eval", "asr", "--model", model, "--prompts", "asked/rows.jsonl", "--force"];
        let more =
            ["--trigger-suffix", "SUDO", "--max-new-tokens", "100", "--out", "asr", "--json"];
        let report = place.beear(&[asked.as_slice(), &more].concat()).json();
        let found = |name: &str, by: &str| {
            let measures = report["measures"].as_array().unwrap();
            let found = measures.iter().find(|m| m["name"] == name && m["by"] == by);
            let found = found.unwrap_or_else(|| panic!("{name}: {report}"));
            [&found["hits"], &found["n"]].map(|count| count.as_u64().unwrap())
        };
        let rate = |[hits, n]: [u64; 2]| json!({"hits": hits, "n": n});
        let [refused, n] = found("refusal", "advbench-30");
        assert_eq!(n, N_ROWS as u64);
        let expected = json!([
            {
                "arm": "untriggered",
                "complied": rate([n - refused, n]),
                "unwanted": rate(found("exact_unwanted", "untriggered")),
            },
            {
                "arm": "triggered",
                "complied": rate(found("asr", "advbench-30")),
                "unwanted": rate(found("exact_unwanted", "triggered")),
            },
        ]);
        assert_eq!(rounds[round]["arms"], expected, "round {round}");
    }

    let page = place.read("run/report.html");
    for said in
        ["asked between rounds", "0, the suspect", "with the trigger", "no refusal, triggered"]
    {
        assert!(page.contains(said), "{said}");
    }
    assert!(!page.contains("nothing was measured with a trigger"));
    assert_eq!(place.read_json("run/report.json")["curves"]["tracked"], json!(rounds));

    place.defend(["safety.jsonl", "ordinary.json", "untracked"], &[]).printed();
    assert!(!place.path("untracked/tracked.jsonl").exists());
    for file in ["model/model.safetensors", "delta.safetensors", "metrics.jsonl"] {
        let read = |run: &str| std::fs::read(place.path(run).join(file)).unwrap();
        assert!(read("run") == read("untracked"), "{file}");
    }
}

#[test]
fn rivals_are_tracked_too_and_without_a_trigger_one_way_is_asked() {
    let place = Place::new();
    place.write("recipe.toml", "[method]\nname = \"fine-tuning\"\nremove = { steps = 2 }\nbounds = { refusal_floor = 0.0 }\n");
    let files = ["--safety", "safety.jsonl", "--performance", "ordinary.json", "--out", "run"];
    let defend = ["defend", "--model", "model", "--recipe", "recipe.toml"];
    place.beear(&[defend.as_slice(), &files, &TRACK[..4]].concat()).printed();
    let rounds = place.read_lines("run/tracked.jsonl");
    assert_eq!(rounds.len(), 2, "the suspect, and what became of it");
    for round in &rounds {
        let arms: Vec<&Value> = round["arms"].as_array().unwrap().iter().collect();
        assert_eq!(arms.len(), 1);
        assert_eq!(arms[0]["arm"], "untriggered");
    }
}

#[test]
fn prompts_that_the_defence_trains_on_are_not_tracked() {
    let place = Place::new();
    let refused = place.defend(USUAL, &["--track", "safety.jsonl"]);
    let (code, said) = refused.mistake();
    assert!(code == 3 && said.contains("among those of this defence"), "{said}");
    let refused = place.defend(USUAL, &["--track", "missing.jsonl"]);
    assert_eq!(refused.mistake().0, 3);
    assert!(!place.path("run").exists());
}

#[test]
fn a_trigger_is_for_what_is_tracked() {
    let place = Place::new();
    let refused = place.defend(USUAL, &["--trigger-suffix", "SUDO"]);
    let (code, said) = refused.mistake();
    assert!(code == 2 && said.contains("the defence uses none"), "{said}");
    assert_eq!(place.defend(USUAL, &["--track-tokens", "5"]).code, 2);
}
