//! Exit codes, and what is printed when a command fails.

use std::process::ExitCode;

use beear_core::Error as CoreError;
use beear_eval::dataset::DatasetError;
use beear_models::{CheckpointError, GenerateError, PromptFormatError, TokenizerError};

use crate::backend::Unavailable;
use crate::recipe::RecipeError;

/// What `--help` says about exit codes.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  anything not below
  2  wrong arguments or recipe
  3  unusable input: model, data or prompt
  4  non-finite numbers: nothing was written
  5  the backend is not available";

/// The code a failure ends the process with.
#[must_use]
pub(crate) fn code(error: &anyhow::Error) -> u8 {
    if error.chain().any(|e| e.is::<RecipeError>()) {
        return 2;
    }
    match error.chain().find_map(|e| e.downcast_ref::<CoreError>()) {
        Some(CoreError::NonFinite { .. }) => return 4,
        Some(CoreError::LayerOutOfRange { .. } | CoreError::InvalidConfig { .. }) => return 2,
        Some(_) => return 3,
        None => {}
    }
    if error.chain().any(|e| e.is::<Unavailable>()) {
        return 5;
    }
    let input = error.chain().any(|e| {
        e.is::<DatasetError>()
            || e.is::<CheckpointError>()
            || e.is::<TokenizerError>()
            || e.is::<PromptFormatError>()
            || e.is::<GenerateError>()
    });
    if input { 3 } else { 1 }
}

fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|e| {
        let fixed = e.downcast_ref::<DatasetError>().and_then(DatasetError::hint);
        let fixed = fixed.or_else(|| e.downcast_ref::<CheckpointError>()?.hint());
        let fixed = fixed.or_else(|| e.downcast_ref::<TokenizerError>()?.hint());
        let fixed = fixed.or_else(|| e.downcast_ref::<PromptFormatError>()?.hint());
        fixed.map(str::to_owned).or_else(|| Some(e.downcast_ref::<Unavailable>()?.hint.clone()))
    })
}

/// Prints a failure once, with its causes and a hint.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    eprintln!("error: {}", causes.join(": "));
    if let Some(hint) = hint(error) {
        eprintln!("hint: {hint}");
    }
    ExitCode::from(code(error))
}
