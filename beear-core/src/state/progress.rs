//! The numbers of a run between two steps: plain data, stored exactly.

use serde::{Deserialize, Serialize};

use crate::batch::sampler::AnchorSampler;
use crate::perturbation::InjectionPoint;
use crate::validation::{Assessment, ValidationMetrics};

/// Numbers of a run in progress.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Progress(pub(crate) RunNumbers);

impl Progress {
    /// Returns the number of steps of either level so far; a step on perturbations that are
    /// searched at the same time counts as one.
    #[must_use]
    pub fn n_steps(&self) -> usize {
        self.0.n_steps
    }

    /// Returns the number of complete rounds so far.
    #[must_use]
    pub fn n_rounds(&self) -> usize {
        self.0.rounds.len()
    }

    /// Returns the share of the config's learning rates at which steps are taken: 1 unless the
    /// rates were halved.
    #[must_use]
    pub fn rate_factor(&self) -> f64 {
        self.0.rate_factor
    }

    /// Halves the rates of all further steps of both levels.
    pub fn halve_rates(&mut self) {
        self.0.rate_factor /= 2.0;
        for delta in self.0.inner.iter_mut().flat_map(|inner| &mut inner.deltas) {
            delta.rows.learning_rate /= 2.0;
        }
    }
}

/// Record of one round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundRecord {
    /// Index of the round, from 0.
    pub round: usize,
    /// Injection points of each perturbation with its final inner loss, in nats per token.
    pub entrapments: Vec<(Vec<InjectionPoint>, f64)>,
    /// Comparison of the held-out rows after the round with those of the suspect.
    pub validation: Assessment,
    /// True if the round is within bounds.
    pub within_bounds: bool,
}

/// State of a run except the tensors.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RunNumbers {
    pub(crate) n_steps: usize,
    pub(crate) rate_factor: f64,
    pub(crate) initial: Option<ValidationMetrics>,
    pub(crate) rounds: Vec<RoundRecord>,
    /// Index and standing of the kept round.
    pub(crate) best: Option<(usize, Standing)>,
    pub(crate) found: Vec<FoundNumbers>,
    pub(crate) inner: Vec<InnerNumbers>,
    pub(crate) n_removed: usize,
    pub(crate) outer: OuterNumbers,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FoundNumbers {
    /// Number of perturbations of the run before this one.
    pub(crate) count: usize,
    /// Injection points of the `δ`s, in the order of their numbered tensors.
    pub(crate) injection_points: Vec<InjectionPoint>,
    pub(crate) first_loss: f64,
    pub(crate) last_loss: f64,
}

/// State of a search in progress.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct InnerNumbers {
    /// Number of perturbations of the run before this one.
    pub(crate) count: usize,
    /// Losses of the steps so far.
    pub(crate) losses: Vec<f64>,
    /// Numbers of each `δ`, in the order of the numbered tensors.
    pub(crate) deltas: Vec<DeltaNumbers>,
}

/// Numbers of the `δ` at one injection point.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DeltaNumbers {
    /// Injection point of the tensors with this number.
    pub(crate) point: InjectionPoint,
    pub(crate) rows: RowNumbers,
}

/// Numbers of the rows of a `δ` and of their optimiser.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RowNumbers {
    pub(crate) learning_rate: f64,
    pub(crate) longest_row: Option<f64>,
    /// Number of steps taken.
    pub(crate) time: usize,
}

/// Numbers of an outer level in progress.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct OuterNumbers {
    /// Number of steps taken.
    pub(crate) step: usize,
    pub(crate) rows: AnchorSampler,
    /// Numbers of the current attack; `None` for methods without an attack and between two attacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) attack: Option<AttackNumbers>,
}

/// Numbers of an attack in progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct AttackNumbers {
    /// Attacked rows, as indices in the safety set.
    pub(crate) rows: Vec<usize>,
    /// Perturbed layers, in the order of the attack's numbered tensors.
    pub(crate) layers: Vec<usize>,
}

/// Rank of a round for the choice of the best: out of bounds or not, then the excess of its
/// estimates over the bounds.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
pub(crate) struct Standing {
    pub(crate) is_out: bool,
    pub(crate) excess: f64,
}
