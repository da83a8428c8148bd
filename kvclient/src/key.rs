//! Keys: validated bytes, and how they travel in URLs.
//!
//! A key is 1 to 511 bytes, any bytes. In a path it is percent-encoded; the decoder here works on raw bytes,
//! since web frameworks decode paths into text and would fold different binary keys into one. A `+` is a plus in
//! a path and a space in a query. The keys `.` and `..` cannot be path segments (URL parsers remove them, also
//! when escaped), so they travel as `?key=`, which every method understands.

use std::fmt;

use bytes::Bytes;

/// Longest key, in bytes. LMDB's own limit for keys.
pub const MAX_KEY_BYTES: usize = 511;

/// A key of the store: 1 to [`MAX_KEY_BYTES`] bytes, any bytes.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use kvclient::{Key, key::KeyError};
///
/// let key = Key::new("a b/\u{e9}")?;
/// assert_eq!(key.as_bytes().len(), 6); // bytes, not characters
/// assert_eq!(key.to_uri(), "/kv/a%20b/%C3%A9");
/// assert_eq!(key.to_string(), "a b/\\xc3\\xa9"); // safe in a log
/// assert_eq!(Key::new(vec![0; 512]), Err(KeyError::TooLong { len_bytes: 512 }));
/// assert_eq!(Key::copy_from(b""), Err(KeyError::Empty));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

/// Why some bytes are not a [`Key`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A key has at least one byte.
    #[error("the key is empty; a key has 1 to {MAX_KEY_BYTES} bytes")]
    Empty,
    /// More than [`MAX_KEY_BYTES`] bytes.
    #[error("the key has {len_bytes} bytes; a key has 1 to {MAX_KEY_BYTES} bytes")]
    TooLong {
        /// Length of what was offered, in bytes.
        len_bytes: usize,
    },
}

impl Key {
    /// Checks the length and takes the bytes as they are.
    ///
    /// # Errors
    /// [`KeyError`]: change the key; it can never be stored.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, KeyError> {
        let bytes = bytes.into();
        Self::check_len(bytes.len())?;
        Ok(Self(bytes))
    }

    /// Copies a slice into a key.
    ///
    /// # Errors
    /// As [`Key::new`].
    pub fn copy_from(bytes: &[u8]) -> Result<Self, KeyError> {
        Self::check_len(bytes.len())?;
        Ok(Self(Bytes::copy_from_slice(bytes)))
    }

    fn check_len(len_bytes: usize) -> Result<(), KeyError> {
        match len_bytes {
            0 => Err(KeyError::Empty),
            1..=MAX_KEY_BYTES => Ok(()),
            _ => Err(KeyError::TooLong { len_bytes }),
        }
    }

    /// The bytes of the key.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes of the key, shared and not copied.
    pub fn to_bytes(&self) -> Bytes {
        self.0.clone()
    }

    /// Path and query of this key's entry: `/kv/<escaped>`, or `/kv?key=<escaped>` for `.` and `..`, which no
    /// URL can carry as a path segment.
    pub fn to_uri(&self) -> String {
        let escaped = escape(&self.0);
        if self
            .0
            .split(|&b| b == b'/')
            .any(|segment| segment == b"." || segment == b"..")
        {
            format!("/kv?key={escaped}")
        } else {
            format!("/kv/{escaped}")
        }
    }
}

impl From<Key> for Bytes {
    fn from(key: Key) -> Self {
        key.0
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl std::borrow::Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Key {
    /// Printable ASCII as it is, everything else escaped: safe in logs and terminals.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// A percent sign without two hex digits behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a % at byte {at} of the escaped text is not followed by two hex digits; write a literal % as %25"
)]
pub struct EscapeError {
    /// Byte offset of the percent sign.
    pub at: usize,
}

/// What a `+` means where escaped bytes stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plus {
    /// In a path: itself.
    Literal,
    /// In a query: a space.
    Space,
}

/// Percent-encodes everything but unreserved ASCII (RFC 3986 section 2.3) and `/`.
///
/// ```
/// assert_eq!(kvclient::key::escape(b"a/b c%\xff"), "a/b%20c%25%FF");
/// ```
pub fn escape(bytes: &[u8]) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
    const ESCAPED: AsciiSet = NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~')
        .remove(b'/');
    percent_encode(bytes, &ESCAPED).to_string()
}

/// Decodes percent-escapes to raw bytes.
///
/// # Errors
/// [`EscapeError`] names the bad `%`.
pub fn unescape(text: &[u8], plus: Plus) -> Result<Vec<u8>, EscapeError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'%' => {
                let digits = text
                    .get(at + 1)
                    .copied()
                    .and_then(hex)
                    .zip(text.get(at + 2).copied().and_then(hex));
                let (high, low) = digits.ok_or(EscapeError { at })?;
                bytes.push(high << 4 | low);
                at += 3;
                continue;
            }
            b'+' if plus == Plus::Space => bytes.push(b' '),
            other => bytes.push(other),
        }
        at += 1;
    }
    Ok(bytes)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_at_the_limit() {
        assert_eq!(Key::new(""), Err(KeyError::Empty));
        assert_eq!(Key::copy_from(b""), Err(KeyError::Empty));
        assert!(Key::new(vec![0; MAX_KEY_BYTES]).is_ok());
        assert_eq!(
            Key::new(vec![0; 512]),
            Err(KeyError::TooLong { len_bytes: 512 })
        );
        assert_eq!(
            Key::copy_from(&[0; 512]),
            Err(KeyError::TooLong { len_bytes: 512 })
        );
    }

    #[test]
    fn dot_segments_travel_in_the_query() {
        for (key, uri) in [
            (".", "/kv?key=."),
            ("..", "/kv?key=.."),
            ("a/../b", "/kv?key=a/../b"),
            ("...", "/kv/..."),
            ("a/b", "/kv/a/b"),
            ("a b", "/kv/a%20b"),
            ("+?#&=", "/kv/%2B%3F%23%26%3D"),
        ] {
            assert_eq!(Key::new(key).expect("short").to_uri(), uri);
        }
    }

    #[test]
    fn a_bad_escape_is_named() {
        assert_eq!(unescape(b"ab%4", Plus::Literal), Err(EscapeError { at: 2 }));
        assert_eq!(unescape(b"%zz", Plus::Literal), Err(EscapeError { at: 0 }));
        assert_eq!(unescape(b"a+b", Plus::Literal), Ok(b"a+b".to_vec()));
        assert_eq!(unescape(b"a+b%2B", Plus::Space), Ok(b"a b+".to_vec()));
    }

    proptest! {
        #[test]
        fn any_bytes_survive_a_path_and_a_query(bytes in proptest::collection::vec(any::<u8>(), 1..MAX_KEY_BYTES)) {
            let escaped = escape(&bytes);
            prop_assert!(escaped.is_ascii());
            prop_assert_eq!(unescape(escaped.as_bytes(), Plus::Literal), Ok(bytes.clone()));
            prop_assert_eq!(unescape(escaped.as_bytes(), Plus::Space), Ok(bytes));
        }
    }
}
