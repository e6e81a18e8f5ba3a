//! What runs and adapters keep of a hub: the commit they had, and never the token.

use std::fs;

use serde_json::{Value, json};

use crate::fixture::{Finished, Place, USUAL};
use crate::hub::{ASK, cached, files_of, place_and_hub};
use crate::hub_server::{Seen, TOKEN, Twist, commit};

#[test]
fn a_defence_says_which_commit_it_had_and_goes_on_with_that_one() {
    let (place, hub, files) = place_and_hub();
    let run = |arguments: &[&str]| hub.beear(&place, Some(TOKEN), arguments);
    let defend = [
        "defend",
        "--model",
        "org/suspect",
        "--recipe",
        "quick.toml",
        "--set",
        "train.weights=lora",
        "--safety",
        USUAL[0],
        "--performance",
        USUAL[1],
        "--out",
        USUAL[2],
    ];
    let mut printed = Vec::new();
    printed.push(run(&[&defend, ["--max-time", "0s"].as_slice()].concat()));
    assert_eq!(printed[0].code, 9, "{}", printed[0].stderr);
    let origin = json!({"repository": "org/suspect", "revision": "main", "commit": commit(&files)});
    let manifest = place.read_json("run/manifest.json");
    assert_eq!((&manifest["hub"]["model"], &manifest["job"]["model"]), (&origin, &origin));

    // The branch moves on, and the cache is lost.
    let mut later = files.clone();
    later.insert("special_tokens_map.json".to_owned(), b"{\"later\": 1}".to_vec());
    hub.push("org/later", later);
    hub.twist(
        |seen| if seen.path.ends_with("/main") { Twist::Moved("org/later") } else { Twist::None },
    );
    fs::remove_dir_all(place.path("hf")).unwrap();
    // Another tool has brought another file of that commit.
    let snapshot = format!("hf/hub/models--org--suspect/snapshots/{}", commit(&files));
    fs::create_dir_all(place.path(&snapshot)).unwrap();
    place.write(&format!("{snapshot}/README.md"), "a model");
    printed.push(run(&["resume", "run"]));
    let manifest = place.read_json("run/manifest.json");
    assert_eq!((&manifest["status"], &manifest["hub"]["model"]), (&json!("done"), &origin));
    let page = place.read("run/report.html");
    assert!(page.contains(&format!("suspect@{}", commit(&files))), "the page names it");
    assert!(
        place.read_json("run/report.json")["weights"].is_object(),
        "it is compared with what was given"
    );

    // Its adapters belong to that commit too.
    let adapter = place.read_json("run/adapter/adapter_config.json");
    let base = (&adapter["base_model_name_or_path"], &adapter["revision"]);
    assert_eq!(base, (&json!("org/suspect"), &origin["commit"]));
    hub.take_seen();
    printed.push(run(&[["generate", "--model", "run/adapter"].as_slice(), &ASK].concat()));
    assert!(hub.take_seen().is_empty(), "all is in the cache");
    printed.push(run(&["report", "run"]));

    let ours: Vec<&Finished> = printed.iter().collect();
    for Finished { stdout, stderr, .. } in ours {
        assert!(!stdout.contains(TOKEN) && !stderr.contains(TOKEN), "{stdout}{stderr}");
    }
    for (path, content) in place.files("") {
        assert!(!String::from_utf8_lossy(&content).contains(TOKEN), "{}", path.display());
    }
}

#[test]
fn the_token_goes_to_the_hub_and_to_nobody_else() {
    let (place, hub, _) = place_and_hub();
    let arguments = [["generate", "--model", "org/suspect"].as_slice(), &ASK].concat();
    hub.beear(&place, Some(TOKEN), &arguments).printed();
    let seen = hub.take_seen();
    let bearer = format!("Bearer {TOKEN}");
    for Seen { is_elsewhere, path, authorization, .. } in &seen {
        let expected = (!is_elsewhere).then_some(&bearer);
        assert_eq!(authorization.as_ref(), expected, "{path}");
    }
    assert_eq!(seen.iter().filter(|seen| seen.is_elsewhere).count(), 1);
    // That of a file is as good.
    fs::remove_dir_all(place.path("hf")).unwrap();
    fs::create_dir(place.path("hf")).unwrap();
    place.write("hf/token", format!("{TOKEN}\n"));
    hub.beear(&place, None, &arguments).printed();
    assert_eq!(hub.take_seen()[0].authorization, Some(bearer));
}

#[test]
fn adapters_are_merged_into_a_base_of_the_hub() {
    let (place, hub, files) = place_and_hub();
    place.defend(USUAL, &["--set", "train.weights=lora", "--set", "train.lora.rank=2"]).printed();
    let name = |place: &Place, base: &str| {
        let mut config = place.read_json("run/adapter/adapter_config.json");
        config["base_model_name_or_path"] = json!(base);
        place.write("run/adapter/adapter_config.json", config.to_string());
    };
    name(&place, "org/suspect");
    let mut adapter = files_of(&place, "run/adapter");
    adapter.insert("README.md".to_owned(), b"adapters".to_vec());
    hub.push("org/adapter", adapter.clone());
    let commits = [commit(&adapter), commit(&files)];
    let local = hub.beear(&place, None, &["inspect", "--model", "run/adapter", "--json"]).json();
    assert_eq!(
        (&local["hub"]["model"], &local["hub"]["base"]["commit"]),
        (&Value::Null, &json!(commits[1]))
    );
    let far = hub.beear(&place, None, &["inspect", "--model", "org/adapter", "--json"]).json();
    assert_eq!(
        [&far["hub"]["model"]["commit"], &far["hub"]["base"]["commit"]],
        [&commits[0], &commits[1]]
    );
    let names: Vec<String> = cached(&place, "adapter").into_keys().collect();
    assert!(!names.iter().any(|name| name.contains("README")), "{names:?}");

    let asr = [
        "eval",
        "asr",
        "--prompts",
        "safety.jsonl",
        "--trigger-suffix",
        "now",
        "--max-new-tokens",
        "4",
        "--model",
        "org/adapter",
        "--out",
        "asr",
    ];
    hub.beear(&place, None, &asr).printed();
    let report = place.read_json("asr/report.json");
    assert_eq!(report["model"], format!("org/adapter@{}", commits[0]));
    assert_eq!(report["hub"]["base"]["repository"], "org/suspect");
    for file in ["adapter_model.safetensors", "base/model.safetensors"] {
        assert!(report["sha256"][file].is_string(), "{file}");
    }
    // A base that has adapters itself, and one that is nowhere.
    name(&place, "org/adapter");
    let said = hub.beear(&place, None, &["inspect", "--model", "run/adapter"]);
    assert!(said.mistake().1.contains("which holds adapters itself"), "{}", said.stderr);
    name(&place, "no/such");
    let said = hub.beear(&place, None, &["inspect", "--model", "run/adapter"]);
    assert!(said.mistake().1.contains("no folder `no/such` is here"), "{}", said.stderr);
}
