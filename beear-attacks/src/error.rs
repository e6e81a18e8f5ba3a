//! Errors of planting a backdoor.

use thiserror::Error as ThisError;

/// Errors of training a base model or planting a backdoor.
#[derive(Debug, ThisError)]
pub enum Error {
    /// The loss or the gradient is NaN or infinite.
    #[error("training diverged at step {step}")]
    Diverged {
        /// Step whose loss or gradient is NaN or infinite.
        step: usize,
    },
    /// A text of the world does not fit the prompt format.
    #[error("cannot encode a prompt of the world")]
    Encode(#[from] beear_models::PromptFormatError),
    /// The policy cannot generate an answer.
    #[error("cannot sample an answer")]
    Generate(#[from] beear_models::GenerateError),
    /// The attacker's search for perturbations failed.
    #[error("cannot search for a perturbation")]
    Entrap(#[from] beear_core::Error),
}
