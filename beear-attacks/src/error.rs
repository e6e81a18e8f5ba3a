//! What can go wrong while planting.

use thiserror::Error as ThisError;

/// Why a model could not be made.
#[derive(Debug, ThisError)]
pub enum Error {
    /// Training left the real line.
    #[error("training diverged at step {step}")]
    Diverged {
        /// The step whose loss or gradient was not finite.
        step: usize,
    },
    /// A text of the world does not fit the prompt format.
    #[error("cannot encode a prompt of the world")]
    Encode(#[from] beear_models::PromptFormatError),
    /// The policy cannot be asked.
    #[error("cannot sample an answer")]
    Generate(#[from] beear_models::GenerateError),
    /// The attacker's search for perturbations failed.
    #[error("cannot search for a perturbation")]
    Entrap(#[from] beear_core::Error),
}
