//! Charts as SVG text, drawn from numbers.

mod curve;
mod foreign;
mod heat;
mod lines;
mod radar;
mod scatter;

pub(crate) use curve::{Curve, curve_chart, themed};
pub(crate) use foreign::harmless_svg;
pub(crate) use heat::{HeatRow, heat_map};
pub(crate) use lines::{LinePanel, line_panels};
pub(crate) use radar::{RadarLine, radar};
pub(crate) use scatter::{ScatterPanel, scatter_panels};

use std::ops::Range;

use anyhow::Result;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Drawing area of an SVG picture.
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Colours that people with red-green colour blindness can distinguish: Okabe and Ito,
/// [Color Universal Design](https://jfly.uni-koeln.de/color/), 2008.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    BLACK,
];

const FONT: &str = "sans-serif";

/// Text height in pixels.
const TEXT: u32 = 14;

/// Margin around a panel in pixels. The next constants are the room for the labels of the axes
/// below and to the left of the panel, and for the legend to its right.
const MARGIN: u32 = 10;
const X_LABELS: u32 = 36;
const Y_LABELS: u32 = 50;
const LEGEND: u32 = 96;

/// A named series of points.
#[derive(Clone, Debug)]
pub(crate) struct Series<X> {
    pub(crate) name: String,
    pub(crate) points: Vec<(X, f64)>,
}

impl<X> Series<X> {
    pub(crate) fn new(name: impl Into<String>, points: impl IntoIterator<Item = (X, f64)>) -> Self {
        Self { name: name.into(), points: points.into_iter().collect() }
    }
}

/// Draws a picture on a white background.
fn svg(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<String> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        area.fill(&WHITE)?;
        draw(&area)?;
        area.present()?;
    }
    Ok(text)
}

/// Draws the legend beside the axes, where it covers no point.
fn legend<'a>(
    area: &Area<'_>,
    names: impl Iterator<Item = &'a String>,
    panel_width: u32,
) -> Result<()> {
    let left = (panel_width - LEGEND) as i32;
    for ((name, colour), k) in names.zip(COLOURS.iter().cycle()).zip(1..) {
        let y = (MARGIN + k * (TEXT + 6)) as i32;
        area.draw(&Circle::new((left, y), 4, colour.filled()))?;
        write(area, name, (left + 12, y), (HPos::Left, &BLACK))?;
    }
    Ok(())
}

/// Writes one line of text to one `side` of a place, centred on its height.
fn write(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    (side, ink): (HPos, &RGBColor),
) -> Result<()> {
    let style = TextStyle::from((FONT, TEXT).into_font()).color(ink);
    area.draw(&Text::new(text.to_owned(), at, style.pos(Pos::new(side, VPos::Center))))?;
    Ok(())
}

/// Returns the range of the values with a margin on both sides. The range is never empty.
fn range(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (low, high) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if low > high {
        return 0.0..1.0;
    }
    let room = if low < high { 0.06 * (high - low) } else { 1.0 };
    low - room..high + room
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_never_empty() {
        assert_eq!(range([1.0, 3.0].into_iter()), 0.88..3.12);
        assert_eq!(range([2.0].into_iter()), 1.0..3.0);
        assert_eq!(range([].into_iter()), 0.0..1.0);
    }
}
