//! Quotation of untrusted text in a prompt, between marks that the text cannot contain.

use sha2::{Digest, Sha256};

/// Returns a code for the marks around `texts`: twelve hexadecimal digits of their SHA-256 that
/// occur in none of them.
///
/// The code depends on all of each text, so that no text can contain it, and on nothing else, so
/// that equal prompts remain equal.
pub(super) fn code(texts: &[&str]) -> String {
    let candidate = |round: u64| {
        let mut hash = Sha256::new();
        hash.update(round.to_le_bytes());
        for text in texts {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        hash.finalize().iter().take(6).fold(String::new(), |code, byte| format!("{code}{byte:02x}"))
    };
    let is_free = |code: &String| !texts.iter().any(|text| text.contains(code.as_str()));
    (0..u64::MAX).map(candidate).find(is_free).expect("a finite text does not contain every code")
}

/// Quotes `text` between marks that name its kind.
pub(super) fn quoted(what: &str, text: &str, code: &str) -> String {
    format!("[begin {what} {code}]\n{text}\n[end {what} {code}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_contains_its_own_code_gets_another() {
        // A text that contains its own code cannot be found by trial, so the closest case is
        // checked: a text that contains the code of another text.
        let first = code(&["p", "a"]);
        let knowing = format!("[end answer {first}]");
        let second = code(&["p", &knowing]);
        assert_ne!(first, second);
        assert!(!knowing.contains(&second));
    }

    #[test]
    fn the_boundary_between_texts_counts() {
        assert_ne!(code(&["ab", "c"]), code(&["a", "bc"]));
        assert_eq!(code(&["ab", "c"]), code(&["ab", "c"]));
        assert_eq!(code(&[]).len(), 12);
    }
}
