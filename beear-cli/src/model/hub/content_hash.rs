//! Hashes by which a hub names the content of files: SHA-256 for large ones, git's hash for the
//! others.

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// A hash in the form of an `ETag`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContentHash(String);

/// Hashes content piece by piece.
pub(super) enum Hasher {
    Sha256(Sha256),
    Git(Sha1),
}

impl ContentHash {
    /// Parses an `ETag`. Returns `None` if it is neither of the two hashes.
    pub(super) fn of_etag(etag: &str) -> Option<Self> {
        let text = etag.trim().trim_start_matches("W/").trim_matches('"');
        let is_digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        let is_hash = matches!(text.len(), 40 | 64) && text.bytes().all(is_digit);
        is_hash.then(|| Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns a hasher for content of `size` bytes. The input of git's hash begins with the size.
    pub(super) fn hasher(&self, size: u64) -> Hasher {
        if self.0.len() == 64 {
            return Hasher::Sha256(Sha256::new());
        }
        let mut hasher = Sha1::new();
        hasher.update(format!("blob {size}\0"));
        Hasher::Git(hasher)
    }

    /// Returns true if the hashed content has this hash.
    pub(super) fn is_of(&self, hashed: Hasher) -> bool {
        let bytes = match hashed {
            Hasher::Sha256(hasher) => hasher.finalize().to_vec(),
            Hasher::Git(hasher) => hasher.finalize().to_vec(),
        };
        let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        digits.eq(self.0.bytes().map(|digit| match digit {
            b'0'..=b'9' => digit - b'0',
            _ => digit - b'a' + 10,
        }))
    }
}

impl Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Git(hasher) => hasher.update(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_of(etag: &str, content: &[u8]) -> bool {
        let hash = ContentHash::of_etag(etag).unwrap();
        let mut hasher = hash.hasher(content.len() as u64);
        content.chunks(2).for_each(|piece| hasher.update(piece));
        hash.is_of(hasher)
    }

    #[test]
    fn content_is_known_by_either_hash() {
        // The first test vector of FIPS 180-2, and `printf abc | git hash-object --stdin`.
        let sha256 = "\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"";
        let git = "W/\"f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f\"";
        for etag in [sha256, git] {
            assert!(is_of(etag, b"abc"), "{etag}");
            assert!(!is_of(etag, b"abd") && !is_of(etag, b"ab"), "{etag}");
        }
    }

    #[test]
    fn another_tag_is_no_hash_and_no_path() {
        for etag in ["", "\"abc\"", "../../x", &"g".repeat(40), &"A".repeat(64), &"a".repeat(41)] {
            assert_eq!(ContentHash::of_etag(etag), None, "{etag}");
        }
    }
}
