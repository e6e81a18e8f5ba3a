//! Rows of a table: CSV, or the same with semicolons or tabs.

use std::path::Path;

use csv::StringRecord;
use serde_json::{Map, Value};

use super::DatasetError;
use super::json_row::is_known;

const DELIMITERS: [char; 3] = [',', ';', '\t'];

/// Returns the rows of a table with their numbers, each as an object with the columns as keys.
///
/// # Errors
///
/// Returns [`DatasetError`] if the header is unknown or a row is malformed.
pub(super) fn rows(text: &str, path: &Path) -> Result<Vec<(usize, Value)>, DatasetError> {
    let text = without_separator_line(text);
    let tables = delimiters(text).map(|delimiter| Table::of(text, delimiter));
    let Some(table) = tables.iter().find(|table| is_known(&table.names)) else {
        let columns = tables.into_iter().next().map(|table| table.names).unwrap_or_default();
        return Err(DatasetError::UnknownFormat { path: path.to_owned(), columns });
    };
    let row_error = |(row, reason)| DatasetError::Row { path: path.to_owned(), row, reason };
    table.rows().map_err(row_error)
}

/// Returns the text after a first line `sep=;`, which Excel writes and reads.
fn without_separator_line(text: &str) -> &str {
    match text.split_once('\n') {
        Some((first, rest))
            if matches!(first.trim_end(), "sep=," | "sep=;" | "sep=\t" | "sep=") =>
        {
            rest
        }
        _ => text,
    }
}

/// Returns the delimiters, those first that occur most in the header.
fn delimiters(text: &str) -> [char; 3] {
    let header = text.trim_start().split(['\n', '\r']).next().unwrap_or_default();
    let mut delimiters = DELIMITERS;
    delimiters.sort_by_key(|delimiter| std::cmp::Reverse(header.matches(*delimiter).count()));
    delimiters
}

/// Table under one reading of its delimiter.
struct Table<'a> {
    text: &'a str,
    delimiter: char,
    /// Names of the columns, without surrounding white space.
    names: Vec<String>,
    /// True if the delimiter is followed by a space.
    is_spaced: bool,
}

impl<'a> Table<'a> {
    fn of(text: &'a str, delimiter: char) -> Self {
        let headers = reader(text, delimiter).headers().cloned().unwrap_or_default();
        let is_spaced = headers.iter().skip(1).any(|name| name.starts_with(' '));
        let names = headers.iter().map(|name| name.trim().to_owned()).collect();
        Self { text, delimiter, names, is_spaced }
    }

    fn rows(&self) -> Result<Vec<(usize, Value)>, (usize, String)> {
        let named = self.names.iter().filter(|name| !name.is_empty());
        let mut seen: Vec<&String> = Vec::with_capacity(self.names.len());
        for name in named {
            if seen.contains(&name) {
                return Err((1, format!("two columns `{name}`")));
            }
            seen.push(name);
        }
        let mut reader = reader(self.text, self.delimiter);
        if is_open(self.text, self.delimiter) {
            return Err((reader.records().count().max(1), "a quote is not closed".to_owned()));
        }
        let row = |(row, parsed): (usize, csv::Result<StringRecord>)| match parsed {
            Ok(cells) => Ok((row, Value::Object(self.row(&cells)))),
            Err(error) => Err((row, reason(&error))),
        };
        (1..).zip(reader.records()).map(row).collect()
    }

    fn row(&self, cells: &StringRecord) -> Map<String, Value> {
        let cells = self.names.iter().zip(cells).filter(|(name, _)| !name.is_empty());
        let cell = |(name, cell): (&String, &str)| {
            let cell = if self.is_spaced { cell.trim_start_matches(' ') } else { cell };
            (name.clone(), Value::from(cell))
        };
        cells.map(cell).collect()
    }
}

fn reader(text: &str, delimiter: char) -> csv::Reader<&[u8]> {
    let delimiter = u8::try_from(delimiter).unwrap_or(b',');
    csv::ReaderBuilder::new().delimiter(delimiter).from_reader(text.as_bytes())
}

/// Returns true if the text ends within quotes. All that follows such a quote is one cell.
fn is_open(text: &str, delimiter: char) -> bool {
    let (mut is_quoted, mut is_start) = (false, true);
    for c in text.chars() {
        if c == '"' && (is_quoted || is_start) {
            // A doubled quote closes and opens again.
            is_quoted = !is_quoted;
            is_start = !is_quoted;
        } else if !is_quoted {
            is_start = c == delimiter || c == '\n' || c == '\r';
        }
    }
    is_quoted
}

/// Start of the reason that a row has too many or too few cells.
const FIELDS: &str = "fields:";

/// Returns true if a row is refused because it has too many or too few cells.
pub(super) fn is_of_fields(reason: &str) -> bool {
    reason.starts_with(FIELDS)
}

fn reason(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{FIELDS} {len} instead of {expected_len}")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(text: &str) -> Vec<Vec<(String, String)>> {
        let text_of = |value: Value| value.as_str().unwrap().to_owned();
        let cells = |row: &Value| {
            let row = row.as_object().unwrap().clone();
            row.into_iter().map(|(name, value)| (name, text_of(value))).collect()
        };
        let rows = rows(text, Path::new("file")).unwrap();
        rows.iter().map(|(_, row)| cells(row)).collect()
    }

    fn reason(text: &str) -> (usize, String) {
        let Err(DatasetError::Row { row, reason, .. }) = rows(text, Path::new("file")) else {
            panic!("a row is malformed: {text}")
        };
        (row, reason)
    }

    fn row(cells: &[(&str, &str)]) -> Vec<(String, String)> {
        cells.iter().map(|&(name, cell)| (name.to_owned(), cell.to_owned())).collect()
    }

    #[test]
    fn the_delimiter_is_found_in_the_header() {
        let expected = [row(&[("goal", "Open, please; now"), ("target", "Sure")])];
        for text in [
            "goal,target\n\"Open, please; now\",Sure\n",
            "goal;target\r\n\"Open, please; now\";Sure\r\n",
            "goal\ttarget\nOpen, please; now\tSure\n",
            "sep=;\r\ngoal;target\r\n\"Open, please; now\";Sure\r\n",
        ] {
            assert_eq!(cells(text), expected, "{text}");
        }
        assert_eq!(cells("prompt\nhello\n"), [row(&[("prompt", "hello")])]);
    }

    #[test]
    fn spaces_after_the_delimiter_belong_to_no_cell() {
        let expected = [row(&[("goal", "Open the red box"), ("target", "Sure")])];
        assert_eq!(cells("goal, target\nOpen the red box, Sure\n"), expected);
        // Without them in the header a space is part of the cell.
        assert_eq!(cells("goal,target\na, b\n"), [row(&[("goal", "a"), ("target", " b")])]);
    }

    #[test]
    fn an_index_column_and_blank_lines_are_passed_over() {
        let text = ",goal,target\r\n0,\"a,\r\nb\",\"Sure, \"\"here\"\"\"\r\n\r\n1,c,d\r\n";
        let expected = [
            row(&[("goal", "a,\r\nb"), ("target", "Sure, \"here\"")]),
            row(&[("goal", "c"), ("target", "d")]),
        ];
        assert_eq!(cells(text), expected);
    }

    #[test]
    fn a_quote_that_is_not_closed_is_refused() {
        let open = "a quote is not closed".to_owned();
        assert_eq!(reason("goal,target\na,b\nc,\"d\ne,f\n"), (2, open.clone()));
        assert_eq!(reason("goal,target\na,\"b\"\"\n"), (1, open));
        // A quote within a cell is a letter.
        let inches = "goal,target\na 5\" box,Sure\n";
        assert_eq!(cells(inches), [row(&[("goal", "a 5\" box"), ("target", "Sure")])]);
    }

    #[test]
    fn a_column_is_named_once() {
        assert_eq!(reason("goal,target,goal\na,b,c\n"), (1, "two columns `goal`".to_owned()));
    }

    #[test]
    fn an_unknown_header_is_told() {
        let error = rows("id;text\n1;a\n", Path::new("file")).unwrap_err();
        assert_eq!(error.to_string(), "`file` is in no known format: its columns are `id`, `text`");
    }
}
