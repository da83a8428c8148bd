//! Objects on one line each: how nodes and the tool `kv` write lines of JSON. Bytes are text where they are UTF-8, else
//! base64 under a name that says so.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;

/// Writes one object on one line, its fields in the order given, and no copy of them on the way.
#[derive(Debug)]
pub struct Line<'a> {
    out: &'a mut Vec<u8>,
    separator: u8,
}

impl<'a> Line<'a> {
    /// Begins an object behind what is in `out`.
    pub fn begin(out: &'a mut Vec<u8>) -> Self {
        Self {
            out,
            separator: b'{',
        }
    }

    /// Adds bytes: `name` with text, or `name_b64`. The name needs no escaping.
    pub fn bytes(self, name: &str, bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.named(name, "").value(text),
            Err(_) => self.named(name, "_b64").value(&STANDARD.encode(bytes)),
        }
    }

    /// Adds a field. The name needs no escaping.
    pub fn field(self, name: &str, value: impl Serialize) -> Self {
        self.named(name, "").value(&value)
    }

    /// Adds a field if there is a value.
    pub fn optional(self, name: &str, value: Option<impl Serialize>) -> Self {
        match value {
            Some(value) => self.field(name, value),
            None => self,
        }
    }

    /// Ends object and line.
    pub fn end(self) {
        if self.separator == b'{' {
            self.out.push(b'{');
        }
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
    fn lines_keep_the_order_of_their_fields() {
        let mut out = Vec::new();
        Line::begin(&mut out)
            .bytes("key", b"a\"\n")
            .bytes("value", b"\xff")
            .optional("ttl_ms", Some(5))
            .optional("never", None::<u64>)
            .field("none", None::<u64>)
            .end();
        Line::begin(&mut out).end();
        let expected =
            "{\"key\":\"a\\\"\\n\",\"value_b64\":\"/w==\",\"ttl_ms\":5,\"none\":null}\n{}\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
