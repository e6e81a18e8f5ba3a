//! Drift of hidden states as tables and charts: the similarity of the drifts, the positions of the
//! states, and the comparison with a found `δ`.

use anyhow::Result;
use beear_core::analysis::drift::cosine;
use beear_core::analysis::hidden_states::States;
use beear_core::{Drift, Perturbation, Positions, PrincipalComponents};
use beear_eval::Trigger;
use beear_eval::table::markdown;
use burn::tensor::backend::Backend;
use serde::Serialize;

use crate::chart::{LinePanel, ScatterPanel, Series, line_panels, scatter_panels};
use crate::model::loaded::Prompts;
use crate::run_folder::RunFolder;

/// Name of the arm with the prompts as they are.
pub(crate) const CLEAN: &str = "clean";

/// Name of the arm with the trigger.
pub(crate) const TRIGGER: &str = "trigger";

/// Name of the arm with the control words.
pub(crate) const CONTROL: &str = "control";

/// Hidden states at the last token of the prompts in several arms, at every layer boundary.
pub(crate) struct Arms {
    /// Row ids of the prompts.
    pub(crate) ids: Vec<u64>,
    /// Prompts without additions.
    pub(crate) prompts: Prompts,
    /// States of these prompts, one entry per boundary.
    pub(crate) clean: Vec<States>,
    /// States of the changed prompts, by the name of the arm. The first arm is the trigger's.
    pub(crate) changed: Vec<(&'static str, Vec<States>)>,
}

/// [`beear_core::DriftStatistics`] of one boundary and arm, as a flat row.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DriftRow {
    layer: usize,
    arm: &'static str,
    n_pairs: usize,
    n_drifting: usize,
    uniformity: Option<f64>,
    cosine_to_mean: Option<f64>,
    first_component: Option<f64>,
    first_component_centred: Option<f64>,
    relative_norm: Option<f64>,
}

/// Returns the statistics of the drifts of every changed arm, from boundary 0 up.
pub(crate) fn drift_rows(arms: &Arms) -> Vec<DriftRow> {
    let at = |layer: usize| {
        arms.changed.iter().map(move |(arm, states)| {
            let found = Drift::between(&arms.clean[layer], &states[layer]).statistics();
            DriftRow {
                layer,
                arm,
                n_pairs: found.n_pairs,
                n_drifting: found.n_drifting,
                uniformity: found.uniformity,
                cosine_to_mean: found.cosine_to_mean,
                first_component: found.first_component,
                first_component_centred: found.first_component_centred,
                relative_norm: found.relative_norm,
            }
        })
    };
    (0..arms.clean.len()).flat_map(at).collect()
}

/// Formats the statistics as a table.
pub(crate) fn drift_table(rows: &[DriftRow]) -> String {
    let head = [
        "layer",
        "added",
        "drifting",
        "mean cosine",
        "to mean",
        "1st component",
        "centred",
        "drift / state",
    ];
    let line = |row: &DriftRow| {
        vec![
            row.layer.to_string(),
            row.arm.to_owned(),
            format!("{}/{}", row.n_drifting, row.n_pairs),
            number(row.uniformity),
            number(row.cosine_to_mean),
            number(row.first_component),
            number(row.first_component_centred),
            number(row.relative_norm),
        ]
    };
    let head = head.iter().map(|name| (*name).to_owned()).collect();
    markdown(std::iter::once(head).chain(rows.iter().map(line)).collect())
}

/// Draws the statistics as lines over the boundaries.
///
/// # Errors
///
/// If the chart cannot be drawn.
fn drift_chart(rows: &[DriftRow]) -> Result<String> {
    type Measure = fn(&DriftRow) -> Option<f64>;
    let measures: [(&str, Measure); 3] = [
        ("mean cosine of two drifts", |row| row.uniformity),
        ("first component of the drifts, uncentred", |row| row.first_component),
        ("drift norm / state norm", |row| row.relative_norm),
    ];
    let panel = |(title, measure): &(&str, Measure)| {
        let line = |arm: &str| -> Series<i32> {
            let of_arm = rows.iter().filter(|row| row.arm == arm);
            let points = of_arm.filter_map(|row| Some((row.layer as i32, measure(row)?)));
            Series::new(arm, points)
        };
        let series =
            [TRIGGER, CONTROL].map(line).into_iter().filter(|line| !line.points.is_empty());
        LinePanel { title: (*title).to_owned(), series: series.collect() }
    };
    line_panels(&measures.iter().map(panel).collect::<Vec<_>>(), "layer boundary")
}

/// One prompt in one arm, in the plane of the principal components.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Point {
    layer: usize,
    arm: &'static str,
    id: u64,
    first: f64,
    second: f64,
    /// Cosine of this prompt's drift to the mean drift of its arm.
    cosine_to_mean: Option<f64>,
}

/// States of one boundary in the plane in which the clean and the triggered states vary most.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Principal {
    layer: usize,
    /// Share of the variance of the clean and triggered states along each axis.
    shares: Vec<f64>,
    /// Points of every prompt in every arm.
    #[serde(skip)]
    pub(crate) points: Vec<Point>,
}

impl Principal {
    /// Fits the plane to the clean and the triggered states of boundary `layer`, and projects the
    /// states of the control words onto it.
    pub(crate) fn of(arms: &Arms, layer: usize) -> Self {
        let clean = &arms.clean[layer];
        let fitted = [clean.as_slice(), arms.changed[0].1[layer].as_slice()].concat();
        let components = PrincipalComponents::fit(&fitted, 2);
        let points = |arm: &'static str, states: &States, cosines: &[Option<f64>]| {
            let place = components.project(states).into_iter();
            let rows = arms.ids.iter().zip(place).zip(cosines);
            let rows = rows.map(|((&id, place), &cosine_to_mean)| Point {
                layer,
                arm,
                id,
                first: place[0],
                second: place[1],
                cosine_to_mean,
            });
            rows.collect::<Vec<_>>()
        };
        let mut all = points(CLEAN, clean, &vec![None; clean.len()]);
        for (arm, states) in &arms.changed {
            let cosines = Drift::between(clean, &states[layer]).cosines_to_mean();
            all.extend(points(arm, &states[layer], &cosines));
        }
        Self { layer, shares: components.shares, points: all }
    }
}

/// Draws the planes as clouds of points.
///
/// # Errors
///
/// If the chart cannot be drawn.
fn principal_chart(principal: &[Principal]) -> Result<String> {
    let panel = |plane: &Principal| {
        let cloud = |arm: &str| -> Series<f64> {
            let of_arm = plane.points.iter().filter(|point| point.arm == arm);
            let points = of_arm.map(|point| (point.first, point.second));
            Series::new(arm, points)
        };
        let clouds = [CLEAN, TRIGGER, CONTROL]
            .map(cloud)
            .into_iter()
            .filter(|cloud| !cloud.points.is_empty());
        let axis = |k: usize| format!("component {}: {:.1} %", k + 1, 100.0 * plane.shares[k]);
        ScatterPanel {
            title: format!("hidden states at layer boundary {}", plane.layer),
            axes: [axis(0), axis(1)],
            clouds: clouds.collect(),
        }
    };
    scatter_panels(&principal.iter().map(panel).collect::<Vec<_>>())
}

/// Drifts of one model.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DriftReport {
    /// Folder of the model, or the attack setting planted in it.
    pub(crate) model: String,
    pub(crate) n_prompts: usize,
    pub(crate) trigger: Trigger,
    pub(crate) control: Option<Trigger>,
    pub(crate) prompt_format_sha256: String,
    pub(crate) drift: Vec<DriftRow>,
    pub(crate) principal_components: Vec<Principal>,
    /// Comparison with perturbations, if there are any.
    pub(crate) delta: Option<Vec<DeltaRow>>,
}

impl DriftReport {
    /// Writes tables and charts into `folder`. `under` is the prefix of their names.
    ///
    /// # Errors
    ///
    /// If a chart cannot be drawn or a file cannot be written.
    pub(crate) fn write(&self, folder: &RunFolder, under: &str) -> Result<()> {
        let name = |file: &str| format!("{under}{file}");
        folder.write_csv(&name("drift.csv"), &self.drift)?;
        folder.write(&name("drift.svg"), drift_chart(&self.drift)?)?;
        let points: Vec<_> = self.principal_components.iter().flat_map(|p| &p.points).collect();
        folder.write_csv(&name("pca.csv"), &points)?;
        folder.write(&name("pca.svg"), principal_chart(&self.principal_components)?)
    }

    /// Returns the row of the arm `arm` at `layer`.
    fn at(&self, layer: usize, arm: &str) -> Option<&DriftRow> {
        self.drift.iter().find(|row| row.layer == layer && row.arm == arm)
    }
}

/// Formats several models as a table, one line per model, each at the boundary of its principal
/// components.
pub(crate) fn summary(reports: &[DriftReport]) -> String {
    let head = [
        "model",
        "layer",
        "mean cosine, trigger",
        "control",
        "1st component, trigger",
        "control",
        "drift / state, trigger",
        "control",
        "cos(δ, mean drift) by layer",
    ];
    let line = |report: &DriftReport| {
        let layer = report.principal_components.first().map_or(0, |plane| plane.layer);
        let both = |measure: fn(&DriftRow) -> Option<f64>| {
            [TRIGGER, CONTROL].map(|arm| number(report.at(layer, arm).and_then(measure)))
        };
        let cosines = report.delta.iter().flatten();
        let cosines = cosines.map(|row| format!("{}: {}", row.layer, number(row.cosine)));
        let mut cells = vec![report.model.clone(), layer.to_string()];
        cells.extend(both(|row| row.uniformity));
        cells.extend(both(|row| row.first_component));
        cells.extend(both(|row| row.relative_norm));
        cells.push(cosines.collect::<Vec<_>>().join(", "));
        cells
    };
    let head = head.iter().map(|name| (*name).to_owned()).collect();
    markdown(std::iter::once(head).chain(reports.iter().map(line)).collect())
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"))
}

/// A row of a `δ`, compared with the trigger's mean drift at its boundary.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DeltaRow {
    perturbation: usize,
    layer: usize,
    positions: Positions,
    row: usize,
    cosine: Option<f64>,
}

/// Compares every row of a `δ` that is added where the drift is measured: to the last token of
/// every prompt.
pub(crate) fn delta_rows<B: Backend>(
    perturbations: &[Perturbation<B>],
    arms: &Arms,
) -> Vec<DeltaRow> {
    let (_, triggered) = &arms.changed[0];
    let all = perturbations.iter().enumerate();
    let all = all.flat_map(|(k, perturbation)| perturbation.deltas().iter().map(move |d| (k, d)));
    all.filter_map(|(perturbation, delta)| {
        let (layer, positions) = (delta.point.layer, delta.point.positions);
        let row = row_at_the_end(positions, &arms.prompts)?;
        let [n_tokens, d_model] = delta.values.dims();
        assert_eq!(n_tokens, positions.n_tokens(), "values: [n_tokens, d_model]");
        let values: Vec<f64> = delta.values.to_data().iter::<f64>().collect();
        let values = &values[row * d_model..(row + 1) * d_model];
        let drift = Drift::between(&arms.clean[layer], &triggered[layer]);
        let cosine = cosine(values, drift.mean());
        Some(DeltaRow { perturbation, layer, positions, row, cosine })
    })
    .collect()
}

/// Returns the row that `positions` adds to the last token, if it is the same row for all prompts.
fn row_at_the_end(positions: Positions, prompts: &Prompts) -> Option<usize> {
    let mut rows = prompts.tokens.iter().zip(&prompts.users).map(|(tokens, &user)| {
        let placed = positions.placements(tokens.len(), user);
        placed.into_iter().find(|(position, _)| position + 1 == tokens.len()).map(|(_, row)| row)
    });
    let first = rows.next()??;
    rows.all(|row| row == Some(first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_compared_where_every_prompt_has_it_at_its_end() {
        // A template of one token before the user's words and one token after them.
        let of_user = |n: usize| (vec![0; n + 2], (1, n + 1));
        let (tokens, users) = [of_user(3), of_user(4)].into_iter().unzip();
        let prompts = Prompts { tokens, users };
        assert_eq!(row_at_the_end(Positions::Last(5), &prompts), Some(4));
        assert_eq!(row_at_the_end(Positions::All, &prompts), Some(0));
        assert_eq!(row_at_the_end(Positions::UserLast(2), &prompts), None);
        // These positions cover the last token of the first prompt only.
        assert_eq!(row_at_the_end(Positions::First(4), &prompts), None);
    }
}
