//! Bytes in JSON: as text where they are UTF-8, else as base64 under a name that says so.

use base64::{Engine, engine::general_purpose::STANDARD};

/// A field for bytes: `name` with text, or `name_b64`.
pub fn bytes_field(name: &str, bytes: &[u8]) -> (String, serde_json::Value) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (name.to_owned(), text.into()),
        Err(_) => (format!("{name}_b64"), STANDARD.encode(bytes).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_as_text_and_the_rest_as_base64() {
        assert_eq!(
            bytes_field("key", "é".as_bytes()),
            ("key".into(), "é".into())
        );
        assert_eq!(
            bytes_field("key", b"\xff"),
            ("key_b64".into(), "/w==".into())
        );
    }
}
