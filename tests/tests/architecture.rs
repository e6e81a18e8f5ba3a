//! Who may know whom, as `ARCHITECTURE.md` has it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Each crate with the crates of the workspace it may use, tests aside.
const MAY_USE: [(&str, &[&str]); 9] = [
    ("beear-input", &[]),
    ("beear-statistics", &[]),
    ("beear-core", &["beear-statistics"]),
    ("beear-models", &["beear-core", "beear-input"]),
    ("beear-eval", &["beear-input", "beear-statistics"]),
    ("beear-attacks", &["beear-core", "beear-eval", "beear-models"]),
    ("beear-cli", &["beear-attacks", "beear-core", "beear-eval", "beear-input", "beear-models"]),
    ("beear-tests", &["beear-core", "beear-models"]),
    ("xtask", &[]),
];

/// Source that must never mention some words, and why.
const NEVER_MENTIONS: [(&str, &[&str], &str); 6] = [
    ("beear-core/src", &["std::fs", "std::net", "std::env"], "the method does no IO"),
    ("beear-core/src", &["Instant", "SystemTime"], "the method has no clock"),
    ("beear-core/src", &["println!", "eprintln!", "dbg!"], "observers show, the method does not"),
    ("beear-core/src", &["Trigger"], "the defence never sees a trigger"),
    ("beear-cli/src/defence/anchors.rs", &["Trigger"], "the defence never sees a trigger"),
    ("beear-eval/src", &["burn", "Tensor", "beear_models"], "evaluation knows text only"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in the workspace")
}

/// The crates of the workspace with the names of what they use, tests aside.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let package = |package: &Value| {
        let used = package["dependencies"].as_array().expect("a list").iter();
        let used = used.filter(|d| d["kind"].is_null()).map(|d| text(&d["name"]));
        (text(&package["name"]), used.collect())
    };
    metadata["packages"].as_array().expect("a list").iter().map(package).collect()
}

fn rust_files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = std::fs::read_dir(path).expect("a folder").map(|e| e.expect("an entry").path());
    entries.flat_map(|path| rust_files(&path)).filter(|p| p.extension().is_some()).collect()
}

#[test]
fn every_crate_uses_only_the_crates_it_may() {
    let dependencies = dependencies();
    let known: Vec<&String> = dependencies.keys().collect();
    let mut expected: Vec<&str> = MAY_USE.iter().map(|(name, _)| *name).collect();
    expected.sort_unstable();
    assert_eq!(known, expected, "every crate is in the table");
    for (name, may_use) in MAY_USE {
        let ours = dependencies[name].iter().filter(|used| dependencies.contains_key(*used));
        let ours: Vec<&String> = ours.collect();
        assert_eq!(ours, may_use, "{name}");
    }
    assert!(!dependencies["beear-eval"].contains("burn"), "evaluation knows text only");
}

#[test]
fn no_crate_mentions_what_is_not_its_business() {
    for (place, words, reason) in NEVER_MENTIONS {
        for file in rust_files(&root().join(place)) {
            let text = std::fs::read_to_string(&file).unwrap();
            for word in words {
                assert!(!text.contains(word), "{} mentions `{word}`: {reason}", file.display());
            }
        }
    }
}

#[test]
fn backends_are_chosen_by_the_cli_and_by_tests_alone() {
    for place in ["beear-core/src", "beear-models/src", "beear-attacks/src"] {
        for file in rust_files(&root().join(place)) {
            let text = std::fs::read_to_string(&file).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let is_test = file.ends_with("tests.rs");
            assert!(is_test || !code.contains("burn::backend::"), "{}", file.display());
        }
    }
}

#[test]
fn every_input_file_is_opened_in_one_way() {
    // What the system says of itself and of this process, a folder that is locked, and pages that a test reads.
    let not_inputs = [
        "beear-cli/src/memory/process.rs",
        "beear-cli/src/memory/cgroup.rs",
        "beear-models/src/checkpoint/staged.rs",
        "beear-cli/src/reference/pages.rs",
    ];
    let words = ["fs::read(", "fs::read_to_string(", "File::open(", "fs::copy("];
    for place in ["beear-models/src", "beear-eval/src", "beear-attacks/src", "beear-cli/src"] {
        for file in rust_files(&root().join(place)) {
            let name = file.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
            let is_test = name.split('/').any(|part| part == "tests" || part == "tests.rs");
            if is_test || not_inputs.contains(&name.as_str()) {
                continue;
            }
            let text = std::fs::read_to_string(&file).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            // A file that was just written is opened to be written through to the disk.
            let opens = |line: &&str| {
                words.iter().any(|word| line.contains(word))
                    && !line.contains("sync_all")
                    && !line.contains("TensorFile::open(")
            };
            let found: Vec<&str> = code.lines().filter(opens).collect();
            assert!(found.is_empty(), "{name}: `beear_input` opens inputs: {found:?}");
        }
    }
}
