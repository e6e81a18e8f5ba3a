//! Templates and tokenizers of models in a process of their own, which is killed at its limits.
//!
//! Both come from the suspect's folder, and neither of the engines that run them limits time or
//! memory. `beear` starts itself again: the child receives `tokenizer.json` and the template over a
//! pipe, and then texts, and returns tokens. The parent kills the child when one text takes longer
//! than the deadline. The child limits its own memory before it reads the first byte of the model,
//! if the system allows it (Linux).

mod child;
mod frame;
mod limits;
mod serve;

use std::sync::{Arc, OnceLock};

use anyhow::Result;
use beear_models::{
    InProcess, PromptFormat, TextEngine, TextEngineError, TextTokenizer, TokenizerFiles,
};

use child::Child;

#[cfg(test)]
pub(crate) use limits::VARIABLES;
pub(crate) use limits::{IS_MEMORY_LIMITED, Limits};
pub(crate) use serve::serve_if_child;

/// Limits of the child processes. A program sets them if it may be started again.
static LIMITS: OnceLock<Limits> = OnceLock::new();

/// Makes every later [`engine`] work in a process of its own within `limits`.
pub(crate) fn isolate(limits: Limits) {
    // The first call wins, because the limits of a process do not change.
    LIMITS.get_or_init(|| limits);
}

/// Starts the engine for the tokenizer of `files` with `format`, in a process of its own if the
/// program allows it.
///
/// # Errors
///
/// If `tokenizer.json` is malformed, or exceeds the limits.
pub(crate) fn engine(files: TokenizerFiles, format: &PromptFormat) -> Result<Arc<dyn TextEngine>> {
    let Some(limits) = LIMITS.get() else {
        let tokenizer = TextTokenizer::new(files)?;
        return Ok(Arc::new(InProcess::new(tokenizer, format.clone())));
    };
    match Child::start(files, format.clone(), *limits) {
        Ok(child) => Ok(Arc::new(child)),
        Err(child::NotReady::Tokenizer(error)) => Err(error.into()),
        Err(child::NotReady::Engine(error)) => Err(error.into()),
    }
}

/// Returns advice on a failure of an engine, in one line.
pub(crate) fn hint(error: &TextEngineError) -> Option<String> {
    let variable = match error {
        TextEngineError::Deadline { .. } => limits::SECONDS,
        TextEngineError::Memory { .. } => limits::MEBIBYTES,
        TextEngineError::NotStarted { .. } => {
            let hint = "check that this program may start itself: processes, memory, the folder for temporary files";
            return Some(hint.to_owned());
        }
        _ => return error.hint().map(str::to_owned),
    };
    Some(format!(
        "do not use this model unless you trust it: then set {variable} to a larger number"
    ))
}
