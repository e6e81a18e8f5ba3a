//! What the pages say of the sources is true: names and files are there, code is that of an example that runs, links
//! lead somewhere.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in the workspace")
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The pages for people, those of the root and of `docs`.
fn pages() -> Vec<PathBuf> {
    let files = |folder: PathBuf| {
        let entries = fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path());
        entries.filter(|path| path.extension().is_some_and(|e| e == "md")).collect::<Vec<_>>()
    };
    let folders = ["", "docs", "docs/decisions"].map(|folder| root().join(folder));
    folders.into_iter().flat_map(files).collect()
}

/// The texts in back-ticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn is_in_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `name` stands in `text` as a word.
fn has_word(text: &str, name: &str) -> bool {
    text.split(|c| !is_in_name(c)).any(|word| word == name)
}

#[test]
fn every_name_of_the_table_of_symbols_is_in_its_file() {
    let page = read("docs/algorithm.md");
    let (_, section) = page.split_once("## Symbols, names and files").expect("there is a table");
    let section = section.split("\n## ").next().expect("it ends");
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| ")).skip(2).collect();
    assert!(rows.len() > 15, "the table is read: {}", rows.len());
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        let [_, names, file] = cells.try_into().unwrap_or_else(|_| panic!("three cells: {row}"));
        let file = quoted(file).next().unwrap_or_else(|| panic!("a file: {row}"));
        let source = read(file);
        let code = source.split("#[cfg(test)]").next().unwrap_or_default();
        // `0..layer` holds a name, `|x|` would hold none.
        let names = quoted(names).flat_map(|text| text.split(|c| !is_in_name(c)));
        for name in names.filter(|name| name.starts_with(char::is_alphabetic)) {
            assert!(has_word(code, name), "{file} has no `{name}`: {row}");
        }
    }
}

#[test]
fn the_code_of_the_page_on_decoders_is_that_of_the_example_that_runs() {
    let page = read("docs/how-to-own-decoder.md");
    let example = read("beear-core/examples/toy_bilevel.rs");
    let blocks: Vec<&str> = page.split("```rust\n").skip(1).collect();
    assert_eq!(blocks.len(), 4);
    for block in blocks {
        let code = block.split("```").next().expect("it ends");
        assert!(example.contains(code), "the example has not:\n{code}");
    }
}

#[test]
fn links_between_pages_lead_to_files_that_are_there() {
    let mut n_links = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).expect("a page");
        for link in text.split("](").skip(1) {
            let target = link.split([')', '#', ' ']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            n_links += 1;
            let folder = page.parent().expect("it is in a folder");
            assert!(folder.join(target).exists(), "{}: {target}", page.display());
        }
    }
    assert!(n_links > 50, "links are found: {n_links}");
}

#[test]
fn the_index_names_every_page() {
    let index = read("docs/README.md");
    for entry in fs::read_dir(root().join("docs")).expect("there are pages") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("it has one").to_string_lossy().into_owned();
        if path.extension().is_some_and(|extension| extension == "md") && name != "README.md" {
            assert!(index.contains(&format!("]({name})")), "docs/README.md does not name {name}");
        }
    }
}

#[test]
fn every_decision_has_a_date_and_a_status() {
    let folder = root().join("docs/decisions");
    for entry in fs::read_dir(folder).expect("there are decisions") {
        let path = entry.expect("an entry").path();
        let text = fs::read_to_string(&path).expect("a page");
        let line = text.lines().nth(2).unwrap_or_default();
        let dated = line.strip_prefix("Date: 20").and_then(|rest| rest.split_once(". Status: "));
        let (_, status) = dated.unwrap_or_else(|| panic!("{}: {line}", path.display()));
        let known = ["accepted", "superseded by", "rejected"];
        assert!(known.iter().any(|word| status.starts_with(word)), "{}: {status}", path.display());
    }
}
