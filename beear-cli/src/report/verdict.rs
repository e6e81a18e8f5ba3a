//! Outcome of a run: its status, the round it kept, and the losses of the saved model.

use beear_core::Assessment;
use serde::Serialize;
use serde_json::Value;

use crate::defence::bounds_text::{Reading, readings};

/// Outcome of a run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Verdict {
    /// `done`, `failed` or `running`.
    pub(crate) status: String,
    /// Error of a failed run.
    pub(crate) error: Option<String>,
    /// Number of the round whose weights were kept, counted from 1.
    pub(crate) kept_round: Option<u64>,
    /// Number of rounds.
    pub(crate) n_rounds: usize,
    /// True if the saved model is within the bounds. It is `None` if no row was held out.
    pub(crate) within_bounds: Option<bool>,
    /// Checks of the model that was read back from its folder.
    pub(crate) saved: Vec<Check>,
    /// Checks of the weights before they were saved.
    pub(crate) in_memory: Vec<Check>,
}

/// A check of a bound as text.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    /// Name of the measure, with its rows and unit.
    of: &'static str,
    before: f64,
    after: f64,
    /// Difference with its 95 % interval.
    change: String,
    /// Largest allowed change for the worse.
    bound: f64,
    n_rows: usize,
    /// Verdict on the bound from the interval.
    verdict: String,
}

impl Verdict {
    /// Reads the outcome from the manifest of a run.
    pub(crate) fn of(manifest: &Value) -> Self {
        let none = Vec::new();
        let rounds = manifest["rounds"].as_array().unwrap_or(&none);
        let kept = manifest["kept_round"].as_u64();
        let record = kept.and_then(|kept| rounds.get(kept as usize)).unwrap_or(&Value::Null);
        Self {
            status: manifest["status"].as_str().unwrap_or("unknown").to_owned(),
            error: manifest["error"].as_str().map(str::to_owned),
            kept_round: kept.map(|kept| kept + 1),
            n_rounds: rounds.len(),
            within_bounds: manifest["saved"]["within_bounds"].as_bool(),
            saved: checks(&manifest["saved"]["validation"]),
            in_memory: checks(&record["validation"]),
        }
    }
}

impl Check {
    fn of(reading: Reading<'_>) -> Self {
        let check = reading.check;
        Self {
            of: reading.long,
            before: check.before,
            after: check.after,
            change: reading.change(),
            bound: check.bound,
            n_rows: check.n_rows,
            verdict: reading.verdict(),
        }
    }
}

fn checks(validation: &Value) -> Vec<Check> {
    let assessment = serde_json::from_value::<Assessment>(validation.clone()).unwrap_or_default();
    readings(&assessment).map(Check::of).collect()
}
