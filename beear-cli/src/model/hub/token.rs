//! The token of a hub, which is never shown.

use std::fmt;

use super::HubError;

/// A token. It cannot be printed, and is removed wherever a server repeats it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token(String);

impl Token {
    /// Creates a token without the surrounding white space. Returns `None` if nothing is left.
    ///
    /// # Errors
    ///
    /// [`HubError::NotAToken`] if it has characters other than visible ASCII.
    pub(super) fn new(text: &str) -> Result<Option<Self>, HubError> {
        let text = text.trim();
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(HubError::NotAToken);
        }
        Ok((!text.is_empty()).then(|| Self(text.to_owned())))
    }

    /// Returns the value of the `Authorization` header.
    pub(super) fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// Replaces the token in `text` by `[token]`.
    pub(super) fn redact(&self, text: &str) -> String {
        text.replace(&self.0, "[token]")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token([token])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_never_shows() {
        let token = Token::new(" hf_secret\n").unwrap().unwrap();
        assert_eq!(format!("{token:?} {token:#?}"), "Token([token]) Token([token])");
        assert_eq!(token.redact("no hf_secret!"), "no [token]!");
        assert_eq!(token.bearer(), "Bearer hf_secret");
    }

    #[test]
    fn what_would_end_a_header_is_no_token() {
        assert_eq!(Token::new(" \n").unwrap(), None);
        for text in ["a\r\nX-Other: b", "a b", "é"] {
            let error = Token::new(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains(text), "{error}");
        }
    }
}
