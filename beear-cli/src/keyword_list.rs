//! Refusal keyword lists, as people name them.

use beear_eval::RefusalKeywords;

use crate::exit::Mistake;

/// The built-in list called `name`.
///
/// # Errors
///
/// If there is none.
pub(crate) fn keyword_list(name: &str) -> Result<RefusalKeywords, Mistake> {
    RefusalKeywords::builtin(name).ok_or_else(|| {
        let hint = format!("one of {}", RefusalKeywords::NAMES.join(", "));
        Mistake::arguments(format!("no keyword list is called `{name}`"), hint)
    })
}
