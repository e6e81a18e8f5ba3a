//! Radar chart of the ratings by category.

use anyhow::Result;
use beear_eval::mt_bench::{ModelAverages, SingleResult};

use crate::chart::{RadarLine, radar};

/// Best rating that a judge can give.
const BEST: f64 = 10.0;

/// Draws the mean ratings over the categories of the questions, with one line for each model of
/// each judge. A line has a gap where it has no rating.
///
/// # Errors
///
/// If the chart cannot be drawn.
pub(crate) fn rating_radar(result: &SingleResult) -> Result<String> {
    let models = result.judges.iter().flat_map(|judge| {
        let named = |of: &ModelAverages| match result.judges.len() {
            1 => of.model.clone(),
            _ => format!("{}, {}", of.model, judge.judge),
        };
        judge.models.iter().map(move |of| (named(of), of)).collect::<Vec<_>>()
    });
    let models: Vec<(String, &ModelAverages)> = models.collect();
    let axes: Vec<String> =
        models.first().map_or_else(Vec::new, |(_, of)| of.categories.keys().cloned().collect());
    let line = |(name, of): (String, &ModelAverages)| {
        let values = axes.iter().map(|axis| of.categories.get(axis)?.all.mean).collect();
        RadarLine { name, values }
    };
    let lines: Vec<RadarLine> = models.into_iter().map(line).collect();
    radar("mean rating by category", (&axes, BEST), &lines)
}
