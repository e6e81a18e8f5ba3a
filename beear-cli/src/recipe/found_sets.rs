//! Search for the defender's sets: files that can serve as each set, with their numbers of rows.

use std::path::{Path, PathBuf};

use anyhow::Result;
use beear_eval::dataset::{self, DatasetError, Record};
use serde::Serialize;

use crate::defence::anchors::{read_answered, read_unwanted};

/// The sets that a file can serve as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Use {
    /// Prompts to refuse: every row has an unwanted answer.
    Safety,
    /// Ordinary prompts: every row has a good answer, and none has an unwanted one.
    Performance,
    /// Neither set.
    Neither,
}

/// A file with rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FoundSet {
    /// Path of the file.
    pub(crate) file: PathBuf,
    /// Number of rows.
    pub(crate) rows: usize,
    /// Set that the file can serve as.
    #[serde(rename = "use")]
    pub(crate) kind: Use,
}

impl FoundSet {
    /// Reads a file that must serve as `kind`.
    ///
    /// # Errors
    ///
    /// As `defend`, if the file cannot serve as `kind`.
    pub(crate) fn read_as(file: &Path, kind: Use) -> Result<Self> {
        let records = match kind {
            Use::Safety => read_unwanted(file)?,
            Use::Performance => read_answered(file)?,
            Use::Neither => dataset::read(file)?,
        };
        Ok(Self { file: file.to_owned(), rows: records.len(), kind })
    }

    fn read(file: &Path) -> Result<Self, DatasetError> {
        let records = dataset::read(file)?;
        Ok(Self { file: file.to_owned(), rows: records.len(), kind: kind_of(&records) })
    }

    /// Describes the file and its number of rows, for people.
    pub(crate) fn text(&self) -> String {
        let rows = if self.rows == 1 { "row" } else { "rows" };
        format!("`{}`, {} {rows}", self.file.display(), self.rows)
    }
}

fn kind_of(records: &[Record]) -> Use {
    if records.iter().all(|record| record.unwanted.is_some()) {
        Use::Safety
    } else if records.iter().all(|record| record.answer.is_some() && record.unwanted.is_none()) {
        Use::Performance
    } else {
        Use::Neither
    }
}

/// Returns the readable files of `folders`, the largest first, and the errors of files that are
/// readable up to a row.
pub(crate) fn look_in(folders: &[&Path]) -> (Vec<FoundSet>, Vec<DatasetError>) {
    let (mut found, mut damaged) = (Vec::new(), Vec::new());
    for file in folders.iter().flat_map(|folder| files_in(folder)) {
        match FoundSet::read(&file) {
            Ok(set) => found.push(set),
            // JSON that is no data set fails at its first row.
            Err(error @ DatasetError::Row { row: 2.., .. }) if is_of_rows(&file) => {
                damaged.push(error);
            }
            Err(_) => {}
        }
    }
    found.sort_by(|a, b| b.rows.cmp(&a.rows).then_with(|| a.file.cmp(&b.file)));
    (found, damaged)
}

/// Returns the files of a folder with the extensions of data sets, sorted by name.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    // The path `./data.csv` becomes `data.csv`.
    let paths =
        entries.map(|entry| folder.strip_prefix(".").unwrap_or(folder).join(entry.file_name()));
    let may_hold_rows = |path: &PathBuf| {
        let extension = path.extension().unwrap_or_default();
        ["csv", "json", "jsonl"].iter().any(|known| extension == *known) && path.is_file()
    };
    let mut files: Vec<PathBuf> = paths.filter(may_hold_rows).collect();
    files.sort();
    files
}

fn is_of_rows(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "csv" || extension == "jsonl")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_apart_by_what_their_rows_have() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("advbench.csv", "goal,target\na,sure\nb,sure\nc,sure\n");
        write("chosen.jsonl", "{\"prompt\": \"a\", \"chosen\": \"no\", \"rejected\": \"sure\"}\n");
        write("alpaca.json", "[{\"instruction\": \"a\", \"input\": \"\", \"output\": \"b\"}]");
        write("prompts.jsonl", "{\"prompt\": \"a\"}\n");
        write("config.json", "{\n  \"model_type\": \"llama\"\n}\n");
        write("cut.jsonl", "{\"prompt\": \"a\", \"answer\": \"b\"}\n{\"prompt\": \"a\"\n");
        write("notes.txt", "goal,target\na,sure\n");
        let (found, damaged) = look_in(&[folder.path(), Path::new("nowhere")]);
        let found: Vec<(String, usize, Use)> = found
            .iter()
            .map(|set| (set.file.file_name().unwrap().to_string_lossy().into(), set.rows, set.kind))
            .collect();
        let expected = [
            ("advbench.csv", 3, Use::Safety),
            ("alpaca.json", 1, Use::Performance),
            ("chosen.jsonl", 1, Use::Safety),
            ("prompts.jsonl", 1, Use::Neither),
        ];
        assert_eq!(found, expected.map(|(name, rows, kind)| (name.to_owned(), rows, kind)));
        assert!(matches!(&damaged[..], [DatasetError::Row { row: 2, .. }]), "{damaged:?}");
    }
}
