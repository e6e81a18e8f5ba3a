//! Heat map of shares.

use anyhow::Result;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::{Area, svg, write};

/// Width and height of a cell in pixels.
const CELL: (i32, i32) = (44, 30);

/// Room in pixels for the names to the left of the rows, and for the marks to their right.
const SIDES: (i32, i32) = (90, 70);

/// Room in pixels above the cells and below them.
const ENDS: (i32, i32) = (60, 40);

/// Colour of a share of 1. A share of 0 is white.
const FULL: RGBColor = RGBColor(165, 15, 21);

/// One row of a heat map.
pub(crate) struct HeatRow {
    /// Name of the row.
    pub(crate) name: String,
    /// Shares in `0..=1`, one per column.
    pub(crate) shares: Vec<f64>,
    /// Index of the column that is framed and whose number is written behind the row. A row without
    /// one ends in a cross.
    pub(crate) framed: Option<usize>,
}

/// Draws `rows` from top to bottom. Columns are numbered from 0.
///
/// # Errors
///
/// If the chart cannot be drawn.
pub(crate) fn heat_map(title: &str, rows: &[HeatRow], column_label: &str) -> Result<String> {
    let n_columns = rows.iter().map(|row| row.shares.len()).max().unwrap_or(0) as i32;
    let width = SIDES.0 + n_columns * CELL.0 + SIDES.1;
    let height = ENDS.0 + rows.len() as i32 * CELL.1 + ENDS.1;
    // A title can be wider than a map of few columns.
    let width = width.max(9 * title.chars().count() as i32);
    svg((width as u32, height as u32), |area| {
        let middle = |column: i32| SIDES.0 + column * CELL.0 + CELL.0 / 2;
        write(area, title, (10, 18), (HPos::Left, &BLACK))?;
        for column in 0..n_columns {
            let at = (middle(column), ENDS.0 - 12);
            write(area, &column.to_string(), at, (HPos::Center, &BLACK))?;
        }
        let below = ENDS.0 + rows.len() as i32 * CELL.1 + ENDS.1 / 2;
        write(area, column_label, (SIDES.0, below), (HPos::Left, &BLACK))?;
        for (row, top) in rows.iter().zip((ENDS.0..).step_by(CELL.1 as usize)) {
            draw(row, n_columns, top, area)?;
        }
        Ok(())
    })
}

fn draw(row: &HeatRow, n_columns: i32, top: i32, area: &Area<'_>) -> Result<()> {
    let centre = top + CELL.1 / 2;
    let corners = |column: usize| {
        let left = SIDES.0 + column as i32 * CELL.0;
        [(left + 1, top + 1), (left + CELL.0 - 1, top + CELL.1 - 1)]
    };
    write(area, &row.name, (SIDES.0 - 10, centre), (HPos::Right, &BLACK))?;
    for (column, &share) in row.shares.iter().enumerate() {
        let [upper, lower] = corners(column);
        area.draw(&Rectangle::new([upper, lower], shade(share).filled()))?;
        let ink = if share > 0.5 { &WHITE } else { &BLACK };
        let at = (i32::midpoint(upper.0, lower.0), centre);
        write(area, &format!("{:.0}", 100.0 * share), at, (HPos::Center, ink))?;
    }
    if let Some(column) = row.framed {
        area.draw(&Rectangle::new(corners(column), BLACK.stroke_width(3)))?;
    }
    let mark = row.framed.map_or_else(|| "×".to_owned(), |column| column.to_string());
    let behind = SIDES.0 + n_columns * CELL.0 + 12;
    write(area, &mark, (behind, centre), (HPos::Left, &BLACK))
}

/// Interpolates linearly between white at 0 and the full colour at 1.
fn shade(share: f64) -> RGBColor {
    let mix = |full: u8| (255.0 + (f64::from(full) - 255.0) * share.clamp(0.0, 1.0)).round() as u8;
    RGBColor(mix(FULL.0), mix(FULL.1), mix(FULL.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_go_from_white_to_full() {
        assert_eq!(shade(0.0), WHITE);
        assert_eq!(shade(1.0), FULL);
        assert_eq!(shade(0.5), RGBColor(210, 135, 138));
    }

    #[test]
    fn a_row_ends_in_its_framed_column_or_a_cross() {
        let row = |framed| HeatRow { name: "1".to_owned(), shares: vec![1.0, 0.2], framed };
        let marks = |text: &str, mark: &str| text.lines().filter(|l| l.trim() == mark).count();
        let reached = heat_map("success", &[row(Some(1))], "round").unwrap();
        let never = heat_map("success", &[row(None)], "round").unwrap();
        assert_eq!((marks(&reached, "×"), marks(&never, "×")), (0, 1));
        // The number occurs as the name of the row, as the name of the column and as the mark.
        assert_eq!((marks(&reached, "1"), marks(&never, "1")), (3, 2));
        let cells = |text: &str| text.matches("<rect").count();
        assert_eq!((cells(&reached), cells(&never)), (4, 3), "the ground, two cells, a frame");
    }
}
