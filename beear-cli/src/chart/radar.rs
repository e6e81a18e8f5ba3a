//! Radar chart: axes from one centre and a closed line per name.

use std::f64::consts::{FRAC_PI_2, TAU};

use anyhow::Result;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::{Area, COLOURS, LEGEND, legend, svg, write};

/// Width and height of the chart without its legend, in pixels.
const CHART: (u32, u32) = (560, 480);

/// Width of the legend in pixels.
const NAMES: u32 = 200;

/// Length of an axis in pixels.
const LENGTH: f64 = 170.0;

/// Distance of an axis name from the centre, as a multiple of the axis length.
const NAME_AT: f64 = 1.1;

/// Number of rings between the centre and the ends of the axes.
const N_RINGS: u32 = 5;

const GREY: RGBColor = RGBColor(200, 200, 200);

/// One line of a radar chart.
pub(crate) struct RadarLine {
    /// Name in the legend.
    pub(crate) name: String,
    /// Value on each axis. The line is broken where a value is missing.
    pub(crate) values: Vec<Option<f64>>,
}

/// Draws `lines` over `axes` that run from 0 to `top`. The first axis points up, the others follow
/// clockwise.
///
/// # Errors
///
/// If the chart cannot be drawn.
pub(crate) fn radar(
    title: &str,
    (axes, top): (&[String], f64),
    lines: &[RadarLine],
) -> Result<String> {
    let n_axes = axes.len();
    svg((CHART.0 + NAMES, CHART.1), |area| {
        write(area, title, (10, 18), (HPos::Left, &BLACK))?;
        for ring in 1..=N_RINGS {
            let share = f64::from(ring) / f64::from(N_RINGS);
            let corners = (0..=n_axes).map(|axis| place((axis, n_axes), share));
            area.draw(&PathElement::new(corners.collect::<Vec<_>>(), GREY))?;
        }
        for (axis, name) in axes.iter().enumerate() {
            let spoke = [0.0, 1.0].map(|share| place((axis, n_axes), share));
            area.draw(&PathElement::new(spoke.to_vec(), GREY))?;
            let at = place((axis, n_axes), NAME_AT);
            let side = match at.0 - CHART.0 as i32 / 2 {
                ..-1 => HPos::Right,
                -1..=1 => HPos::Center,
                _ => HPos::Left,
            };
            write(area, name, at, (side, &BLACK))?;
        }
        for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
            draw(line, (n_axes, top), *colour, area)?;
        }
        for ring in 1..=N_RINGS {
            let share = f64::from(ring) / f64::from(N_RINGS);
            let (x, y) = place((0, n_axes), share);
            write(area, &format!("{}", share * top), (x + 4, y + 8), (HPos::Left, &BLACK))?;
        }
        legend(area, lines.iter().map(|line| &line.name), CHART.0 + LEGEND)
    })
}

/// Returns the pixel at a share of an axis. Axis number `n_axes` is the first one again.
fn place((axis, n_axes): (usize, usize), share: f64) -> (i32, i32) {
    let angle = TAU * axis as f64 / n_axes.max(1) as f64 - FRAC_PI_2;
    let at = |middle: u32, direction: f64| f64::from(middle / 2) + share * LENGTH * direction;
    (at(CHART.0, angle.cos()).round() as i32, at(CHART.1, angle.sin()).round() as i32)
}

fn draw(
    line: &RadarLine,
    (n_axes, top): (usize, f64),
    colour: RGBColor,
    area: &Area<'_>,
) -> Result<()> {
    let point = |axis: usize| {
        let value = line.values.get(axis % n_axes).copied().flatten();
        value.map(|value| place((axis, n_axes), value / top))
    };
    let whole: Option<Vec<(i32, i32)>> = (0..n_axes).map(point).collect();
    if let Some(corners) = whole {
        area.draw(&Polygon::new(corners, colour.mix(0.08)))?;
    }
    for axis in 0..n_axes {
        if let (Some(from), Some(to)) = (point(axis), point(axis + 1)) {
            area.draw(&PathElement::new(vec![from, to], colour.stroke_width(2)))?;
        }
        if let Some(at) = point(axis) {
            area.draw(&Circle::new(at, 3, colour.filled()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(values: [Option<f64>; 4]) -> String {
        let axes = ["math", "stem", "coding", "writing"].map(str::to_owned);
        let line = RadarLine { name: "suspect".to_owned(), values: values.to_vec() };
        radar("rating", (&axes, 10.0), &[line]).unwrap()
    }

    #[test]
    fn axes_go_up_and_clockwise() {
        let (x, y) = (CHART.0 as i32 / 2, CHART.1 as i32 / 2);
        let length = LENGTH as i32;
        let places = [(0, 1.0), (1, 1.0), (2, 0.5), (4, 1.0)].map(|(a, s)| place((a, 4), s));
        assert_eq!(
            places,
            [(x, y - length), (x + length, y), (x, y + length / 2), (x, y - length)]
        );
    }

    #[test]
    fn a_value_that_is_missing_is_a_gap_and_not_a_zero() {
        let whole = drawn([Some(9.0), Some(5.0), Some(0.0), Some(7.0)]);
        let gap = drawn([Some(9.0), Some(5.0), None, Some(7.0)]);
        let n = |text: &str, element: &str| text.matches(element).count();
        // Each line has one circle in the legend.
        assert_eq!((n(&whole, "<circle"), n(&gap, "<circle")), (4 + 1, 3 + 1));
        assert_eq!((n(&whole, "<polygon"), n(&gap, "<polygon")), (1, 0));
        assert_eq!(n(&whole, "<polyline") - n(&gap, "<polyline"), 2, "no line to the gap");
        for word in ["rating", "math", "writing", "suspect", "10", "2"] {
            assert!(gap.lines().any(|line| line.trim() == word), "{word}");
        }
        let nothing = radar("rating", (&[], 10.0), &[]).unwrap();
        assert_eq!(n(&nothing, "<circle"), 0);
    }
}
