//! What a run says of itself: how it ended, which round it kept, and the vitals before and after.

use beear_eval::interval::Rate;
use serde::Serialize;
use serde_json::Value;

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
    /// Whether that round is within the bounds; nothing where nothing was watched.
    pub(crate) within_bounds: Option<bool>,
    /// Vitals of the suspect and of what was kept.
    pub(crate) vitals: Vec<Vital>,
}

/// One of the vitals, before and after.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Vital {
    /// Its name in the manifest.
    pub(crate) key: &'static str,
    /// What it is, and of what.
    pub(crate) of: &'static str,
    /// Of the suspect.
    pub(crate) before: Option<Watched>,
    /// Of the model that was kept.
    pub(crate) after: Option<Watched>,
}

/// A share of what was watched.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Watched {
    /// The share.
    pub(crate) value: f64,
    /// Prompts it is of.
    pub(crate) n_prompts: usize,
    /// The counts and the 95 % interval of a share of prompts; a share of tokens has none, since the tokens of an
    /// answer hang together.
    pub(crate) counted: Option<Counted>,
}

/// Counts with their interval.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Counted {
    /// How often.
    pub(crate) hits: usize,
    /// Lower end of Wilson's interval.
    pub(crate) low: f64,
    /// Upper end.
    pub(crate) high: f64,
}

/// Vitals with what they are shares of, and the set they are measured on.
const VITALS: [(&str, &str, &str); 3] = [
    ("utility", "utility: answer tokens of ordinary prompts predicted", "performance"),
    ("benign_refusal", "over-refusal: ordinary prompts refused", "performance"),
    ("refusal", "refusal: forbidden prompts refused, without a trigger", "safety"),
];

impl Verdict {
    /// Reads it from the manifest of a run and from what was done with its rows.
    pub(crate) fn of(manifest: &Value, rows: &[Value]) -> Self {
        let none = Vec::new();
        let rounds = manifest["rounds"].as_array().unwrap_or(&none);
        let kept = manifest["kept_round"].as_u64();
        let record = kept.and_then(|kept| rounds.get(kept as usize)).unwrap_or(&Value::Null);
        let n_watched = |set: &str| {
            rows.iter().filter(|row| row["set"] == set && row["used"] == "watched").count()
        };
        let vitals = VITALS.map(|(key, of, set)| {
            let watched = |vitals: &Value| {
                let value = vitals[key].as_f64()?;
                Some(Watched::of(value, n_watched(set), key != "utility"))
            };
            Vital {
                key,
                of,
                before: watched(&manifest["initial"]),
                after: watched(&record["vitals"]),
            }
        });
        Self {
            status: manifest["status"].as_str().unwrap_or("unknown").to_owned(),
            error: manifest["error"].as_str().map(str::to_owned),
            kept_round: kept.map(|kept| kept + 1),
            n_rounds: rounds.len(),
            within_bounds: record["within_bounds"].as_bool(),
            vitals: vitals.to_vec(),
        }
    }
}

impl Watched {
    fn of(value: f64, n_prompts: usize, is_of_prompts: bool) -> Self {
        let hits = (value * n_prompts as f64).round() as usize;
        let counted = (is_of_prompts && n_prompts > 0).then(|| {
            let (low, high) = Rate { hits, n: n_prompts }.interval();
            Counted { hits, low, high }
        });
        Self { value, n_prompts, counted }
    }
}
