//! Bytes in JSON: as text where they are UTF-8, else as base64 under a name that says so.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;

/// A field for bytes: `name` with text, or `name_b64`.
pub fn bytes_field(name: &str, bytes: &[u8]) -> (String, serde_json::Value) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (name.to_owned(), text.into()),
        Err(_) => (format!("{name}_b64"), STANDARD.encode(bytes).into()),
    }
}

/// Bytes that came as text under `name`, or as base64 under the name that says so; `None` if neither is there.
///
/// # Errors
/// What is wrong, for a person.
pub fn bytes_of(
    name: &str,
    text: Option<String>,
    base64: Option<String>,
) -> Result<Option<Bytes>, String> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(format!("{name} and {name}_b64 are both there; give one")),
        (Some(text), None) => Ok(Some(text.into())),
        (None, Some(base64)) => match STANDARD.decode(base64) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) => Err(format!("{name}_b64 is not base64 with padding: {error}")),
        },
        (None, None) => Ok(None),
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

    #[test]
    fn bytes_come_back() {
        for bytes in [&b"text"[..], b"", b"\xff\0"] {
            let (name, value) = bytes_field("key", bytes);
            let value = value.as_str().map(str::to_owned);
            let came = match name.as_str() {
                "key" => bytes_of("key", value, None),
                _ => bytes_of("key", None, value),
            };
            assert_eq!(came, Ok(Some(Bytes::copy_from_slice(bytes))));
        }
        assert_eq!(bytes_of("key", None, None), Ok(None));
        for base64 in ["/w", "/w==\n", "_w==", "/x=="] {
            assert!(
                bytes_of("key", None, Some(base64.into())).is_err(),
                "{base64}"
            );
        }
        assert!(bytes_of("key", Some("a".into()), Some(String::new())).is_err());
    }
}
