//! JSON Lines: one row per line; line numbers count blank lines, which are skipped.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::MtBenchError;

/// Reads the text of a file without the byte order mark.
pub(super) fn text_of(path: &Path) -> Result<String, MtBenchError> {
    let bytes = beear_input::read(path).map_err(|source| MtBenchError::io(path, source))?;
    let text =
        String::from_utf8(bytes).map_err(|_| MtBenchError::NotUtf8 { path: path.to_owned() })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// Parses the rows of a text, at least one, with their line numbers.
pub(super) fn parse<T: DeserializeOwned>(
    text: &str,
    path: &Path,
) -> Result<Vec<(usize, T)>, MtBenchError> {
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let row = |(row, line): (usize, &str)| match serde_json::from_str(line) {
        Ok(value) => Ok((row, value)),
        Err(error) => {
            let (what, column) = (error.to_string(), error.column());
            let place = format!(" at line {} column {column}", error.line());
            let what = what.strip_suffix(&place).unwrap_or(&what);
            Err(row_error(path, row, format!("column {column}: {what}")))
        }
    };
    let rows: Vec<(usize, T)> = lines.map(row).collect::<Result<_, _>>()?;
    if rows.is_empty() {
        return Err(MtBenchError::Empty { path: path.to_owned() });
    }
    Ok(rows)
}

pub(super) fn row_error(path: &Path, row: usize, reason: impl Into<String>) -> MtBenchError {
    MtBenchError::Row { path: path.to_owned(), row, reason: reason.into() }
}

/// Appends a row, which is in the file when this function returns. The folder must exist; the file
/// is created if missing.
///
/// An incomplete last line of a killed process is ended first, so that no other line is damaged.
pub(super) fn append<T: Serialize>(path: &Path, row: &T) -> Result<(), MtBenchError> {
    let failed = |source| MtBenchError::io(path, source);
    let start = if ends_in_a_line(path).map_err(failed)? { "\n" } else { "" };
    let line = serde_json::to_string(row).expect("text and finite numbers are JSON");
    let mut file = File::options().append(true).create(true).open(path).map_err(failed)?;
    file.write_all(format!("{start}{line}\n").as_bytes()).map_err(failed)?;
    file.flush().map_err(failed)
}

/// Writes `rows` to a temporary file that then replaces the file. The folder must exist.
pub(super) fn replace<T: Serialize>(path: &Path, rows: &[T]) -> Result<(), MtBenchError> {
    let line = |row| serde_json::to_string(row).expect("text and finite numbers are JSON") + "\n";
    let lines: String = rows.iter().map(line).collect();
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let aside = path.with_file_name(name);
    let written = std::fs::write(&aside, lines).and_then(|()| std::fs::rename(&aside, path));
    written.map_err(|source| {
        let _ = std::fs::remove_file(&aside);
        MtBenchError::io(path, source)
    })
}

/// True if the file ends in the middle of a line.
fn ends_in_a_line(path: &Path) -> std::io::Result<bool> {
    use std::io::{ErrorKind, Read, Seek, SeekFrom};
    let mut file = match beear_input::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}
