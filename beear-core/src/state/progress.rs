//! The numbers of a run between two steps: plain data, stored exactly.

use serde::{Deserialize, Serialize};

use crate::batch::sampler::AnchorSampler;
use crate::perturbation::InjectionPoint;
use crate::validation::{Assessment, ValidationMetrics};

/// Numbers of a run under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Progress(pub(crate) RunNumbers);

impl Progress {
    /// Steps of either level so far; those of perturbations that are sought at the same time count as one.
    #[must_use]
    pub fn n_steps(&self) -> usize {
        self.0.n_steps
    }

    /// Whole rounds so far.
    #[must_use]
    pub fn n_rounds(&self) -> usize {
        self.0.rounds.len()
    }

    /// The share of the config's learning rates that steps are taken at: 1 unless they were halved.
    #[must_use]
    pub fn rate_factor(&self) -> f64 {
        self.0.rate_factor
    }

    /// Takes all further steps of both levels at half the rate.
    pub fn halve_rates(&mut self) {
        self.0.rate_factor /= 2.0;
        for delta in self.0.inner.iter_mut().flat_map(|inner| &mut inner.deltas) {
            delta.rows.learning_rate /= 2.0;
        }
    }
}

/// What one round did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundRecord {
    /// Round, from 0.
    pub round: usize,
    /// The injection points of each perturbation with the inner loss it ended at, nats per token.
    pub entrapments: Vec<(Vec<InjectionPoint>, f64)>,
    /// Held-out rows after the round against the suspect's.
    pub validation: Assessment,
    /// Whether the round is within bounds.
    pub within_bounds: bool,
}

/// Everything but the tensors.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RunNumbers {
    pub(crate) n_steps: usize,
    pub(crate) rate_factor: f64,
    pub(crate) initial: Option<ValidationMetrics>,
    pub(crate) rounds: Vec<RoundRecord>,
    /// The kept round.
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
    /// The injection points of its `δ`s, in the order that their tensors are numbered in.
    pub(crate) injection_points: Vec<InjectionPoint>,
    pub(crate) first_loss: f64,
    pub(crate) last_loss: f64,
}

/// A perturbation under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct InnerNumbers {
    /// Number of perturbations of the run before this one.
    pub(crate) count: usize,
    /// Losses of the steps so far.
    pub(crate) losses: Vec<f64>,
    /// The numbers of each `δ`, in the order that their tensors are numbered in.
    pub(crate) deltas: Vec<DeltaNumbers>,
}

/// The `δ` at one injection point.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DeltaNumbers {
    /// The place that the tensors of this number belong to.
    pub(crate) point: InjectionPoint,
    pub(crate) rows: RowNumbers,
}

/// Rows of a `δ`, and their optimiser.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RowNumbers {
    pub(crate) learning_rate: f64,
    pub(crate) longest_row: Option<f64>,
    /// Steps taken.
    pub(crate) time: usize,
}

/// Numbers of an outer level under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct OuterNumbers {
    /// Steps taken.
    pub(crate) step: usize,
    pub(crate) rows: AnchorSampler,
    /// The attack under way, of a rival that attacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) attack: Option<AttackNumbers>,
}

/// Numbers of an attack under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct AttackNumbers {
    /// The attacked rows, by their places in the safety set.
    pub(crate) rows: Vec<usize>,
    /// The perturbed layers, in the order that the attack's tensors are numbered in.
    pub(crate) layers: Vec<usize>,
}

/// How a round stands to the bounds: out of them or not, then how far its estimates are beyond them.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
pub(crate) struct Standing {
    pub(crate) is_out: bool,
    pub(crate) excess: f64,
}
