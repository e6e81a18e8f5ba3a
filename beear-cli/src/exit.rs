//! Exit codes, and the messages of failed commands.

use std::fmt::Write;
use std::io::ErrorKind;
use std::process::ExitCode;

use beear_core::Error as CoreError;
use beear_eval::code::sarif::SarifError;
use beear_eval::dataset::DatasetError;
use beear_eval::harness::HarnessError;
use beear_eval::judge::JudgeError;
use beear_eval::mt_bench::MtBenchError;
use beear_input::Refusal;
use beear_models::{
    CheckpointError, GenerateError, PromptFormatError, TextEngineError, TokenizerError,
};

use crate::backend::Unavailable;
use crate::display::console::WRITING_STDOUT;
use crate::display::terminal::{harmless, harmless_line, to_stderr};
use crate::model::hub::HubError;
use crate::model::text_process;
use crate::recipe::{self, RecipeError};
use crate::run_folder::cannot_write::{CannotWrite, is_full};
use crate::user_error::{INTERRUPTED, UserError, UserErrorKind};

/// All exit codes with their meanings, as shown in help, manual pages and README.
pub(crate) const EXIT_CODES: [(u8, &str); 11] = [
    (0, "done"),
    (1, "anything not below"),
    (2, "wrong arguments or recipe"),
    (3, "unusable input: model, data or prompt"),
    (4, "NaN or infinite numbers in a model: its weights, its output or its training"),
    (5, "the backend is not available"),
    (6, "the disk is full or cannot be written"),
    (7, "done, but the cleaned model lost more than the recipe's bounds allow"),
    (8, "done, but the model does not keep the gate"),
    (9, "stopped when its time was up: `beear resume` goes on"),
    (INTERRUPTED, "stopped by Ctrl-C, SIGTERM or SIGHUP: `beear resume` goes on"),
];

/// Returns the section on exit codes of `--help`.
pub(crate) fn help() -> String {
    EXIT_CODES.into_iter().fold("Exit codes:".to_owned(), |mut text, (code, meaning)| {
        write!(text, "\n{code:>3}  {meaning}").expect("a string takes any text");
        text
    })
}

/// Returns the first cause of type `E`.
fn cause<E: std::error::Error + 'static>(error: &anyhow::Error) -> Option<&E> {
    error.chain().find_map(|cause| cause.downcast_ref())
}

/// Returns the exit code of a failure.
#[must_use]
pub(crate) fn code(error: &anyhow::Error) -> u8 {
    if let Some(mistake) = cause::<UserError>(error) {
        return match mistake.kind {
            UserErrorKind::Arguments => 2,
            UserErrorKind::Input => 3,
            UserErrorKind::NonFinite => 4,
            UserErrorKind::OutOfBounds => 7,
            UserErrorKind::Gate => 8,
            UserErrorKind::TimeIsUp => 9,
            UserErrorKind::Interrupted => INTERRUPTED,
        };
    }
    if let Some(error) = cause::<HubError>(error) {
        return error.code();
    }
    let full = cause::<std::io::Error>(error).is_some_and(|e| is_full(e.kind()));
    if full || cause::<CannotWrite>(error).is_some() {
        return 6;
    }
    match cause::<CoreError>(error) {
        Some(CoreError::NonFinite { .. } | CoreError::NonFiniteLogits { .. }) => return 4,
        Some(CoreError::LayerOutOfRange { .. } | CoreError::InvalidConfig { .. }) => return 2,
        Some(_) => return 3,
        None => {}
    }
    if is_non_finite(error) {
        return 4;
    }
    if cause::<std::io::Error>(error).is_some_and(|error| Refusal::of(error).is_some()) {
        return 3;
    }
    if cause::<RecipeError>(error).is_some() || is_unknown_format(error) {
        return 2;
    }
    if cause::<Unavailable>(error).is_some() {
        return 5;
    }
    let input = cause::<DatasetError>(error).is_some()
        || cause::<CheckpointError>(error).is_some()
        || cause::<TokenizerError>(error).is_some()
        || cause::<PromptFormatError>(error).is_some()
        || cause::<TextEngineError>(error).is_some()
        || cause::<GenerateError>(error).is_some()
        || cause::<JudgeError>(error).is_some()
        || cause::<SarifError>(error).is_some()
        || cause::<HarnessError>(error).is_some()
        || cause::<MtBenchError>(error).is_some();
    if input { 3 } else { 1 }
}

/// Returns true if a weight of a model, or one of its logits, is NaN or infinite.
fn is_non_finite(error: &anyhow::Error) -> bool {
    matches!(cause(error), Some(CheckpointError::NotFinite { .. }))
        || matches!(cause(error), Some(GenerateError::NonFiniteLogits { .. }))
}

/// Returns true if the name of a prompt format is unknown. That name is an argument, not a part of
/// the model.
fn is_unknown_format(error: &anyhow::Error) -> bool {
    matches!(cause(error), Some(PromptFormatError::UnknownFormat { .. }))
}

/// Returns advice in one line. Every error type has its own.
fn hint(error: &anyhow::Error) -> Option<String> {
    if let Some(mistake) = cause::<UserError>(error) {
        return Some(mistake.hint.clone());
    }
    if let Some(error) = cause::<HubError>(error) {
        return Some(error.hint());
    }
    if let Some(unavailable) = cause::<Unavailable>(error) {
        return Some(unavailable.hint.clone());
    }
    if let Some(refusal) = cause::<std::io::Error>(error).and_then(Refusal::of) {
        return Some(refusal.hint().to_owned());
    }
    if let Some(error) = cause::<TextEngineError>(error) {
        return text_process::hint(error);
    }
    let fixed = cause::<CannotWrite>(error).map(CannotWrite::hint);
    let fixed = fixed.or_else(|| {
        let full = cause::<std::io::Error>(error).is_some_and(|e| is_full(e.kind()));
        full.then_some("free some space, or choose another --out")
    });
    let fixed = fixed.or_else(|| cause::<DatasetError>(error)?.hint());
    let fixed = fixed.or_else(|| cause::<JudgeError>(error)?.hint());
    let fixed = fixed.or_else(|| cause::<SarifError>(error)?.hint());
    let fixed = fixed.or_else(|| cause::<MtBenchError>(error)?.hint());
    let fixed = fixed.or_else(|| Some(cause::<HarnessError>(error)?.hint()));
    let fixed = fixed.or_else(|| cause::<CheckpointError>(error)?.hint());
    let fixed = fixed.or_else(|| cause::<TokenizerError>(error)?.hint());
    let fixed = fixed.or_else(|| cause::<PromptFormatError>(error)?.hint());
    let fixed = fixed.or_else(|| cause::<GenerateError>(error)?.hint());
    let fixed = fixed.or_else(|| Some(cause::<RecipeError>(error)?.hint()));
    let fixed = fixed.or_else(|| Some(recipe::hint(cause::<CoreError>(error)?)));
    fixed.map(str::to_owned)
}

/// Prints a failure once, with its causes and a hint.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let mut causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    // Transparent errors repeat their source.
    causes.dedup();
    to_stderr(&format!("error: {}\n", harmless_line(&causes.join(": "))));
    if let Some(hint) = hint(error) {
        to_stderr(&format!("hint: {}\n", harmless_line(&hint)));
    }
    ExitCode::from(code(error))
}

/// Prints an error in the arguments, or the help that they request.
pub(crate) fn report_arguments(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        // The message quotes the arguments.
        to_stderr(&harmless(&error.render().to_string()));
    } else if let Err(error) = error.print()
        && error.kind() != ErrorKind::BrokenPipe
    {
        return report(&anyhow::Error::new(error).context(WRITING_STDOUT));
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use anyhow::Context;

    use super::*;

    fn io(kind: ErrorKind) -> anyhow::Error {
        std::io::Error::from(kind).into()
    }

    #[test]
    fn a_full_disk_is_told_from_a_missing_file() {
        assert_eq!(code(&io(ErrorKind::StorageFull)), 6);
        assert_eq!(code(&io(ErrorKind::NotFound)), 1);
        let path = "model".into();
        let source = std::io::Error::from(ErrorKind::FileTooLarge);
        assert_eq!(code(&CheckpointError::Io { path, source }.into()), 6);
    }

    #[test]
    fn what_cannot_be_written_is_told_from_what_cannot_be_read() {
        let denied = CannotWrite::at(Path::new("run"))(ErrorKind::PermissionDenied.into()).into();
        assert_eq!(code(&denied), 6);
        assert!(hint(&denied).unwrap().contains("--out"));
        let path = "model".into();
        let denied = CheckpointError::Io { path, source: ErrorKind::PermissionDenied.into() };
        assert_eq!(code(&denied.into()), 3);
    }

    #[test]
    fn context_hides_neither_code_nor_hint() {
        let error = Err::<(), _>(UserError::input("no rows", "bring some")).context("reading");
        let error = error.unwrap_err();
        assert_eq!((code(&error), hint(&error).as_deref()), (3, Some("bring some")));
    }
}
