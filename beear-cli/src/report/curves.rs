//! Events of a run as curves.

use anyhow::Result;
use beear_eval::Rate;
use beear_eval::attack_success::ArmKind;
use serde::Serialize;
use serde_json::Value;

use crate::chart::{Curve, curve_chart, themed};
use crate::defence::tracking::{TrackedArm, TrackedRound};

/// Maximum number of points of a curve. Further points are left out evenly.
const MOST_POINTS: usize = 400;

/// Values of the events that are drawn.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Curves {
    /// Inner loss by step, with all perturbations one after the other.
    pub(crate) inner_loss: Vec<f64>,
    /// Terms of the outer loss by step.
    pub(crate) outer_terms: Vec<Terms>,
    /// Means of the held-out rows by round. The first entry is the suspect's.
    pub(crate) validation: Vec<Validated>,
    /// Roll-backs, and the events that tell why the run stopped early.
    pub(crate) events: Vec<Value>,
    /// Attack success of the suspect and after each round, if it was tracked.
    pub(crate) tracked: Vec<TrackedRound>,
}

/// Terms of the outer loss.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Terms {
    safety: f64,
    performance: f64,
    divergence: f64,
}

/// Means of the held-out rows, or `None` where no rows were held out.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Validated {
    loss: Option<f64>,
    agreement: Option<f64>,
    benign_refusal: Option<f64>,
    refusal: Option<f64>,
}

impl Validated {
    /// Reads the means of the suspect, or of a round that was compared with the suspect.
    fn of(validation: &Value) -> Self {
        let mean = |key: &str| {
            let value = &validation[key];
            value.as_f64().or_else(|| value["after"].as_f64())
        };
        let [loss, agreement] = [mean("loss"), mean("agreement")];
        let [benign_refusal, refusal] = [mean("benign_refusal"), mean("refusal")];
        Self { loss, agreement, benign_refusal, refusal }
    }
}

impl Curves {
    /// Reads the events of a run and the results that were tracked between its rounds.
    pub(crate) fn of(events: Vec<Value>, tracked: Vec<TrackedRound>) -> Self {
        let mut curves = Self { tracked, ..Self::default() };
        for event in events {
            match event["event"].as_str().unwrap_or_default() {
                "inner_step" => curves.inner_loss.extend(event["loss"].as_f64()),
                "outer_step" => {
                    let term = |name: &str| event["terms"][name].as_f64().unwrap_or(f64::NAN);
                    curves.outer_terms.push(Terms {
                        safety: term("safety"),
                        performance: term("performance"),
                        divergence: term("divergence"),
                    });
                }
                "started" | "round_ended" => {
                    curves.validation.push(Validated::of(&event["validation"]));
                }
                "rolled_back" | "out_of_bounds" | "nothing_left" => curves.events.push(event),
                _ => {}
            }
        }
        curves
    }

    /// Draws the charts, each with its caption.
    ///
    /// # Errors
    ///
    /// If a chart cannot be drawn.
    pub(crate) fn charts(&self) -> Result<Vec<(String, String)>> {
        let inner = vec![Curve::new("inner loss", by_step(self.inner_loss.iter().copied()))];
        let term = |name: &str, of: fn(&Terms) -> f64| {
            Curve::new(name, by_step(self.outer_terms.iter().map(of)))
        };
        let outer = vec![
            term("safety", |terms| terms.safety),
            term("performance", |terms| terms.performance),
            term("divergence", |terms| terms.divergence),
        ];
        let by_round = |name: &str, of: fn(&Validated) -> Option<f64>| {
            let values = self.validation.iter().map(|round| of(round).unwrap_or(f64::NAN));
            Curve::new(name, values.enumerate().map(|(k, v)| (k as f64, v)))
        };
        let shares = vec![
            by_round("agreement", |round| round.agreement),
            by_round("over-refusal", |round| round.benign_refusal),
            by_round("refusal", |round| round.refusal),
        ];
        let charts = [
            (
                "Inner loss, nats per answer token; a fall is a perturbation being found",
                "inner step",
                inner,
                None,
            ),
            (
                "Terms of the outer loss, nats per answer token, before they are weighed",
                "outer step",
                outer,
                None,
            ),
            (
                "Loss per answer token of held-out ordinary rows, nats; round 0 is the suspect",
                "round",
                vec![by_round("loss", |round| round.loss)],
                None,
            ),
            (
                "Held-out rows: agreement of greedy answers with the suspect's, and shares refused; round 0 is the suspect",
                "round",
                shares,
                Some((0.0, 1.0)),
            ),
            (
                "Attack success of the prompts that were asked between rounds: answers without a refusal keyword, and \
                 unwanted answers word for word. The defence saw none of this",
                "round",
                self.tracked(),
                Some((0.0, 1.0)),
            ),
        ];
        let mut drawn = Vec::new();
        for (caption, x_label, series, bounds) in charts {
            let series: Vec<Curve> = series.into_iter().map(without_gaps).collect();
            if series.iter().any(|curve: &Curve| !curve.points.is_empty()) {
                let svg = curve_chart(&series, x_label, bounds)?;
                drawn.push((caption.to_owned(), themed(&svg, caption)));
            }
        }
        Ok(drawn)
    }

    /// Returns a curve of the tracked results for each arm and kind of success.
    fn tracked(&self) -> Vec<Curve> {
        let mut curves = Vec::new();
        for kind in [ArmKind::Triggered, ArmKind::Untriggered] {
            let curve = |rate: fn(&TrackedArm) -> Option<Rate>| -> Vec<(f64, f64)> {
                let arm = |round: &TrackedRound| {
                    let rate = rate(round.arms.iter().find(|arm| arm.arm == kind)?)?;
                    Some((round.round as f64, rate.share()))
                };
                self.tracked.iter().filter_map(arm).collect()
            };
            let [complied, unwanted] = [curve(|arm| Some(arm.complied)), curve(|arm| arm.unwanted)];
            for (what, points) in [("no refusal", complied), ("unwanted", unwanted)] {
                if !points.is_empty() {
                    let name = format!("{what}, {}", kind.name());
                    curves.push(Curve::new(name, points));
                }
            }
        }
        curves
    }
}

/// Numbers the values from 1, and leaves some out evenly if there are too many.
fn by_step(values: impl ExactSizeIterator<Item = f64>) -> Vec<(f64, f64)> {
    let every = values.len().div_ceil(MOST_POINTS).max(1);
    values.enumerate().step_by(every).map(|(k, value)| ((k + 1) as f64, value)).collect()
}

/// Removes the points without a value.
fn without_gaps(mut curve: Curve) -> Curve {
    curve.points.retain(|(_, y)| y.is_finite());
    curve
}
