//! One entry as a line of JSON: what `kv export` writes and `kv import` reads.
//!
//! ```text
//! {"key":"user:1","value":"Ada","expires_at_ms":1795686653016}
//! {"key_b64":"//8=","value_b64":"AAEC"}
//! ```
//!
//! Text as it is, other bytes as base64 under a name that says so. An expiry is a moment, so that a line keeps its meaning;
//! `position` and `ttl_ms`, as `kv scan --json` and nodes write them, are read too: the one says nothing here, the other is
//! counted from when the line is read. Anything else is refused: a name mistyped must not lose an expiry.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use kvclient::{key::MAX_KEY_BYTES, wire::line::Line};
use serde::Deserialize;

/// An entry of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LineEntry {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    /// Unix milliseconds from which on it is absent.
    pub(crate) expires_at_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    key_b64: Option<Cow<'a, str>>,
    #[serde(borrow)]
    value: Option<Cow<'a, str>>,
    #[serde(borrow)]
    value_b64: Option<Cow<'a, str>>,
    expires_at_ms: Option<u64>,
    ttl_ms: Option<u64>,
    #[serde(borrow, rename = "position")]
    _position: Option<Cow<'a, str>>,
}

impl LineEntry {
    /// Adds its line.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let line = Line::begin(out).bytes("key", &self.key);
        let line = line.bytes("value", &self.value);
        line.optional("expires_at_ms", self.expires_at_ms).end();
    }

    /// Reads a line, at a time in Unix milliseconds.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn read(line: &[u8], now_ms: u64) -> Result<Self, String> {
        // serde would take a list of values in the order of the fields.
        if !line.trim_ascii_start().starts_with(b"{") {
            return Err("it is no object of JSON".to_owned());
        }
        let fields: Fields<'_> = serde_json::from_slice(line).map_err(|error| {
            let text = error.to_string();
            // The line of a file is named by whoever reads it.
            text.replace(" at line 1 column", " at column")
        })?;
        let key = bytes("key", fields.key, fields.key_b64)?;
        if !(1..=MAX_KEY_BYTES).contains(&key.len()) {
            let len = key.len();
            return Err(format!(
                "a key has 1 to {MAX_KEY_BYTES} bytes, this one has {len}"
            ));
        }
        let expires_at_ms = match (fields.expires_at_ms, fields.ttl_ms) {
            (Some(_), Some(_)) => return Err("expires_at_ms and ttl_ms are both there".to_owned()),
            (at, None) => at,
            (None, Some(ttl_ms)) => Some(now_ms.saturating_add(ttl_ms)),
        };
        Ok(Self {
            key,
            value: bytes("value", fields.value, fields.value_b64)?,
            expires_at_ms,
        })
    }
}

fn bytes(
    name: &str,
    text: Option<Cow<'_, str>>,
    base64: Option<Cow<'_, str>>,
) -> Result<Vec<u8>, String> {
    match (text, base64) {
        (Some(text), None) => Ok(text.into_owned().into_bytes()),
        (None, Some(base64)) => STANDARD
            .decode(base64.as_bytes())
            .map_err(|error| format!("{name}_b64 is not base64: {error}")),
        (None, None) => Err(format!(
            "{name} is missing; or {name}_b64 for bytes that are no text"
        )),
        (Some(_), Some(_)) => Err(format!("{name} and {name}_b64 are both there")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_that_are_read() {
        for (line, expires_at_ms) in [
            (r#"{"key":"a","value":"b"}"#, None),
            (
                r#"{"value_b64":"Yg==","key_b64":"YQ==","expires_at_ms":9}"#,
                Some(9),
            ),
            (
                r#"{"key":"a","value":"b","position":"1.2","ttl_ms":7}"#,
                Some(107),
            ),
        ] {
            let entry = LineEntry::read(line.as_bytes(), 100).expect(line);
            assert_eq!((&entry.key[..], &entry.value[..]), (&b"a"[..], &b"b"[..]));
            assert_eq!(entry.expires_at_ms, expires_at_ms);
        }
    }

    #[test]
    fn lines_that_are_refused_say_why() {
        for (line, why) in [
            ("", "no object"),
            (r#"["a",null,"b",null,null,null,null]"#, "no object"),
            ("{", "EOF"),
            (r#"{"key":"a"}"#, "value is missing"),
            (r#"{"value":"a"}"#, "key is missing"),
            (r#"{"key":"a","key_b64":"YQ==","value":""}"#, "both"),
            (r#"{"key":"a","value_b64":"?"}"#, "value_b64 is not base64"),
            (r#"{"key":"","value":""}"#, "this one has 0"),
            (
                r#"{"key":"a","value":"b","expires":9}"#,
                "unknown field `expires`",
            ),
            (
                r#"{"key":"a","value":"b","expires_at_ms":"9"}"#,
                "invalid type",
            ),
            (
                r#"{"key":"a","value":"b","ttl_ms":1,"expires_at_ms":9}"#,
                "both",
            ),
            (r#"{"key":"a","value":"b"} x"#, "trailing"),
            (r#"{"key":"a","key":"b","value":"c"}"#, "duplicate"),
        ] {
            let error = LineEntry::read(line.as_bytes(), 0).expect_err(line);
            assert!(error.contains(why), "{line}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_entry_comes_back(
            key in proptest::collection::vec(any::<u8>(), 1..=MAX_KEY_BYTES),
            value in proptest::collection::vec(any::<u8>(), 0..400),
            expires_at_ms: Option<u64>,
        ) {
            let entry = LineEntry { key, value, expires_at_ms };
            let mut line = Vec::new();
            entry.write(&mut line);
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            prop_assert_eq!(LineEntry::read(&line, 5), Ok(entry));
        }

        #[test]
        fn any_bytes_are_an_entry_or_refused(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = LineEntry::read(&line, 0);
        }
    }
}
