//! Row as keys with values. Keys are compared without case and surrounding white space.

use serde_json::{Map, Value};

/// Row of a file.
pub(super) struct Row<'a>(&'a Map<String, Value>);

impl<'a> Row<'a> {
    /// Creates a row from an object.
    ///
    /// # Errors
    ///
    /// Returns the problem if the value is not an object.
    pub(super) fn of(value: &'a Value) -> Result<Self, String> {
        let row = value.as_object().ok_or_else(|| format!("{}, not an object", kind(value)))?;
        Ok(Self(row))
    }

    /// Returns true if one of `keys` is present, even with the value null.
    pub(super) fn has_one_of(&self, keys: &[&str]) -> bool {
        self.0.keys().any(|name| keys.iter().any(|key| is_key(name, key)))
    }

    /// Returns the value of a key unless it is absent or null.
    ///
    /// # Errors
    ///
    /// Returns the problem if the key occurs twice with different values.
    pub(super) fn get(&self, key: &str) -> Result<Option<&'a Value>, String> {
        let mut given = self.0.iter().filter(|(name, value)| is_key(name, key) && !value.is_null());
        let Some((first, value)) = given.next() else { return Ok(None) };
        match given.find(|(_, other)| *other != value) {
            Some((other, _)) => Err(format!("both `{first}` and `{other}`")),
            None => Ok(Some(value)),
        }
    }

    /// Returns the one of `keys` that is present, with its value. A blank value counts only if all
    /// are blank.
    ///
    /// # Errors
    ///
    /// Returns the problem if two of the keys have different values.
    pub(super) fn one_of(
        &self,
        keys: &[&'static str],
    ) -> Result<Option<(&'static str, &'a Value)>, String> {
        let mut found: Option<(&'static str, &'a Value)> = None;
        for &key in keys {
            let Some(value) = self.get(key)? else { continue };
            match found {
                Some((_, other)) if is_blank(value) || value == other => {}
                Some((first, other)) if !is_blank(other) => {
                    return Err(format!("both `{first}` and `{key}`"));
                }
                _ => found = Some((key, value)),
            }
        }
        Ok(found)
    }

    /// Returns the text under one of `keys`, with its key.
    ///
    /// # Errors
    ///
    /// Returns the problem if the value is not text, or if two of the keys have different values.
    pub(super) fn text_of(
        &self,
        keys: &[&'static str],
    ) -> Result<Option<(&'static str, &'a str)>, String> {
        self.one_of(keys)?.map(|(key, value)| Ok((key, as_text(key, value)?))).transpose()
    }

    /// Returns the text under one of `keys`; None if it is blank.
    ///
    /// # Errors
    ///
    /// Returns the problems of [`Row::text_of`].
    pub(super) fn filled_text_of(&self, keys: &[&'static str]) -> Result<Option<&'a str>, String> {
        let text = self.text_of(keys)?.map(|(_, text)| text);
        Ok(text.filter(|text| !text.trim().is_empty()))
    }

    /// Returns the keys in the order of the file, for messages.
    pub(super) fn keys(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
}

/// Returns true if a name in a file means `key`.
pub(super) fn is_key(name: &str, key: &str) -> bool {
    name.trim().eq_ignore_ascii_case(key)
}

/// Returns true for null, white space and an empty list.
pub(super) fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

/// Returns the text of a value.
///
/// # Errors
///
/// Returns the problem if the value is not text.
pub(super) fn as_text<'a>(key: &str, value: &'a Value) -> Result<&'a str, String> {
    value.as_str().ok_or_else(|| format!("`{key}` is {}, not text", kind(value)))
}

/// Returns the kind of a value, with its article.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
