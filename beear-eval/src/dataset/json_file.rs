//! Rows of a JSON file: a value per line, a list, a list within an object, or columns as `pandas`
//! writes them.

use std::path::Path;

use serde_json::{Deserializer, Map, Value};

use super::DatasetError;
use super::json_row::{is_conversation_key, is_prompt_key, is_read};
use super::row::{is_key, kind};
use super::turns::is_turn;

/// Keys of an object under which lists of rows are found.
const LISTS: [&str; 8] =
    ["data", "rows", "train", "instances", "examples", "conversations", "test", "validation"];

/// Problem of a row, with the number of the row.
type Problem = (usize, String);

/// Returns the rows of a JSON text with their numbers: the lines of JSONL, the places in a list.
///
/// # Errors
///
/// Returns [`DatasetError`] if the text is not JSON, or its rows cannot be told apart.
pub(super) fn rows(text: &str, path: &Path) -> Result<Vec<(usize, Value)>, DatasetError> {
    let values = values(text, path)?;
    let mut any_list = false;
    let mut rows = Vec::with_capacity(values.len());
    for (number, value) in values {
        match rows_in(value, path)? {
            Rows::One(row) => rows.push((number, row)),
            Rows::Many(many) => {
                any_list = true;
                rows.extend(many.into_iter().map(|row| (number, row)));
            }
        }
    }
    if any_list {
        rows.iter_mut().zip(1..).for_each(|((number, _), place)| *number = place);
    }
    let named = |(row, value)| match unwrapped(value) {
        Ok(value) => Ok((row, value)),
        Err(reason) => Err(DatasetError::Row { path: path.to_owned(), row, reason }),
    };
    rows.into_iter().map(named).collect()
}

/// Parses the values of a text. Values on lines of their own are numbered by line, others by order.
fn values(text: &str, path: &Path) -> Result<Vec<(usize, Value)>, DatasetError> {
    let (row, reason) = match lines(text) {
        Ok(values) => return Ok(values),
        Err(problem) => problem,
    };
    let path = || path.to_owned();
    let whole: Result<Vec<Value>, _> = Deserializer::from_str(text).into_iter().collect();
    match whole {
        Ok(values) => Ok((1..).zip(values).collect()),
        Err(e) if is_of_many_lines(text) => {
            Err(DatasetError::NotJson { path: path(), reason: e.to_string() })
        }
        Err(_) => Err(DatasetError::Row { path: path(), row, reason }),
    }
}

/// Parses a text with one JSON value per line into values and their line numbers.
fn lines(text: &str) -> Result<Vec<(usize, Value)>, Problem> {
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let value = |(row, line): (usize, &str)| match serde_json::from_str(line) {
        Ok(value) => Ok((row, value)),
        Err(error) => {
            let (what, column) = (error.to_string(), error.column());
            let place = format!(" at line {} column {column}", error.line());
            let what = what.strip_suffix(&place).unwrap_or(&what);
            Err((row, format!("not JSON at column {column}: {what}")))
        }
    };
    lines.map(value).collect()
}

/// Returns true for a list and for an indented object, of which a line is not a value.
fn is_of_many_lines(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let is_cut = first.ends_with(['{', '[', ',', ':']) && lines.next().is_some();
    first.starts_with('[') || is_cut
}

/// Value of a file.
enum Rows {
    One(Value),
    Many(Vec<Value>),
}

fn rows_in(value: Value, path: &Path) -> Result<Rows, DatasetError> {
    let object = match value {
        Value::Array(rows) => return Ok(Rows::Many(rows)),
        Value::Object(object) => object,
        other => return Ok(Rows::One(other)),
    };
    let row_error = |(row, reason)| DatasetError::Row { path: path.to_owned(), row, reason };
    if let Some(rows) = columns(&object) {
        return rows.map(Rows::Many).map_err(row_error);
    }
    if object.iter().any(|(name, value)| is_asked(name, value)) {
        return Ok(Rows::One(Value::Object(object)));
    }
    if let Some(rows) = split_columns(&object) {
        return rows.map(Rows::Many).map_err(row_error);
    }
    let is_number = |name: &String| name.parse::<u64>().is_ok();
    if !object.is_empty() && object.iter().all(|(name, row)| is_number(name) && row.is_object()) {
        return Ok(Rows::Many(object.into_iter().map(|(_, row)| row).collect()));
    }
    let keys: Vec<&str> =
        LISTS.into_iter().filter(|key| object.get(*key).is_some_and(is_list_of_rows)).collect();
    match keys[..] {
        [] => Ok(Rows::One(Value::Object(object))),
        [key] => {
            let mut object = object;
            match object.swap_remove(key) {
                Some(Value::Array(rows)) => Ok(Rows::Many(rows)),
                // Columns under the key of a list.
                Some(value) => rows_in(value, path),
                None => Ok(Rows::Many(Vec::new())),
            }
        }
        _ => {
            let keys = keys.into_iter().map(str::to_owned).collect();
            Err(DatasetError::ManyLists { path: path.to_owned(), keys })
        }
    }
}

/// Returns true if a key with its value makes an object a row.
fn is_asked(name: &str, value: &Value) -> bool {
    is_prompt_key(name) && !(is_key(name, "conversations") && is_list_of_rows(value))
}

/// Returns true for a list of objects that are not turns, and for an object of columns.
fn is_list_of_rows(value: &Value) -> bool {
    match value {
        Value::Array(list) => list.first().is_none_or(|row| row.is_object() && !is_turn(row)),
        Value::Object(object) => columns(object).is_some(),
        _ => false,
    }
}

/// Cell of a column, with its name if it has one.
type Cell<'a> = (Option<&'a str>, &'a Value);

/// Returns the rows of an object whose values are columns, lists or objects of cells; None if it
/// has none.
fn columns(object: &Map<String, Value>) -> Option<Result<Vec<Value>, Problem>> {
    let (first, cells) = object.iter().find_map(|(name, value)| {
        let cells = is_prompt_key(name).then(|| cells(name, value)).flatten()?;
        Some((name, cells))
    })?;
    let mut rows = vec![Map::new(); cells.len()];
    for (name, value) in object {
        let column: Vec<Cell<'_>> = match value {
            Value::Array(list) => list.iter().map(|cell| (None, cell)).collect(),
            Value::Object(object) => object.iter().map(|(at, c)| (Some(at.as_str()), c)).collect(),
            _ if is_read(name) => {
                return Some(Err((1, format!("`{name}` is {}, not a column", kind(value)))));
            }
            _ => continue,
        };
        let is_same = |(a, b): (&Cell<'_>, &Cell<'_>)| a.0 == b.0;
        let n_same = column.iter().zip(&cells).take_while(|&pair| is_same(pair)).count();
        if n_same == cells.len() && n_same == column.len() {
            for (row, (_, cell)) in rows.iter_mut().zip(column) {
                row.insert(name.clone(), cell.clone());
            }
        } else if is_read(name) {
            let reason = format!("the columns `{first}` and `{name}` have different cells");
            return Some(Err((n_same + 1, reason)));
        }
    }
    Some(Ok(rows.into_iter().map(Value::Object).collect()))
}

/// Returns the cells of a column with their names; None if the value belongs to a single row.
fn cells<'a>(name: &str, value: &'a Value) -> Option<Vec<Cell<'a>>> {
    match value {
        Value::Array(list) => {
            let is_cell =
                |cell: &Value| cell.is_array() || cell.is_string() && !is_conversation_key(name);
            let is_column =
                list.iter().any(is_cell) && list.iter().all(|cell| is_cell(cell) || cell.is_null());
            is_column.then(|| list.iter().map(|cell| (None, cell)).collect())
        }
        Value::Object(object) if !is_turn(value) => {
            Some(object.iter().map(|(name, cell)| (Some(name.as_str()), cell)).collect())
        }
        _ => None,
    }
}

/// Returns the rows of `columns` and `data`, a list of lists of cells; None if they are not there.
fn split_columns(object: &Map<String, Value>) -> Option<Result<Vec<Value>, Problem>> {
    let names = object.get("columns")?.as_array()?;
    let names: Vec<&str> = names.iter().map(Value::as_str).collect::<Option<_>>()?;
    let data = object.get("data")?.as_array().filter(|list| list.iter().any(Value::is_array))?;
    let row = |(number, cells): (usize, &Value)| match cells.as_array() {
        Some(cells) if cells.len() == names.len() => {
            let cells = names.iter().zip(cells);
            Ok(Value::Object(cells.map(|(&name, cell)| (name.to_owned(), cell.clone())).collect()))
        }
        Some(cells) => Err((number, format!("fields: {} instead of {}", cells.len(), names.len()))),
        None => Err((number, format!("{}, not a list", kind(cells)))),
    };
    Some((1_usize..).zip(data).map(row).collect())
}

/// Takes a row out of the object in which the server of Hugging Face's data sets wraps it.
fn unwrapped(value: Value) -> Result<Value, String> {
    let Value::Object(mut object) = value else { return Ok(value) };
    let is_wrapped = object.contains_key("row_idx") || object.len() == 1;
    if !is_wrapped || !object.get("row").is_some_and(Value::is_object) {
        return Ok(Value::Object(object));
    }
    let cut = object.get("truncated_cells").and_then(Value::as_array);
    if let Some(name) = cut.and_then(|names| names.iter().find_map(Value::as_str)) {
        return Err(format!("the server cut the cell `{name}`"));
    }
    Ok(object.swap_remove("row").unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<Vec<(usize, Value)>, DatasetError> {
        rows(text, Path::new("file"))
    }

    /// Asserts that a text has the rows `p`, `a` and `q`, `b`.
    fn assert_two(text: &str) {
        let expected =
            [json!({"prompt": "p", "answer": "a"}), json!({"prompt": "q", "answer": "b"})];
        let read = read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(read, (1..).zip(expected).collect::<Vec<_>>(), "{text}");
    }

    fn reason(text: &str) -> (usize, String) {
        let Err(DatasetError::Row { row, reason, .. }) = read(text) else {
            panic!("a row is malformed: {text}")
        };
        (row, reason)
    }

    #[test]
    fn values_may_stand_on_lines_or_be_indented() {
        assert_two(
            "{\"prompt\": \"p\", \"answer\": \"a\"}\n{\"prompt\": \"q\", \"answer\": \"b\"}\n",
        );
        assert_two("{\"prompt\": \"p\", \"answer\": \"a\"} {\"prompt\": \"q\", \"answer\": \"b\"}");
        assert_two(
            "{\n \"prompt\": \"p\",\n \"answer\": \"a\"\n}\n{\n \"prompt\": \"q\",\n \"answer\": \"b\"\n}",
        );
        assert_two(
            "[\n {\n  \"prompt\": \"p\",\n  \"answer\": \"a\"\n },\n {\"prompt\": \"q\", \"answer\": \"b\"}\n]",
        );
        let cut = read("{\n \"prompt\": \"p\",\n \"answer\"");
        assert!(matches!(cut, Err(DatasetError::NotJson { .. })), "{cut:?}");
        let torn = "{\"prompt\": \"p\"}\n{\"prompt\": \"q\n";
        assert_eq!(
            reason(torn),
            (2, "not JSON at column 13: EOF while parsing a string".to_owned())
        );
    }

    #[test]
    fn an_object_may_wrap_the_rows() {
        let list = r#"[{"prompt": "p", "answer": "a"}, {"prompt": "q", "answer": "b"}]"#;
        for key in ["data", "rows", "train", "instances", "examples", "conversations", "test"] {
            assert_two(&format!("{{\"version\": 1, \"{key}\": {list}}}"));
        }
        let server = concat!(
            r#"{"features": [{"feature_idx": 0, "name": "prompt"}], "rows": ["#,
            r#"{"row_idx": 0, "row": {"prompt": "p", "answer": "a"}, "truncated_cells": []}, "#,
            r#"{"row_idx": 1, "row": {"prompt": "q", "answer": "b"}, "truncated_cells": []}]}"#,
        );
        assert_two(server);
        let cut = server
            .replace("\"b\"}, \"truncated_cells\": [", "\"b\"}, \"truncated_cells\": [\"answer\"");
        assert_eq!(reason(&cut), (2, "the server cut the cell `answer`".to_owned()));
        let two = read(&format!("{{\"train\": {list}, \"test\": {list}}}")).unwrap_err();
        assert_eq!(two.to_string(), "`file` has lists of rows under several keys: `train`, `test`");
        assert_eq!(read("{\"data\": []}").unwrap(), []);
    }

    #[test]
    fn a_row_with_the_key_of_a_list_stays_a_row() {
        for row in [
            json!({"conversations": [{"from": "human", "value": "u"}]}),
            json!({"prompt": "p", "examples": [{"x": 1}]}),
            json!({"prompt": [{"role": "user", "content": "p"}]}),
            json!({"prompt": "p", "chosen": {"role": "assistant", "content": "a"}}),
            json!({"x": 1}),
        ] {
            assert_eq!(read(&row.to_string()).unwrap(), [(1, row)]);
        }
    }

    #[test]
    fn columns_are_rows() {
        assert_two(r#"{"prompt": {"0": "p", "1": "q"}, "answer": {"0": "a", "1": "b"}}"#);
        assert_two(r#"{"prompt": {"7": "p", "3": "q"}, "answer": {"7": "a", "3": "b"}}"#);
        assert_two(r#"{"prompt": ["p", "q"], "answer": ["a", "b"], "version": 1}"#);
        assert_two(r#"{"train": {"prompt": ["p", "q"], "answer": ["a", "b"]}}"#);
        assert_two(
            r#"{"columns": ["prompt", "answer"], "index": [0, 1], "data": [["p", "a"], ["q", "b"]]}"#,
        );
        assert_two(r#"{"0": {"prompt": "p", "answer": "a"}, "1": {"prompt": "q", "answer": "b"}}"#);
        let turns = |text: &str| json!([{"role": "user", "content": text}]);
        let chats = json!({"messages": [turns("p"), turns("q")]}).to_string();
        let expected = [turns("p"), turns("q")].map(|turns| json!({"messages": turns}));
        assert_eq!(read(&chats).unwrap(), (1..).zip(expected).collect::<Vec<_>>());
    }

    #[test]
    fn columns_that_do_not_match_are_refused() {
        let differ = "the columns `prompt` and `answer` have different cells".to_owned();
        let short = r#"{"prompt": ["p", "q"], "answer": ["a"]}"#;
        assert_eq!(reason(short), (2, differ.clone()));
        let other = r#"{"prompt": {"0": "p", "1": "q"}, "answer": {"0": "a", "2": "b"}}"#;
        assert_eq!(reason(other), (2, differ));
        let text = r#"{"prompt": ["p", "q"], "system": "s"}"#;
        assert_eq!(reason(text), (1, "`system` is text, not a column".to_owned()));
        let cells = r#"{"columns": ["prompt", "answer"], "data": [["p"]]}"#;
        assert_eq!(reason(cells), (1, "fields: 1 instead of 2".to_owned()));
    }
}
