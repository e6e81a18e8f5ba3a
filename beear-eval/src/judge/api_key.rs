//! API key that is never shown.

use std::fmt;

use super::error::{JudgeError, LONGEST, SHORTEST};

/// API key of a server. It can be neither printed nor serialised, and is redacted wherever the
/// server repeats it.
///
/// ```
/// let key = beear_eval::judge::ApiKey::new("sk-0123456789").unwrap();
/// assert_eq!(format!("{key} {key:?}"), "[key] ApiKey([key])");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// Creates a key, with surrounding white space removed.
    ///
    /// # Errors
    ///
    /// Returns [`JudgeError::NotAKey`] if the key is shorter than 8 or longer than 4096 characters,
    /// or contains anything but visible ASCII, or quotes or backslashes, which have several
    /// spellings in JSON.
    pub fn new(key: &str) -> Result<Self, JudgeError> {
        let key = key.trim();
        let is_plain = key.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"'\\".contains(&byte));
        if is_plain && (SHORTEST..=LONGEST).contains(&key.len()) {
            return Ok(Self(key.to_owned()));
        }
        Err(JudgeError::NotAKey)
    }

    /// Replaces every occurrence of the key in `text` with `[key]`.
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        text.replace(&self.0, "[key]")
    }

    /// Returns the value of the `Authorization` header.
    #[cfg(feature = "http")]
    pub(super) fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey([key])")
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[key]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_never_shows() {
        let key = ApiKey::new(" sk-secret-1\n").unwrap();
        assert_eq!(format!("{key} {key:?} {key:#?}"), "[key] ApiKey([key]) ApiKey([key])");
        assert_eq!(key.redact("no sk-secret-1, sk-secret-1!"), "no [key], [key]!");
    }

    #[test]
    fn what_cannot_be_a_key_is_refused_without_showing_it() {
        for text in ["", "EMPTY", "has a space", "line\nbreak-long", "quote\"12345", "schlüssel"] {
            let error = ApiKey::new(text).unwrap_err();
            assert!(text.is_empty() || !format!("{error} {error:?}").contains(text), "{error}");
        }
    }
}
