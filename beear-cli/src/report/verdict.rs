//! What a run says of itself: how it ended, which round it kept, and what the saved model lost.

use beear_core::Assessment;
use serde::Serialize;
use serde_json::Value;

use crate::defence::bounds_text::{Reading, readings};

/// How a run ended.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Verdict {
    /// `done`, `failed` or `running`.
    pub(crate) status: String,
    /// Why it failed.
    pub(crate) error: Option<String>,
    /// The round whose weights were kept, from 1.
    pub(crate) kept_round: Option<u64>,
    /// Rounds that were run.
    pub(crate) n_rounds: usize,
    /// Whether the saved model is within the bounds; nothing where no row was held out.
    pub(crate) within_bounds: Option<bool>,
    /// Every bound on the model that was read back from its folder.
    pub(crate) saved: Vec<Check>,
    /// Every bound on the weights before they were saved.
    pub(crate) in_memory: Vec<Check>,
}

/// A bound in words.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    /// Name of the measure, with its rows and unit.
    of: &'static str,
    before: f64,
    after: f64,
    /// The difference with its 95 % interval.
    change: String,
    /// The largest change for the worse.
    bound: f64,
    n_rows: usize,
    /// What the interval says of the bound.
    verdict: String,
}

impl Verdict {
    /// Reads it from the manifest of a run.
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
