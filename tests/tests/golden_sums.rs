//! The golden files are those that were committed: no test may rewrite what it is judged by.

use std::collections::BTreeMap;
use std::path::Path;

use beear_tests::golden;
use sha2::{Digest, Sha256};

/// What Python writes for the tests, and nothing else here has.
const EXTENSIONS: [&str; 4] = ["json", "jsonl", "jinja", "safetensors"];

/// Hashes of the golden files below `folder`, by their paths below `root`.
fn hash(root: &Path, folder: &Path, sums: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the entry can be read").path();
        if path.is_dir() {
            hash(root, &path, sums);
        } else if path.extension().is_some_and(|e| EXTENSIONS.iter().any(|known| e == *known)) {
            let bytes = std::fs::read(&path).expect("the file can be read");
            let hex = format!("{:x}", Sha256::digest(bytes));
            let parts = path.strip_prefix(root).expect("it is below").iter();
            let name: Vec<_> = parts.map(|part| part.to_string_lossy()).collect();
            sums.insert(name.join("/"), hex);
        }
    }
}

#[test]
fn every_golden_file_has_its_committed_hash() {
    let root = golden::path("");
    let mut found = BTreeMap::new();
    hash(&root, &root, &mut found);

    let listed = std::fs::read_to_string(golden::path("SHA256SUMS")).unwrap();
    let pair =
        |line: &str| line.split_once("  ").map(|(sum, name)| (name.to_owned(), sum.to_owned()));
    let listed: BTreeMap<String, String> = listed.lines().filter_map(pair).collect();
    assert_eq!(found, listed);
}
