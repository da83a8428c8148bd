//! Bytes as text: how keys are typed, and how keys and values stand in a line.
//!
//! In a line of output a backslash begins an escape: `\\`, `\n`, `\r`, `\t`, and `\xNN` for a byte that is no printable
//! text. So an entry is one line, a tab separates, a terminal obeys nothing that is in a value, and the way back is
//! unambiguous. What kvclient prints of keys ([`kvclient::Key`]'s `Display`) is read back too.

use std::ffi::{OsStr, OsString};

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::ValueEnum;

/// How keys are typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum KeyFormat {
    /// The bytes as they are
    #[default]
    Raw,
    /// With escapes, as kv prints keys: a\tb\xff
    Escaped,
    /// Two hex digits a byte
    Hex,
    /// Base64, as in "key_b64"
    Base64,
}

impl KeyFormat {
    /// The bytes that somebody typed.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub(crate) fn parse(self, typed: &OsStr) -> Result<Vec<u8>, String> {
        let bytes = bytes_of(typed)?;
        match self {
            Self::Raw => Ok(bytes),
            Self::Escaped => unescape(&bytes),
            Self::Hex => hex(&bytes),
            Self::Base64 => STANDARD
                .decode(&bytes)
                .map_err(|error| format!("\"{}\" is not base64: {error}", bytes.escape_ascii())),
        }
    }

    /// Several of them.
    ///
    /// # Errors
    /// As [`Self::parse`], of the first that is wrong.
    pub(crate) fn parse_all(self, typed: &[OsString]) -> Result<Vec<Vec<u8>>, String> {
        typed.iter().map(|typed| self.parse(typed)).collect()
    }
}

/// An argument's bytes as given.
#[cfg(unix)]
pub(crate) fn bytes_of(typed: &OsStr) -> Result<Vec<u8>, String> {
    use std::os::unix::ffi::OsStrExt;
    Ok(typed.as_bytes().to_vec())
}

/// An argument's bytes, where arguments are text.
#[cfg(not(unix))]
pub(crate) fn bytes_of(typed: &OsStr) -> Result<Vec<u8>, String> {
    let text = typed.to_str().ok_or("an argument is not Unicode text")?;
    Ok(text.as_bytes().to_vec())
}

/// Adds bytes to a line.
pub(crate) fn escape_into(line: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            let mut buffer = [0; 4];
            let utf8 = c.encode_utf8(&mut buffer).as_bytes();
            match c {
                '\\' => line.extend_from_slice(b"\\\\"),
                '\n' => line.extend_from_slice(b"\\n"),
                '\r' => line.extend_from_slice(b"\\r"),
                '\t' => line.extend_from_slice(b"\\t"),
                _ if is_printable(c) => line.extend_from_slice(utf8),
                _ => escape_bytes(line, utf8),
            }
        }
        escape_bytes(line, chunk.invalid());
    }
}

/// Bytes as they stand in a line.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut line = Vec::with_capacity(bytes.len());
    escape_into(&mut line, bytes);
    String::from_utf8_lossy(&line).into_owned()
}

/// Text that others said, without what a terminal would obey; its lines stay lines.
pub(crate) fn harmless(text: &str) -> String {
    let mut shown = Vec::with_capacity(text.len());
    for c in text.chars() {
        let mut buffer = [0; 4];
        let utf8 = c.encode_utf8(&mut buffer).as_bytes();
        match is_plain(c) {
            true => shown.extend_from_slice(utf8),
            false => escape_bytes(&mut shown, utf8),
        }
    }
    String::from_utf8_lossy(&shown).into_owned()
}

/// Whether a terminal shows these bytes as what they are: text in lines.
pub(crate) fn is_plain_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| text.chars().all(is_plain))
}

fn is_plain(c: char) -> bool {
    matches!(c, '\n' | '\t') || is_printable(c)
}

fn escape_bytes(line: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        line.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
    }
}

/// Neither a control character, nor one that changes the direction of text, nor unassigned.
fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    // Behind another one, since an accent alone counts as not printable.
    let mut pair = [b'a'; 5];
    let len_bytes = 1 + c.encode_utf8(&mut pair[1..]).len();
    let pair = std::str::from_utf8(&pair[..len_bytes]);
    pair.is_ok_and(|pair| pair.escape_debug().count() == 2)
}

/// Reads what [`escape_into`] writes.
fn unescape(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, behind @ ..] = rest {
        rest = behind;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let (byte, behind) = match rest {
            [b'x', high, low, behind @ ..] => (digits(*high, *low), behind),
            [simple, behind @ ..] => (simple_escape(*simple), behind),
            [] => (None, rest),
        };
        let at = text.len() - rest.len() - 1;
        bytes.push(byte.ok_or_else(|| {
            format!("byte {at} of \"{}\" begins no escape; these are \\\\ \\n \\r \\t \\0 \\' \\\" and \\xNN", text.escape_ascii())
        })?);
        rest = behind;
    }
    Ok(bytes)
}

fn simple_escape(name: u8) -> Option<u8> {
    match name {
        b'n' => Some(b'\n'),
        b'r' => Some(b'\r'),
        b't' => Some(b'\t'),
        b'0' => Some(0),
        b'\\' | b'\'' | b'"' => Some(name),
        _ => None,
    }
}

fn hex(text: &[u8]) -> Result<Vec<u8>, String> {
    let (pairs, rest) = text.as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| digits(*high, *low));
    let bytes = bytes.collect::<Option<Vec<u8>>>();
    bytes
        .filter(|_| rest.is_empty())
        .ok_or_else(|| format!("\"{}\" is not pairs of hex digits", text.escape_ascii()))
}

fn digits(high: u8, low: u8) -> Option<u8> {
    let digit = |text: u8| char::from(text).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_stays_readable_and_the_rest_is_escaped() {
        for (bytes, text) in [
            (&b"user:1"[..], "user:1"),
            (b"{\"a\": 'b'}", "{\"a\": 'b'}"),
            (b"a\tb\nc\r\\", "a\\tb\\nc\\r\\\\"),
            (b"\0\x1b[31m\x7f", "\\x00\\x1b[31m\\x7f"),
            (b"\xff\xc3", "\\xff\\xc3"),
            ("é日e\u{301}".as_bytes(), "é日e\u{301}"),
            ("\u{202e}\u{9b}".as_bytes(), "\\xe2\\x80\\xae\\xc2\\x9b"),
            (b"", ""),
        ] {
            assert_eq!(escaped(bytes), text);
        }
    }

    #[test]
    fn what_others_said_is_shown_and_not_obeyed() {
        let said = "m.toml:2:1: é \\xff\n\tgone\u{1b}[2J\r\u{202e}";
        assert_eq!(
            harmless(said),
            "m.toml:2:1: é \\xff\n\tgone\\x1b[2J\\x0d\\xe2\\x80\\xae"
        );
    }

    #[test]
    fn what_a_terminal_may_be_shown() {
        assert!(is_plain_text("two\tlines é\n".as_bytes()));
        for not in [&b"\x1b[2J"[..], b"\xff", b"a\rb", b"\0"] {
            assert!(!is_plain_text(not), "{not:?}");
        }
    }

    #[test]
    fn keys_are_typed_in_four_ways() {
        for (format, typed, key) in [
            (KeyFormat::Raw, "a\\n", &b"a\\n"[..]),
            (KeyFormat::Escaped, "a\\n\\xFf\\0\\'", b"a\n\xff\0'"),
            (KeyFormat::Hex, "00fFa1", b"\0\xff\xa1"),
            (KeyFormat::Base64, "AP8=", b"\0\xff"),
        ] {
            let parsed = format.parse(typed.as_ref());
            assert_eq!(parsed.as_deref(), Ok(key), "{typed}");
        }
        for (format, typed) in [
            (KeyFormat::Escaped, "a\\"),
            (KeyFormat::Escaped, "\\x4"),
            (KeyFormat::Escaped, "\\xgg"),
            (KeyFormat::Escaped, "\\q"),
            (KeyFormat::Hex, "0"),
            (KeyFormat::Hex, "0g"),
            (KeyFormat::Hex, "+1"),
            (KeyFormat::Base64, "AP8"),
        ] {
            assert!(format.parse(typed.as_ref()).is_err(), "{typed}");
        }
        let error = unescape(b"ab\\q").expect_err("no escape");
        assert!(error.starts_with("byte 2 of \"ab\\\\q\""), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let line = escaped(&bytes);
            prop_assert!(!line.contains(['\n', '\t']));
            prop_assert_eq!(unescape(line.as_bytes()), Ok(bytes.clone()));
            // As kvclient prints keys.
            prop_assert_eq!(unescape(bytes.escape_ascii().to_string().as_bytes()), Ok(bytes));
        }

        #[test]
        fn any_text_comes_back(text: String) {
            prop_assert_eq!(unescape(escaped(text.as_bytes()).as_bytes()), Ok(text.into_bytes()));
        }
    }
}
