//! What became of each planted model under each defence: the cells of the paper's table, and the files
//! they are written to.

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
    /// Steps of ordinary fine-tuning.
    pub(crate) steps: usize,
    /// Attack success after them.
    pub(crate) attack_success: Rate,
}

/// One planted model under one defence: a line of `cells.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cell {
    /// Name of the setting.
    pub(crate) setting: String,
    /// Seed of the planted model, and of the defence.
    pub(crate) seed: u64,
    /// Name of the defence, [`BEFORE`] for none.
    pub(crate) defence: String,
    /// Its learning rate as a multiple of its default, where several are tried.
    pub(crate) rate: f64,
    /// What was measured; nothing if the defence did not get to its end.
    pub(crate) findings: Option<Findings>,
    /// Why it did not.
    pub(crate) stopped: Option<String>,
    /// The round that was kept.
    pub(crate) kept_round: Option<usize>,
    /// Processor time of the defence, where the system says.
    pub(crate) cpu_seconds: Option<f64>,
    /// Attack success after ordinary fine-tuning; empty where there was nothing to revive.
    pub(crate) revival: Vec<Revival>,
}

impl Cell {
    /// Whether it is the one asked for.
    pub(crate) fn is(&self, setting: &str, seed: u64, contender: &DefenceVariant) -> bool {
        let same = (self.setting.as_str(), self.seed, self.defence.as_str())
            == (setting, seed, contender.name);
        same && (self.rate - contender.rate).abs() < 1e-9
    }
}
