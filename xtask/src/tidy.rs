//! Rules of `STYLE.md` that a text search can check.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Maximum number of lines in a file before its tests.
const LONGEST_FILE: usize = 400;

/// File names that do not say what a file contains.
const EMPTY_NAMES: [&str; 5] = ["utils.rs", "util.rs", "helpers.rs", "base.rs", "mod.rs"];

/// Returns the text that no source file may contain, with advice. It is put together here so that
/// this file does not contain it.
fn forbidden() -> [(String, &'static str); 4] {
    let text = |parts: [&str; 2]| parts.concat();
    [
        (text(["#[", "ignore"]), "assert what happens and say it is wrong"),
        (text(["todo", "!("]), "finish it or leave it out"),
        (text(["unimplemented", "!("]), "finish it or leave it out"),
        (text([".dims()", "["]), "name axes by destructuring"),
    ]
}

/// Checks every Rust file of the workspace.
///
/// # Errors
///
/// If a rule is broken. The error lists every problem.
pub(crate) fn run() -> Result<()> {
    eprintln!("== tidy");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is in a folder")?;
    let mut files = Vec::new();
    rust_files(root, &mut files)?;
    let mut problems = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(file)?;
        let name = file.strip_prefix(root).unwrap_or(file);
        problems.extend(check(name, &text));
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}

pub(crate) fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            rust_files(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn check(name: &Path, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut problem = |what: &str| problems.push(format!("{}: {what}", name.display()));
    if !text.starts_with("//!") {
        problem("the first line says what the file is for, with `//!`");
    }
    let n_lines = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
    let is_test = name.components().any(|part| part.as_os_str() == "tests");
    if n_lines > LONGEST_FILE && !is_test {
        problem(&format!("{n_lines} lines before the tests, at most {LONGEST_FILE}"));
    }
    if EMPTY_NAMES.iter().any(|empty| name.ends_with(empty)) {
        problem("name the file by the idea it holds");
    }
    for (text_found, advice) in forbidden() {
        if text.contains(&text_found) {
            problem(&format!("`{text_found}`: {advice}"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n_problems(name: &str, text: &str) -> usize {
        check(Path::new(name), text).len()
    }

    #[test]
    fn a_tidy_file_passes_and_each_fault_is_found() {
        assert_eq!(n_problems("a/rope.rs", "//! Rotations.\n"), 0);
        assert_eq!(n_problems("a/utils.rs", "//! Things.\n"), 1);
        assert_eq!(n_problems("a/rope.rs", "fn f() {}\n"), 1);
        let long = format!("//! Long.\n{}", "\n".repeat(LONGEST_FILE));
        assert_eq!(n_problems("a/rope.rs", &long), 1);
        let stub = format!("//! Stub.\nfn f() {{ {}) }}\n", ["todo", "!("].concat());
        assert_eq!(n_problems("a/rope.rs", &stub), 1);
    }
}
