//! How prompts are asked and who judges the answers, as options.

use beear_eval::{Decoding, RefusalKeywords};
use clap::Args;

use crate::defence::contamination::LeakGuardArgs;
use crate::recipe::keyword_list::KeywordArgs;
use crate::user_error::UserError;

/// What evaluations share that judge answers by keyword lists.
#[derive(Args, Clone, Debug)]
pub(crate) struct AskedArgs {
    #[command(flatten)]
    keywords: KeywordArgs,
    #[command(flatten)]
    pub(crate) contamination: LeakGuardArgs,
    /// Longest answer, in tokens.
    #[arg(long, default_value_t = 200)]
    max_new_tokens: usize,
}

impl AskedArgs {
    /// The keyword lists.
    ///
    /// # Errors
    ///
    /// If a name is not known.
    pub(crate) fn lists(&self) -> Result<Vec<RefusalKeywords>, UserError> {
        self.keywords.lists()
    }

    /// How answers are generated.
    pub(crate) fn decoding(&self) -> Decoding {
        Decoding::greedy(self.max_new_tokens)
    }
}
