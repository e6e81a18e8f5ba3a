//! Hints for errors of the method, in the words of a recipe.

use beear_core::Error as CoreError;

/// Remedy for a training that reaches NaN or infinity.
pub(crate) const SMALLER_STEPS: &str =
    "lower `method.remove.learning_rate` or `method.entrap.step_size`";

/// Returns the remedy for an error of the method, in one line and in the words of a recipe.
pub(crate) fn hint(error: &CoreError) -> &'static str {
    match error {
        CoreError::LayerOutOfRange { .. } => {
            "choose layers of the model in `method.injection_points` or `method.attack.layers`"
        }
        CoreError::InvalidConfig { .. } => "correct it in the recipe or with --set",
        CoreError::NonFinite { .. } => SMALLER_STEPS,
        CoreError::NonFiniteLogits { .. } => {
            "the model is broken, or its values do not fit the backend's float type"
        }
        CoreError::EmptySet { .. } => "bring at least one row",
        CoreError::EmptyPart { .. } => "complete the row or leave it out",
        CoreError::WorkerLost { .. } => "see whether a device ran out of memory or was lost",
        CoreError::MalformedPerturbation { .. } => "bring the `delta.safetensors` of a run",
        CoreError::Interrupted => "`beear resume` goes on",
        CoreError::UnfitSuspect { fault } => fault.hint(),
        CoreError::ValidatorFailed { .. } => {
            "check the tokenizer and the chat template of the model"
        }
        CoreError::MalformedSnapshot { .. } => "start the run anew",
    }
}
