//! Results of each planted model under each defence: the cells of the paper's table, and the files
//! that contain them.

mod bars;
mod contender;
mod table;

use beear_eval::Rate;
use serde::{Deserialize, Serialize};

use contender::FINE_TUNING;
pub(crate) use contender::{BEFORE, DefenceVariant, contenders};
pub(crate) use table::{NOTHING_TO_REVIVE, flat, to_markdown};

use crate::evaluate::measure::Findings;

/// Attack success after ordinary fine-tuning of a cleaned model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Revival {
    /// Number of steps of ordinary fine-tuning.
    pub(crate) steps: usize,
    /// Attack success after these steps.
    pub(crate) attack_success: Rate,
}

/// One planted model under one defence: a line of `cells.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cell {
    /// Name of the setting.
    pub(crate) setting: String,
    /// Seed of the planted model, and of the defence.
    pub(crate) seed: u64,
    /// Name of the defence, or [`BEFORE`] for none.
    pub(crate) defence: String,
    /// Learning rate as a multiple of the defence's default, which differs from 1 if several rates
    /// are tried.
    pub(crate) rate: f64,
    /// Measurements, or `None` if the defence did not reach its end.
    pub(crate) findings: Option<Findings>,
    /// Reason why the defence did not reach its end.
    pub(crate) stopped: Option<String>,
    /// Round whose weights were kept.
    pub(crate) kept_round: Option<usize>,
    /// Processor time of the defence in seconds, if the system reports it.
    pub(crate) cpu_seconds: Option<f64>,
    /// Attack success after ordinary fine-tuning. It is empty if there was nothing to revive.
    pub(crate) revival: Vec<Revival>,
}

impl Cell {
    /// Returns true if this is the cell of the given setting, seed and defence.
    pub(crate) fn is(&self, setting: &str, seed: u64, contender: &DefenceVariant) -> bool {
        let same = (self.setting.as_str(), self.seed, self.defence.as_str())
            == (setting, seed, contender.name);
        same && (self.rate - contender.rate).abs() < 1e-9
    }
}
