//! Exact match: the response equals the reference, white space aside.

/// True if `response` equals `reference` up to runs of white space.
#[must_use]
pub fn is_exact(response: &str, reference: &str) -> bool {
    response.split_whitespace().eq(reference.split_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_is_all_that_may_differ() {
        assert!(is_exact(" a  b\n", "a b"));
        assert!(!is_exact("a b c", "a b"));
        assert!(!is_exact("A b", "a b"));
    }
}
