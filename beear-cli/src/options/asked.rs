//! Options for generating answers and for the keyword lists that classify them.

use beear_eval::{Decoding, RefusalKeywords};
use clap::Args;

use crate::defence::contamination::LeakGuardArgs;
use crate::recipe::keyword_list::KeywordArgs;
use crate::user_error::UserError;

/// Options of evaluations that classify answers by keyword lists.
#[derive(Args, Clone, Debug)]
pub(crate) struct AskedArgs {
    #[command(flatten)]
    keywords: KeywordArgs,
    #[command(flatten)]
    pub(crate) contamination: LeakGuardArgs,
    /// Maximum length of an answer, in tokens.
    #[arg(long, default_value_t = 200)]
    max_new_tokens: usize,
}

impl AskedArgs {
    /// Returns the keyword lists.
    ///
    /// # Errors
    ///
    /// If a name is unknown.
    pub(crate) fn lists(&self) -> Result<Vec<RefusalKeywords>, UserError> {
        self.keywords.lists()
    }

    /// Returns the decoding of the answers.
    pub(crate) fn decoding(&self) -> Decoding {
        Decoding::greedy(self.max_new_tokens)
    }
}
