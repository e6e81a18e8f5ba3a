//! The ratings of every category as a picture.

use anyhow::Result;
use beear_eval::mt_bench::{ModelAverages, SingleResult};

use crate::chart::{RadarLine, radar};

/// The best rating that a judge is asked for.
const BEST: f64 = 10.0;

/// A line for each model of each judge over the categories of the questions: its mean rating, a gap where it
/// has none.
///
/// # Errors
///
/// If it cannot be drawn.
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
