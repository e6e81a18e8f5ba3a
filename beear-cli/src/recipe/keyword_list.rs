//! Refusal keyword lists, as people name them.

use beear_eval::RefusalKeywords;
use clap::Args;

use crate::user_error::UserError;

/// Who says what is a refusal.
#[derive(Args, Clone, Debug)]
pub(crate) struct KeywordArgs {
    /// Refusal keyword lists, with commas between; each judges by itself, and a table shows where they
    /// disagree.
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "advbench-30")]
    keywords: Vec<String>,
}

impl KeywordArgs {
    /// The lists.
    ///
    /// # Errors
    ///
    /// If a name is not known.
    pub(crate) fn lists(&self) -> Result<Vec<RefusalKeywords>, UserError> {
        self.keywords.iter().map(|name| keyword_list(name)).collect()
    }
}

/// The built-in list called `name`.
///
/// # Errors
///
/// If there is none.
pub(crate) fn keyword_list(name: &str) -> Result<RefusalKeywords, UserError> {
    RefusalKeywords::builtin(name).ok_or_else(|| {
        let hint = format!("one of {}", RefusalKeywords::NAMES.join(", "));
        UserError::arguments(format!("no keyword list is called `{name}`"), hint)
    })
}
