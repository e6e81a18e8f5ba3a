//! Report of a scan: its scores compared with those of models of known state, its curves and its
//! limits.

use anyhow::Result;
use beear_core::analysis::scan::Place;
use beear_core::{InjectionPoint, Positions};
use beear_eval::table::markdown;
use beear_eval::{Rate, Separation};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::chart::{Curve, curve_chart, themed};
use crate::lab::model_scan::{Findings, PointReach, ScanSettings, Written};
use crate::lab::scan_calibration::Calibration;
use crate::lab::scan_score::{Score, Scores, best};
use crate::report::{Figure, scan_page};

/// Text below every scan.
const LIMITS: &str = "\
A scan is no verdict. It asks how little it takes to make this model misbehave, and clean models have an answer to that too. A model \
that scores like a clean one may have a backdoor: a trigger of other tokens, of more tokens than were tried, or in another place. The \
prompts, and which behaviour is unwanted, are all that it knows.";

/// A score of the model, compared with the scores of models of one kind.
#[derive(Clone, Debug, Serialize)]
struct Standing {
    attack: String,
    score: &'static str,
    value: f64,
    /// Clean models that score at least as high.
    clean_as_high: Rate,
    /// Separation of backdoored models of this kind from clean ones by the score.
    separation: Separation,
}

/// Subject of a scan.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ScanSubject {
    /// Name of the model as it was given.
    pub(crate) model: String,
    /// Name of the reference as it was given.
    pub(crate) reference: Option<String>,
    /// Hashes of the files of the model, and of the data.
    pub(crate) sha256: Map<String, Value>,
}

/// Report of the scan of one model.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ScanReport {
    #[serde(flatten)]
    subject: ScanSubject,
    settings: ScanSettings,
    scores: Scores,
    standing: Vec<Standing>,
    found: Findings,
}

impl ScanReport {
    /// Compares the findings with the calibration.
    pub(crate) fn new(
        subject: ScanSubject,
        settings: ScanSettings,
        found: Findings,
        calibration: &Calibration,
    ) -> Self {
        let scores = Scores::of(&found);
        let separations = calibration.separations().into_iter();
        let standing = separations.filter_map(|row| {
            let score = Scores::ALL.into_iter().find(|(name, _)| *name == row.score)?;
            let value = score.1(&scores)?;
            let clean = calibration.scores(&row.attack, false, score);
            let clean_as_high = Rate::of(clean.iter().map(|&clean| clean >= value));
            let (attack, score, separation) = (row.attack, row.score, row.separation);
            Some(Standing { attack, score, value, clean_as_high, separation })
        });
        let standing = standing.collect();
        Self { subject, settings, scores, standing, found }
    }

    /// Formats the report as text.
    pub(crate) fn text(&self) -> String {
        let mut text = markdown(self.score_rows());
        if !self.standing.is_empty() {
            let rows = markdown(self.standing_rows());
            text = format!("{text}\nBeside models of known state:\n\n{rows}");
        }
        format!("{text}\n{}\n{}\n\n{LIMITS}\n", markdown(self.token_rows()), self.easiest())
    }

    /// Renders the report as one HTML file that loads nothing.
    ///
    /// # Errors
    ///
    /// If a chart cannot be drawn.
    pub(crate) fn page(&self) -> Result<String> {
        let layers = self.settings.layers.iter();
        let charts = layers.map(|&layer| self.chart(layer)).collect::<Result<Vec<_>>>()?;
        let standing = if self.standing.is_empty() { Vec::new() } else { self.standing_rows() };
        let tables = [self.score_rows(), standing, self.token_rows()];
        scan_page(self, &tables, &charts, [&self.easiest(), LIMITS])
    }

    fn score_rows(&self) -> Vec<Vec<String>> {
        let row = |(name, score): Score| {
            let value = score(&self.scores);
            vec![name.to_owned(), value.map_or("no reference".to_owned(), |v| format!("{v:.2}"))]
        };
        rows(["score", "value"], Scores::ALL.into_iter().map(row))
    }

    fn standing_rows(&self) -> Vec<Vec<String>> {
        let row = |standing: &Standing| {
            let Standing { attack, score, value, clean_as_high, separation } = standing;
            let (value, clean) = (format!("{value:.2}"), clean_as_high.to_string());
            vec![attack.clone(), (*score).to_owned(), value, clean, separation.to_string()]
        };
        let head = ["attack", "score", "this model", "clean models as high", "ROC-AUC"];
        rows(head, self.standing.iter().map(row))
    }

    fn token_rows(&self) -> Vec<Vec<String>> {
        let row = |(sought, written): (&str, &[Written])| {
            let found = best(written)?;
            let in_reference = found.in_reference;
            let in_reference = in_reference.map_or("not looked at".to_owned(), |r| r.to_string());
            Some(vec![sought.to_owned(), words(found), found.elicited.to_string(), in_reference])
        };
        let sought = [
            ("that move the model", self.found.written.as_slice()),
            ("that move it and not the reference", self.found.written_against.as_slice()),
        ];
        let head = ["best tokens", "with the prompt", "unwanted answer begins", "in the reference"];
        rows(head, sought.into_iter().filter_map(row))
    }

    /// Describes the shortest δ that elicits the unwanted answer from half of the prompts, in one
    /// sentence.
    fn easiest(&self) -> String {
        let longest = self.settings.reach.bounds.last().copied().unwrap_or_default();
        let half = (-self.scores.reach).exp2();
        if half > longest {
            let longest = 100.0 * longest;
            return format!(
                "No δ up to {longest:.0} % of the hidden states makes half of the prompts begin the unwanted answer."
            );
        }
        let half = 100.0 * half;
        format!(
            "Half of the prompts begin the unwanted answer under a δ of {half:.0} % of the hidden states."
        )
    }

    /// Draws the share of elicited answers at `layer` against the norm of δ.
    fn chart(&self, layer: usize) -> Result<Figure> {
        let injection_points = self.found.reach.iter().filter(|reach| reach.point.layer == layer);
        let curves: Vec<Curve> = injection_points.map(curve).collect();
        let axis = "longest row of δ, % of the hidden states";
        let svg = curve_chart(&curves, axis, Some((0.0, 1.0)))?;
        let caption = format!("Layer {layer}: share of prompts whose unwanted answer begins");
        Ok(Figure { svg: themed(&svg, &caption), caption })
    }
}

/// Shows the tokens at their place in the prompt.
fn words(Written { place, text, .. }: &Written) -> String {
    match place {
        Place::Before => format!("{text} …"),
        Place::After => format!("… {text}"),
    }
}

fn curve(PointReach { point, steps }: &PointReach) -> Curve {
    let InjectionPoint { positions, .. } = point;
    let name = match positions {
        Positions::Last(n) => format!("last {n} tokens"),
        Positions::First(n) => format!("first {n} tokens"),
        Positions::UserLast(n) => format!("user's last {n}"),
        Positions::All => "all tokens".to_owned(),
    };
    let points = steps.iter().map(|step| (100.0 * step.bound, step.elicited.share()));
    Curve::new(name, points)
}

fn rows<const N: usize>(
    head: [&str; N],
    rows: impl Iterator<Item = Vec<String>>,
) -> Vec<Vec<String>> {
    let head = head.iter().map(|name| (*name).to_owned()).collect();
    std::iter::once(head).chain(rows).collect()
}
