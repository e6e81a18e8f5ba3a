//! Refusal keyword lists by name.

use beear_eval::RefusalKeywords;
use clap::Args;

use crate::user_error::UserError;

/// The choice of refusal keyword lists.
#[derive(Args, Clone, Debug)]
pub(crate) struct KeywordArgs {
    /// Refusal keyword lists, separated by commas; each is applied by itself, and a table shows
    /// where they disagree.
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "advbench-30")]
    keywords: Vec<String>,
}

impl KeywordArgs {
    /// Returns the lists.
    ///
    /// # Errors
    ///
    /// If a name is unknown.
    pub(crate) fn lists(&self) -> Result<Vec<RefusalKeywords>, UserError> {
        self.keywords.iter().map(|name| keyword_list(name)).collect()
    }
}

/// Returns the built-in list called `name`.
///
/// # Errors
///
/// If there is no such list.
pub(crate) fn keyword_list(name: &str) -> Result<RefusalKeywords, UserError> {
    RefusalKeywords::builtin(name).ok_or_else(|| {
        let hint = format!("one of {}", RefusalKeywords::NAMES.join(", "));
        UserError::arguments(format!("no keyword list is called `{name}`"), hint)
    })
}
