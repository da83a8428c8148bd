//! Objects on one line each. Bytes are text where they are UTF-8, else base64 under a name that says so, as nodes do it.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;

/// Writes one object on one line, its fields in the order given.
pub(crate) struct Line<'a> {
    out: &'a mut Vec<u8>,
    separator: u8,
}

impl<'a> Line<'a> {
    /// Begins an object behind what is in `out`. It has at least one field.
    pub(crate) fn begin(out: &'a mut Vec<u8>) -> Self {
        Self {
            out,
            separator: b'{',
        }
    }

    /// Adds bytes: `name` with text, or `name_b64`. The name needs no escaping.
    pub(crate) fn bytes(self, name: &str, bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.named(name, "").value(text),
            Err(_) => self.named(name, "_b64").value(&STANDARD.encode(bytes)),
        }
    }

    /// Adds a field. The name needs no escaping.
    pub(crate) fn field(self, name: &str, value: impl Serialize) -> Self {
        self.named(name, "").value(&value)
    }

    /// Adds a field if there is a value.
    pub(crate) fn optional(self, name: &str, value: Option<impl Serialize>) -> Self {
        match value {
            Some(value) => self.field(name, value),
            None => self,
        }
    }

    /// Ends object and line.
    pub(crate) fn end(self) {
        self.out.extend_from_slice(b"}\n");
    }

    fn named(mut self, name: &str, suffix: &str) -> Self {
        self.out.extend_from_slice(&[self.separator, b'"']);
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(suffix.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.separator = b',';
        self
    }

    fn value(self, value: &(impl Serialize + ?Sized)) -> Self {
        serde_json::to_writer(&mut *self.out, value)
            .expect("text and numbers become JSON in memory");
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_as_text_and_the_rest_as_base64() {
        let mut out = Vec::new();
        Line::begin(&mut out)
            .bytes("key", b"a\"")
            .bytes("value", b"\xff")
            .optional("ttl_ms", Some(3))
            .optional("shard", None::<u8>)
            .end();
        assert_eq!(
            out,
            b"{\"key\":\"a\\\"\",\"value_b64\":\"/w==\",\"ttl_ms\":3}\n"
        );
    }
}
