//! Check for duplicate names in the header of a safetensors file, which the library accepts: the
//! library keeps the last duplicate, another reader may keep the first.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};

/// Checks the header of a safetensors file for duplicate names; `file` is the whole file.
///
/// # Errors
///
/// Returns an error if a name is duplicate, or the header is malformed.
pub(super) fn refuse_doubled(file: &[u8]) -> Result<(), serde_json::Error> {
    let (length, rest) = file.split_at_checked(8).unwrap_or_default();
    let length = length.try_into().map_or(0, u64::from_le_bytes);
    let header = usize::try_from(length).ok().and_then(|length| rest.get(..length));
    let mut header = serde_json::Deserializer::from_slice(header.unwrap_or_default());
    header.deserialize_map(Names)
}

/// Visitor that reads the keys of an object.
struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some((name, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
            if seen.contains(&name) {
                let name = name.escape_default();
                return Err(A::Error::custom(format!("`{name}` is in the header twice")));
            }
            seen.insert(name);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(header: &str) -> Option<String> {
        let length = (header.len() as u64).to_le_bytes();
        let file = [&length, header.as_bytes(), &[0; 9]].concat();
        refuse_doubled(&file).err().map(|error| error.to_string())
    }

    #[test]
    fn a_name_may_be_there_once() {
        assert_eq!(said(r#"{"a": {"b": 1}, "b": {"b": 1}}"#), None);
        let doubled = said(r#"{"a\u001b": [1], "b": 2, "a\u001b": 3}"#).unwrap();
        assert!(doubled.starts_with(r"`a\u{1b}` is in the header twice"), "{doubled}");
    }

    #[test]
    fn what_is_no_header_is_an_error() {
        for file in [&[][..], &[1; 7], &[255; 20]] {
            assert!(refuse_doubled(file).is_err());
        }
        assert!(said("[]").is_some() && said("{").is_some());
    }
}
