//! The mistakes a caller can make, and the numbers that cannot be continued from.

mod suspect_fault;

pub use suspect_fault::SuspectFault;

use thiserror::Error;

/// What turned out to be infinite or not a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// The loss of a step.
    Loss,
    /// A gradient of a step.
    Gradient,
    /// The perturbation `δ`.
    Delta,
    /// The weights of the model.
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

/// One of the two levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Entrapment: fits `δ`.
    Inner,
    /// Removal: trains the weights.
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

/// The examples of a batch, set by set.
fn on(safety: &[u64], performance: &[u64]) -> String {
    let sets = [("safety", safety), ("performance", performance)];
    let named = sets.iter().filter(|(_, ids)| !ids.is_empty());
    let texts: Vec<String> = named.map(|(set, ids)| format!(", {set} examples {ids:?}")).collect();
    texts.concat()
}

/// Why the method cannot start or go on.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Error {
    /// A set of examples has no rows.
    #[error("the {set} set is empty")]
    EmptySet {
        /// `safety` or `performance`.
        set: &'static str,
    },
    /// A prompt or an answer has no tokens.
    #[error("example {id} has an empty {part}")]
    EmptyPart {
        /// Identifier of the example.
        id: u64,
        /// `prompt`, `safe answer`, `unwanted answer` or `answer`.
        part: &'static str,
    },
    /// A layer boundary does not exist in this decoder.
    #[error("layer {layer} is outside 1..={n_layers}")]
    LayerOutOfRange {
        /// The boundary asked for.
        layer: usize,
        /// Number of layers of the decoder.
        n_layers: usize,
    },
    /// Values of a config contradict each other or their range.
    #[error("invalid config: {}", problems.join("; "))]
    InvalidConfig {
        /// Every problem found, not the first.
        problems: Vec<String>,
    },
    /// A number left the real line; nothing is zeroed, the step is not applied.
    #[error("non-finite {quantity} at step {step} of the {level} level{}", on(safety, performance))]
    NonFinite {
        /// What was not finite.
        quantity: Quantity,
        /// The level.
        level: Level,
        /// Step within the perturbation in the inner level, within the run in the outer, from 0.
        step: usize,
        /// Safety examples of the batch.
        safety: Vec<u64>,
        /// Performance examples of the batch.
        performance: Vec<u64>,
    },
    /// The logits of one row are NaN or infinite before any step is taken on it.
    #[error("row {id}: the model's logits are NaN or infinite")]
    NonFiniteLogits {
        /// Identifier of the example.
        id: u64,
    },
    /// The validator cannot measure a model.
    #[error("the validator failed: {reason}")]
    ValidatorFailed {
        /// What it said.
        reason: String,
    },
    /// A worker cannot sum with the others, of whom one has panicked or has lost its device.
    #[error("another worker has stopped: {reason}")]
    WorkerLost {
        /// What the collective operation says.
        reason: String,
    },
    /// The observer has ended the run; what it was given to go on from is all there is.
    #[error("stopped before the end")]
    Interrupted,
    /// The suspect cannot read its rows, or does not behave as they say: nothing measured on it would mean anything.
    #[error("{fault}")]
    UnfitSuspect {
        /// What is wrong with it.
        fault: SuspectFault,
    },
    /// What a run should go on from is not of such a run.
    #[error("not the state of this run: {reason}")]
    MalformedSnapshot {
        /// What is wrong with it.
        reason: String,
    },
    /// Stored perturbations cannot be read.
    #[error("not a file of perturbations: {reason}")]
    MalformedPerturbation {
        /// What is wrong with it.
        reason: String,
    },
}
