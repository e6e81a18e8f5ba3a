//! Table of rates: a row per measure, a column per model.

use serde::{Deserialize, Serialize};

use crate::interval::Rate;

/// Table of rates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateTable {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Name of each measure with a rate per column.
    pub rows: Vec<(String, Vec<Rate>)>,
}

impl RateTable {
    /// Adds a column; the measures must have the same order each time.
    ///
    /// # Panics
    ///
    /// Panics if the measures differ from those of the first column.
    pub fn push_column(&mut self, name: &str, rates: &[(&str, Rate)]) {
        if self.columns.is_empty() {
            self.rows = rates.iter().map(|(row, _)| ((*row).to_owned(), Vec::new())).collect();
        }
        self.columns.push(name.to_owned());
        assert_eq!(self.rows.len(), rates.len(), "every column has the same measures");
        for ((row, cells), (measure, rate)) in self.rows.iter_mut().zip(rates) {
            assert_eq!(row, measure, "every column has the same measures");
            cells.push(*rate);
        }
    }

    /// Formats the table in Markdown.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let head = std::iter::once("counts, share, 95 % interval".to_owned());
        let mut lines = vec![head.chain(self.columns.iter().cloned()).collect::<Vec<_>>()];
        for (row, cells) in &self.rows {
            let cells = cells.iter().map(ToString::to_string);
            lines.push(std::iter::once(row.clone()).chain(cells).collect());
        }
        markdown(lines)
    }
}

/// Formats a table in Markdown. The first line is the head, and cells are padded so that the table
/// is also readable as plain text.
///
/// # Panics
///
/// Panics if there are no lines or they differ in length.
#[must_use]
pub fn markdown(mut lines: Vec<Vec<String>>) -> String {
    let n_columns = lines[0].len();
    assert!(lines.iter().all(|line| line.len() == n_columns), "lines: [n, n_columns]");
    let width =
        |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..n_columns).map(width).collect();
    lines.insert(1, widths.iter().map(|width| "-".repeat(*width)).collect());
    let line = |cells: &Vec<String>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("| {} |\n", padded.collect::<Vec<_>>().join(" | "))
    };
    lines.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = RateTable::default();
        table.push_column("before", &[("attack success", Rate { hits: 9, n: 10 })]);
        table.push_column("after", &[("attack success", Rate { hits: 0, n: 10 })]);
        let text = table.to_markdown();
        let lines: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|length| *length == lines[0]), "{text}");
        assert!(text.contains("9/10 = 90.0 % [59.6, 98.2] | 0/10 = 0.0 % [0.0, 27.8]"), "{text}");
    }
}
