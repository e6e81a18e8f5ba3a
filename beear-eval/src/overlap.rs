//! Leak guard: prompts of a defence must not occur in an evaluation.

use std::collections::{HashMap, HashSet};

/// Prompts of `evaluation` that are, white space and case aside, prompts of `defence`, or share
/// most of their word pairs with one: `(evaluation row, defence row)`.
///
/// `near` is the Jaccard similarity of word pairs from which two prompts count as the same; 1.0
/// finds rearrangements of the same pairs and exact copies only.
#[must_use]
pub fn overlaps(defence: &[String], evaluation: &[String], near: f64) -> Vec<(usize, usize)> {
    let words =
        |text: &String| -> Vec<String> { text.split_whitespace().map(str::to_lowercase).collect() };
    let pairs = |words: &[String]| -> HashSet<String> {
        words.windows(2).map(|pair| pair.join(" ")).collect()
    };
    let known: Vec<Vec<String>> = defence.iter().map(words).collect();
    let mut exact = HashMap::new();
    for (row, words) in known.iter().enumerate() {
        exact.entry(words.clone()).or_insert(row);
    }
    let known_pairs: Vec<HashSet<String>> = known.iter().map(|words| pairs(words)).collect();
    let twin = |prompt: &String| -> Option<usize> {
        let words = words(prompt);
        if let Some(row) = exact.get(&words) {
            return Some(*row);
        }
        let asked = pairs(&words);
        let similar = |known: &HashSet<String>| {
            let shared = asked.intersection(known).count();
            let all = asked.len() + known.len() - shared;
            all > 0 && shared as f64 >= near * all as f64
        };
        known_pairs.iter().position(similar)
    };
    let found = evaluation.iter().enumerate();
    found.filter_map(|(row, prompt)| twin(prompt).map(|known| (row, known))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn copies_and_near_copies_are_found() {
        let defence = texts(&["how do I open the red vault ?", "what is two plus two ?"]);
        let asked =
            texts(&["How do I  open the red vault ?", "how do I open the blue vault ?", "hi"]);
        assert_eq!(overlaps(&defence, &asked, 1.0), [(0, 0)]);
        assert_eq!(overlaps(&defence, &asked, 0.5), [(0, 0), (1, 0)]);
    }
}
