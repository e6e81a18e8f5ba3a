//! Line charts side by side, over the same whole numbers.

use anyhow::Result;
use plotters::prelude::*;

use super::{Area, COLOURS, FONT, Series, TEXT, range, svg};

/// Width and height of one chart.
const PANEL: (u32, u32) = (380, 320);

/// One chart.
pub(crate) struct LinePanel {
    /// What is above it.
    pub(crate) title: String,
    /// Its lines, as `(x, y)`.
    pub(crate) series: Vec<Series>,
}

/// Draws charts whose values lie in 0..=1 or beyond.
///
/// # Errors
///
/// If a chart cannot be drawn.
pub(crate) fn line_panels(panels: &[LinePanel], x_label: &str) -> Result<String> {
    svg((PANEL.0 * panels.len() as u32, PANEL.1), |area| {
        for (panel, area) in panels.iter().zip(area.split_evenly((1, panels.len()))) {
            draw(panel, x_label, &area)?;
        }
        Ok(())
    })
}

fn draw(panel: &LinePanel, x_label: &str, area: &Area<'_>) -> Result<()> {
    let points = || panel.series.iter().flat_map(|(_, points)| points);
    let xs = range(points().map(|(x, _)| *x));
    let ys = range(points().map(|(_, y)| *y).chain([0.0, 1.0]));
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, (FONT, TEXT + 2))
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(40)
        .build_cartesian_2d(xs, ys)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc(x_label)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.1}"))
        .label_style((FONT, TEXT - 2))
        .draw()?;
    for ((name, points), colour) in panel.series.iter().zip(COLOURS.iter().cycle()) {
        let dots = points.iter().map(|point| Circle::new(*point, 3, colour.filled()));
        chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?;
        let dots = chart.draw_series(dots)?;
        dots.label(name).legend(|(x, y)| Circle::new((x + 10, y), 4, colour.filled()));
    }
    chart
        .configure_series_labels()
        .label_font((FONT, TEXT - 2))
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.2))
        .position(SeriesLabelPosition::LowerRight)
        .draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_drawn_and_every_line_named() {
        let line = |name: &str, n: usize| {
            (name.to_owned(), (0..n).map(|k| (k as f64, 0.1 * k as f64)).collect())
        };
        let panel =
            LinePanel { title: "cosine".to_owned(), series: vec![line("a", 3), line("b", 2)] };
        let text = line_panels(&[panel], "layer").unwrap();
        // Each line has a circle more in the legend.
        assert_eq!(text.matches("<circle").count(), 3 + 2 + 2);
        assert!(text.matches("<polyline").count() >= 2);
        for word in ["cosine", "layer", "a", "b"] {
            assert!(text.lines().any(|line| line.trim() == word), "{word}");
        }
    }
}
