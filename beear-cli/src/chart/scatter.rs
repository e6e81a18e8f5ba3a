//! Scatter charts of clouds of points in the plane.

use anyhow::Result;
use plotters::prelude::*;

use super::{
    Area, COLOURS, FONT, LEGEND, MARGIN, Series, TEXT, X_LABELS, Y_LABELS, legend, range, svg,
};

/// Width and height of one chart in pixels.
const PANEL: (u32, u32) = (500, 400);

/// Maximum number of charts in a row.
const N_COLUMNS: usize = 4;

/// One scatter chart.
pub(crate) struct ScatterPanel {
    /// Title above the chart.
    pub(crate) title: String,
    /// Labels of the horizontal and the vertical axis.
    pub(crate) axes: [String; 2],
    /// Clouds of `(x, y)` points.
    pub(crate) clouds: Vec<Series<f64>>,
}

/// Draws charts, each with its own scale.
///
/// # Errors
///
/// If a chart cannot be drawn.
pub(crate) fn scatter_panels(panels: &[ScatterPanel]) -> Result<String> {
    let n_columns = panels.len().clamp(1, N_COLUMNS);
    let n_rows = panels.len().div_ceil(n_columns).max(1);
    svg((PANEL.0 * n_columns as u32, PANEL.1 * n_rows as u32), |area| {
        for (panel, area) in panels.iter().zip(area.split_evenly((n_rows, n_columns))) {
            draw(panel, &area)?;
        }
        Ok(())
    })
}

fn draw(panel: &ScatterPanel, area: &Area<'_>) -> Result<()> {
    let points = || panel.clouds.iter().flat_map(|cloud| &cloud.points);
    let [x_label, y_label] = &panel.axes;
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, (FONT, TEXT + 2))
        .margin(MARGIN)
        .margin_right(MARGIN + LEGEND)
        .x_label_area_size(X_LABELS)
        .y_label_area_size(Y_LABELS)
        .build_cartesian_2d(range(points().map(|p| p.0)), range(points().map(|p| p.1)))?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc(x_label)
        .y_desc(y_label)
        .label_style((FONT, TEXT - 2))
        .draw()?;
    for (Series { points, .. }, colour) in panel.clouds.iter().zip(COLOURS.iter().cycle()) {
        let dots = points.iter().map(|point| Circle::new(*point, 3, colour.mix(0.6).filled()));
        chart.draw_series(dots)?;
    }
    legend(area, panel.clouds.iter().map(|cloud| &cloud.name), PANEL.0)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_of_every_panel_is_drawn() {
        let panel = |n: usize| ScatterPanel {
            title: format!("layer {n}"),
            axes: ["first".to_owned(), "second".to_owned()],
            clouds: vec![Series::new("clean", vec![(1.0, -2.0); n])],
        };
        let text = scatter_panels(&[panel(2), panel(3), panel(0)]).unwrap();
        assert_eq!(text.matches("<circle").count(), 2 + 3 + 3, "and three in legends");
        assert!(text.contains("layer 3"));
    }
}
