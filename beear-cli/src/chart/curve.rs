//! Curves over one axis, in the colours of the page that contains them.

use anyhow::Result;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::{COLOURS, FONT, MARGIN, Series, TEXT, X_LABELS, Y_LABELS, range, svg, write};

/// Width and height of a chart with its legend, in pixels.
const CHART: (u32, u32) = (440, 280);

/// Height of the legend above the axes, in pixels.
const NAMES: u32 = 22;

/// Width of a name in the legend, in pixels.
const NAME: i32 = 120;

/// A curve over an axis of real numbers.
pub(crate) type Curve = Series<f64>;

/// Draws curves. The vertical axis covers `bounds` in addition to the values.
///
/// # Errors
///
/// If the chart cannot be drawn.
pub(crate) fn curve_chart(
    curves: &[Curve],
    x_label: &str,
    bounds: Option<(f64, f64)>,
) -> Result<String> {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let xs = range(points().map(|(x, _)| *x));
    let ends = bounds.into_iter().flat_map(|(low, high)| [low, high]);
    let ys = range(points().map(|(_, y)| *y).chain(ends));
    let n_points = curves.iter().map(|curve| curve.points.len()).max().unwrap_or(0);
    svg(CHART, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(MARGIN)
            .margin_top(MARGIN + NAMES)
            .x_label_area_size(X_LABELS)
            .y_label_area_size(Y_LABELS)
            .build_cartesian_2d(xs, ys)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc(x_label)
            .x_labels(6)
            .y_labels(6)
            .x_label_formatter(&|x| {
                if x.fract().abs() < 1e-9 { format!("{x:.0}") } else { String::new() }
            })
            .y_label_formatter(&|y| format!("{y:.2}"))
            .label_style((FONT, TEXT - 1))
            .draw()?;
        for (Curve { points, .. }, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
            chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?;
            // Dots would hide a line of many points.
            if n_points <= 40 {
                let dots = points.iter().map(|point| Circle::new(*point, 3, colour.filled()));
                chart.draw_series(dots)?;
            }
        }
        let lefts = (Y_LABELS as i32 + MARGIN as i32..).step_by(NAME as usize);
        for ((Curve { name, .. }, colour), left) in
            curves.iter().zip(COLOURS.iter().cycle()).zip(lefts)
        {
            let y = MARGIN as i32 + 6;
            area.draw(&Circle::new((left + 4, y), 4, colour.filled()))?;
            write(area, name, (left + 14, y), (HPos::Left, &BLACK))?;
        }
        Ok(())
    })
}

/// Adapts a chart of this program to a page: removes its background, replaces its colours by the
/// page's variables `--c0` to `--c5` and its text colour by the current one, and adds `label` for
/// screen readers.
pub(crate) fn themed(svg: &str, label: &str) -> String {
    let mut text = svg.replacen("fill=\"#FFFFFF\"", "fill=\"none\"", 1);
    text = text.replace("\"#000000\"", "\"currentColor\"");
    for (k, RGBColor(red, green, blue)) in COLOURS.iter().enumerate().take(6) {
        let colour = format!("\"#{red:02X}{green:02X}{blue:02X}\"");
        text = text.replace(&colour, &format!("\"var(--c{k})\""));
    }
    let label = label.replace(['"', '<', '&'], "");
    text.replacen("<svg ", &format!("<svg role=\"img\" aria-label=\"{label}\" "), 1)
        .replace(" xmlns=\"http://www.w3.org/2000/svg\"", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_themed_chart_has_no_colour_of_its_own() {
        let curve = Curve::new("loss", [(1.0, 0.5), (2.0, 0.25)]);
        let text = themed(&curve_chart(&[curve], "step", None).unwrap(), "loss");
        assert!(text.contains("currentColor") && text.contains("var(--c0)"));
        for own in ["#FFFFFF", "#000000", "#0072B2", "http"] {
            assert!(!text.contains(own), "{own}");
        }
    }
}
