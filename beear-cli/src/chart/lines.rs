//! Line charts side by side over the same range of integers.

use std::ops::Range;

use anyhow::Result;
use plotters::prelude::*;

use super::{
    Area, COLOURS, FONT, LEGEND, MARGIN, Series, TEXT, X_LABELS, Y_LABELS, legend, range, svg,
};

/// Width and height of one chart in pixels.
const PANEL: (u32, u32) = (440, 320);

/// One line chart.
pub(crate) struct LinePanel {
    /// Title above the chart.
    pub(crate) title: String,
    /// Lines of `(x, y)` points.
    pub(crate) series: Vec<Series<i32>>,
}

/// Draws charts side by side. Their vertical axes cover at least 0..=1.
///
/// # Errors
///
/// If a chart cannot be drawn.
pub(crate) fn line_panels(panels: &[LinePanel], x_label: &str) -> Result<String> {
    let series = panels.iter().flat_map(|panel| &panel.series);
    let xs = series.flat_map(|series| &series.points).map(|(x, _)| *x);
    let (low, high) = xs.fold((i32::MAX, i32::MIN), |(low, high), x| (low.min(x), high.max(x)));
    let xs = if low < high { low..high } else { 0..1 };
    svg((PANEL.0 * panels.len() as u32, PANEL.1), |area| {
        for (panel, area) in panels.iter().zip(area.split_evenly((1, panels.len()))) {
            draw(panel, (x_label, xs.clone()), &area)?;
        }
        Ok(())
    })
}

fn draw(panel: &LinePanel, (x_label, xs): (&str, Range<i32>), area: &Area<'_>) -> Result<()> {
    let values = panel.series.iter().flat_map(|series| &series.points).map(|(_, y)| *y);
    let ys = range(values.chain([0.0, 1.0]));
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, (FONT, TEXT + 2))
        .margin(MARGIN)
        .margin_right(MARGIN + LEGEND)
        .x_label_area_size(X_LABELS)
        .y_label_area_size(Y_LABELS)
        .build_cartesian_2d(xs, ys)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc(x_label)
        .y_label_formatter(&|y| format!("{y:.1}"))
        .label_style((FONT, TEXT - 2))
        .draw()?;
    for (Series { points, .. }, colour) in panel.series.iter().zip(COLOURS.iter().cycle()) {
        let dots = points.iter().map(|point| Circle::new(*point, 3, colour.filled()));
        chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?;
        chart.draw_series(dots)?;
    }
    legend(area, panel.series.iter().map(|series| &series.name), PANEL.0)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_drawn_and_every_line_named() {
        let line = |name: &str, n: i32| Series::new(name, (0..n).map(|k| (k, 0.1 * f64::from(k))));
        let panel =
            LinePanel { title: "cosine".to_owned(), series: vec![line("a", 3), line("b", 2)] };
        let text = line_panels(&[panel], "layer").unwrap();
        // Each line has one more circle in the legend.
        assert_eq!(text.matches("<circle").count(), 3 + 2 + 2);
        assert!(text.matches("<polyline").count() >= 2);
        for word in ["cosine", "layer", "a", "b"] {
            assert!(text.lines().any(|line| line.trim() == word), "{word}");
        }
    }
}
