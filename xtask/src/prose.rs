//! Count of doc comments that open like a relative clause, as a hint and not as a rule.

use std::path::Path;

use anyhow::{Context, Result};

use crate::tidy::rust_files;

/// Openings that should be a noun or a verb instead.
const OPENINGS: [&str; 6] = ["What", "Those", "Whether", "The same", "Its", "As"];

/// Prints the share of such comments in each crate, and lists them.
///
/// # Errors
///
/// If a source file cannot be read.
pub(crate) fn run() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is in a folder")?;
    let mut folders: Vec<_> = std::fs::read_dir(root)?.filter_map(Result::ok).collect();
    folders.sort_by_key(std::fs::DirEntry::file_name);
    for folder in folders {
        let source = folder.path().join("src");
        if !source.exists() {
            continue;
        }
        let mut files = Vec::new();
        rust_files(&source, &mut files)?;
        let (mut n_comments, mut found) = (0_u32, Vec::new());
        for file in &files {
            let text = std::fs::read_to_string(file)?;
            for (line, opening) in doc_comments(&text) {
                n_comments += 1;
                if OPENINGS.iter().any(|word| opens_with(opening, word)) {
                    let name = file.strip_prefix(root).unwrap_or(file);
                    found.push(format!("  {}:{line}: {opening}", name.display()));
                }
            }
        }
        let share = 100.0 * found.len() as f64 / f64::from(n_comments.max(1));
        let name = folder.file_name();
        println!("{}: {} of {n_comments}, {share:.1} %", name.display(), found.len());
        for line in found {
            println!("{line}");
        }
    }
    Ok(())
}

fn opens_with(text: &str, word: &str) -> bool {
    text.strip_prefix(word).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
}

/// Returns the first line of each doc comment with its number, counted from 1.
fn doc_comments(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let comment = |line: &str| line.starts_with("///") || line.starts_with("//!");
    let mut was_comment = false;
    text.lines().enumerate().filter_map(move |(k, line)| {
        let line = line.trim_start();
        let is_first = comment(line) && !was_comment;
        was_comment = comment(line);
        is_first.then(|| (k + 1, line[3..].trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_first_lines_that_open_with_a_whole_word_count() {
        let text = "/// What it is.\n/// What more.\nfn a() {}\n/// Whatever.\nfn b() {}\n";
        let lines: Vec<_> = doc_comments(text).collect();
        assert_eq!(lines, [(1, "What it is."), (4, "Whatever.")]);
        let is_counted = |text| OPENINGS.iter().any(|word| opens_with(text, word));
        assert_eq!(lines.iter().filter(|(_, text)| is_counted(text)).count(), 1);
    }
}
