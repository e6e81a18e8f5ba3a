//! Errors of the method: invalid input, and NaN or infinite numbers.

mod suspect_fault;

pub use suspect_fault::SuspectFault;

use thiserror::Error;

/// Quantity that is NaN or infinite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// Loss of a step.
    Loss,
    /// Gradient of a step.
    Gradient,
    /// Perturbation `δ`.
    Delta,
    /// Weights of the model.
    Weights,
}

impl std::fmt::Display for Quantity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Loss => "loss",
            Self::Gradient => "gradient",
            Self::Delta => "delta",
            Self::Weights => "weights",
        })
    }
}

/// One of the two levels of the method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Inner level, entrapment: fits `δ`.
    Inner,
    /// Outer level, removal: trains the weights.
    Outer,
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Inner => "inner",
            Self::Outer => "outer",
        })
    }
}

/// Describes the examples of a batch, set by set.
fn on(safety: &[u64], performance: &[u64]) -> String {
    let sets = [("safety", safety), ("performance", performance)];
    let named = sets.iter().filter(|(_, ids)| !ids.is_empty());
    let texts: Vec<String> = named.map(|(set, ids)| format!(", {set} examples {ids:?}")).collect();
    texts.concat()
}

/// Reason for which the method cannot start or continue.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Error {
    /// A set of examples has no rows.
    #[error("the {set} set is empty")]
    EmptySet {
        /// Name of the set: `safety` or `performance`.
        set: &'static str,
    },
    /// A prompt or an answer has no tokens.
    #[error("example {id} has an empty {part}")]
    EmptyPart {
        /// Identifier of the example.
        id: u64,
        /// Name of the part: `prompt`, `safe answer`, `unwanted answer` or `answer`.
        part: &'static str,
    },
    /// A layer boundary does not exist in this decoder.
    #[error("layer {layer} is outside 1..={n_layers}")]
    LayerOutOfRange {
        /// Boundary that was requested.
        layer: usize,
        /// Number of layers of the decoder.
        n_layers: usize,
    },
    /// Values of a config are out of range or contradict each other.
    #[error("invalid config: {}", problems.join("; "))]
    InvalidConfig {
        /// List of all problems found, not only the first.
        problems: Vec<String>,
    },
    /// A number is NaN or infinite. Nothing is set to zero, and the step is not applied.
    #[error("non-finite {quantity} at step {step} of the {level} level{}", on(safety, performance))]
    NonFinite {
        /// Quantity that is NaN or infinite.
        quantity: Quantity,
        /// Level of the step.
        level: Level,
        /// Index of the step, from 0: within the perturbation in the inner level, within the run in
        /// the outer level.
        step: usize,
        /// Identifiers of the safety examples of the batch.
        safety: Vec<u64>,
        /// Identifiers of the performance examples of the batch.
        performance: Vec<u64>,
    },
    /// The logits of one row are NaN or infinite before any step on the row.
    #[error("row {id}: the model's logits are NaN or infinite")]
    NonFiniteLogits {
        /// Identifier of the example.
        id: u64,
    },
    /// The validator cannot measure a model.
    #[error("the validator failed: {reason}")]
    ValidatorFailed {
        /// Message of the validator.
        reason: String,
    },
    /// A rank cannot sum with the other ranks, because one of them has panicked or lost its device.
    #[error("another worker has stopped: {reason}")]
    WorkerLost {
        /// Message of the collective operation.
        reason: String,
    },
    /// The observer has ended the run; the snapshot that it received is the only state left.
    #[error("stopped before the end")]
    Interrupted,
    /// The suspect cannot read its rows, or does not behave as the rows expect, so no measurement
    /// on it would be meaningful.
    #[error("{fault}")]
    UnfitSuspect {
        /// Fault of the suspect.
        fault: SuspectFault,
    },
    /// A saved state does not belong to the run that should resume from it.
    #[error("not the state of this run: {reason}")]
    MalformedSnapshot {
        /// Description of the mismatch.
        reason: String,
    },
    /// Stored perturbations cannot be read.
    #[error("not a file of perturbations: {reason}")]
    MalformedPerturbation {
        /// Description of the fault.
        reason: String,
    },
}
