//! Check that the tokenizer knows the words of the rows: a model cannot read the others.

use std::path::Path;

use crate::model::loaded::TextSide;
use crate::user_error::UserError;

/// Share of unknown tokens above which rows are useless: at one in ten, a question of a dozen words
/// lacks one. Byte-level tokenizers have no unknown tokens.
const MOST_UNKNOWN: f64 = 0.1;

/// Tokens of a row that come from its file: the user's words and the answers.
pub(crate) struct RowTokens<'a> {
    pub(crate) id: u64,
    pub(crate) prompt: &'a str,
    pub(crate) parts: Vec<&'a [u32]>,
}

/// Checks the rows of a file.
///
/// # Errors
///
/// If too many of their tokens are unknown.
pub(crate) fn check_known<'a>(
    file: &Path,
    rows: impl Iterator<Item = RowTokens<'a>>,
    text: &TextSide,
) -> Result<(), UserError> {
    let Some(unknown) = text.unknown_id() else { return Ok(()) };
    let (mut n_unknown, mut n_tokens) = (0, 0);
    let mut worst: Option<(f64, u64, &str)> = None;
    for row in rows {
        let tokens = || row.parts.iter().copied().flatten();
        let here = tokens().filter(|token| **token == unknown).count();
        let all = tokens().count();
        let share = here as f64 / all.max(1) as f64;
        if worst.is_none_or(|(most, ..)| share > most) {
            worst = Some((share, row.id, row.prompt));
        }
        n_unknown += here;
        n_tokens += all;
    }
    let share = n_unknown as f64 / n_tokens.max(1) as f64;
    let Some((_, id, prompt)) = worst.filter(|_| share > MOST_UNKNOWN) else { return Ok(()) };
    let excerpt: String = prompt.chars().take(60).collect();
    let what = format!(
        "`{}`: the model's tokenizer does not know {:.0} % of the tokens, such as those of row {id}: {excerpt:?}",
        file.display(),
        100.0 * share
    );
    Err(UserError::input(
        what,
        "bring rows in the model's language, or the tokenizer.json that belongs to it",
    ))
}
