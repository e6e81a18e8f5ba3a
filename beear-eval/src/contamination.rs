//! Contamination: evaluated prompts that occur in the training data of a defence.
//!
//! Copies are found despite differences in letter case, Unicode form, punctuation, white space and
//! invisible characters: both prompts are folded first. A near copy shares most of its word pairs
//! with a training prompt, by the Jaccard similarity of the two sets of pairs. The search is exact:
//! it skips only pairs of prompts that a bound rules out (Bayardo, Ma and Srikant, [Scaling Up All
//! Pairs Similarity Search](https://doi.org/10.1145/1242572.1242591), WWW 2007; Xiao et al.,
//! [Efficient Similarity Joins for Near Duplicate
//! Detection](https://doi.org/10.1145/2000824.2000825), TODS 2011).
//!
//! The evaluated prompts are held in an index, and the training prompts are read one at a time.
//! Memory depends on the evaluated prompts alone.

mod folded;
mod prefix_index;

use std::collections::HashMap;

use folded::Folded;
use prefix_index::PrefixIndex;

/// Finds rows of `evaluated` that are exact or near copies of rows of `trained`.
///
/// Returns pairs `(evaluated row, trained row)` in the order of the evaluated rows. The trained row
/// is the first exact copy, or the first near copy if there is no exact one.
///
/// Prompts are compared without regard to case (full Unicode case folding), compatibility form
/// (NFKC), punctuation, symbols, white space and invisible characters. Punctuation between two
/// digits is significant: `12 - 5` is not `12 * 5`. A prompt without a letter or digit is compared
/// with its punctuation.
///
/// `near` is the smallest Jaccard similarity of word pairs at which two prompts count as copies;
/// 1.0 finds exact copies and rearrangements of the same pairs only. In scripts without spaces
/// between words (Chinese, Japanese, Thai and others) three characters stand for a pair of words. A
/// prompt of one word has no pair and only exact copies. A `near` of 0 or below, or NaN, counts as
/// the smallest positive number: prompts that share any pair are near copies.
pub fn contaminated<T: AsRef<str>, E: AsRef<str>>(
    trained: impl IntoIterator<Item = T>,
    evaluated: impl IntoIterator<Item = E>,
    near: f64,
) -> Vec<(usize, usize)> {
    let evaluated = evaluated.into_iter().map(|prompt| Folded::new(prompt.as_ref()));
    let mut search = Search::new(evaluated, near);
    for (row, prompt) in trained.into_iter().enumerate() {
        search.pass(row, &Folded::new(prompt.as_ref()));
    }
    search.found()
}

/// Search state: the evaluated prompts and the trained rows found so far.
struct Search {
    /// Index in `prompts` by folded text. A prompt is removed once its exact copy is found.
    exact: HashMap<String, usize>,
    near: PrefixIndex,
    /// Distinct evaluated prompts.
    prompts: Vec<Evaluated>,
}

/// Distinct evaluated prompt with its rows.
#[derive(Default)]
struct Evaluated {
    rows: Vec<usize>,
    /// First trained row that is an exact copy.
    exact_copy: Option<usize>,
    /// First trained row that is a near copy, if no exact copy came before.
    near_copy: Option<usize>,
}

impl Search {
    fn new(evaluated: impl Iterator<Item = Folded>, near: f64) -> Self {
        let (mut exact, mut prompts, mut pairs) = (HashMap::new(), Vec::new(), Vec::new());
        for (row, folded) in evaluated.enumerate() {
            let prompt = *exact.entry(folded.text).or_insert_with(|| {
                pairs.push(folded.pairs);
                prompts.push(Evaluated::default());
                prompts.len() - 1
            });
            prompts[prompt].rows.push(row);
        }
        Self { exact, near: PrefixIndex::new(pairs, near), prompts }
    }

    /// Compares the trained prompt of `row` with every evaluated prompt for which no copy is known
    /// yet.
    fn pass(&mut self, row: usize, trained: &Folded) {
        if let Some(copy) = self.exact.remove(&trained.text) {
            self.prompts[copy].exact_copy = Some(row);
            self.near.remove(copy);
        }
        for copy in self.near.similar(&trained.pairs) {
            self.prompts[copy].near_copy = Some(row);
            self.near.remove(copy);
        }
    }

    fn found(self) -> Vec<(usize, usize)> {
        let copies = self.prompts.into_iter().filter_map(|prompt| {
            let copy = prompt.exact_copy.or(prompt.near_copy)?;
            Some(prompt.rows.into_iter().map(move |row| (row, copy)))
        });
        let mut found: Vec<(usize, usize)> = copies.flatten().collect();
        found.sort_unstable();
        found
    }
}

#[cfg(test)]
mod tests;
