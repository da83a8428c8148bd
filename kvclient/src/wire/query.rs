//! Query strings and the small texts in them: parameters as raw bytes, and durations such as `90s`.
//!
//! A parameter given twice is an error, since two readers could pick different ones.

use crate::key::{EscapeError, Plus, unescape};

/// Parameters of a query, names and values decoded to bytes, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query(Vec<(Vec<u8>, Option<Vec<u8>>)>);

/// A query that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// A bad percent-escape.
    #[error(transparent)]
    Escape(#[from] EscapeError),
    /// A name stands twice.
    #[error("the parameter {0:?} is given twice")]
    Repeated(String),
    /// A name that this path does not know.
    #[error("the parameter {0:?} is unknown here")]
    Unknown(String),
    /// A value that is not what the name wants.
    #[error("{name}={value:?} is not {wanted}")]
    Value {
        /// The parameter.
        name: &'static str,
        /// What was given.
        value: String,
        /// What it should be.
        wanted: &'static str,
    },
}

impl Query {
    /// Splits a raw query (without its `?`) into parameters. `a=` has an empty value, `a` has none.
    ///
    /// # Errors
    /// [`QueryError`]: a bad escape, a name given twice, or one not among `known`.
    pub fn parse(raw: &str, known: &[&str]) -> Result<Self, QueryError> {
        let mut parameters: Vec<(Vec<u8>, Option<Vec<u8>>)> = Vec::new();
        for part in raw.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name, Some(unescape(value.as_bytes(), Plus::Space)?)),
                None => (part, None),
            };
            let name = unescape(name.as_bytes(), Plus::Space)?;
            if !known.iter().any(|known| known.as_bytes() == name) {
                return Err(QueryError::Unknown(name.escape_ascii().to_string()));
            }
            if parameters.iter().any(|(other, _)| *other == name) {
                return Err(QueryError::Repeated(name.escape_ascii().to_string()));
            }
            parameters.push((name, value));
        }
        Ok(Self(parameters))
    }

    /// Whether a parameter is there, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(other, _)| other == name.as_bytes())
    }

    /// Bytes of a parameter; empty if it stands without a value.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        let (_, value) = self.0.iter().find(|(other, _)| other == name.as_bytes())?;
        Some(value.as_deref().unwrap_or_default())
    }

    /// A parameter read by `parse`.
    ///
    /// # Errors
    /// [`QueryError::Value`] if it is there and `parse` does not take it; `wanted` says what it should be.
    pub fn parsed<T>(
        &self,
        name: &'static str,
        wanted: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, QueryError> {
        let Some(bytes) = self.bytes(name) else {
            return Ok(None);
        };
        let parsed = std::str::from_utf8(bytes).ok().and_then(parse);
        let error = || QueryError::Value {
            name,
            value: bytes.escape_ascii().to_string(),
            wanted,
        };
        parsed.map(Some).ok_or_else(error)
    }

    /// A yes-or-no parameter: absent is no; `name`, `name=true` and `name=1` are yes.
    ///
    /// # Errors
    /// [`QueryError::Value`] for anything else.
    pub fn flag(&self, name: &'static str) -> Result<bool, QueryError> {
        let parse = |text: &str| match text {
            "" | "1" | "true" => Some(true),
            "0" | "false" => Some(false),
            _ => None,
        };
        Ok(self.parsed(name, "true or false", parse)?.unwrap_or(false))
    }

    /// A duration such as `90s`, in milliseconds.
    ///
    /// # Errors
    /// [`QueryError::Value`] if it is not one, see [`parse_duration_ms`].
    pub fn duration_ms(&self, name: &'static str) -> Result<Option<u64>, QueryError> {
        self.parsed(
            name,
            "a whole number > 0 with ms, s, m, h or d behind it, for example 90s",
            parse_duration_ms,
        )
    }
}

/// Longest time to live, in milliseconds: 100 years.
pub const MAX_TTL_MS: u64 = 100 * 366 * 86_400_000;

/// Reads a whole number > 0 with its unit (`ms`, `s`, `m`, `h`, `d`) as milliseconds; at most 100 years.
pub fn parse_duration_ms(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit_ms: u64 = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let ms = text[..digits].parse::<u64>().ok()?.checked_mul(unit_ms)?;
    (1..=MAX_TTL_MS).contains(&ms).then_some(ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["key", "ttl", "keys_only"];

    #[test]
    fn parameters_are_bytes() {
        let query = Query::parse("key=a+b%2B%00%ff&keys_only", KNOWN).expect("a query");
        assert_eq!(query.bytes("key"), Some(&b"a b+\0\xff"[..]));
        assert_eq!(query.bytes("keys_only"), Some(&b""[..]));
        assert_eq!(query.bytes("ttl"), None);
        assert_eq!(query.flag("keys_only"), Ok(true));
        assert_eq!(
            Query::parse("key=", KNOWN).expect("a query").bytes("key"),
            Some(&b""[..])
        );
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(
            Query::parse("key=a&k%65y=b", KNOWN),
            Err(QueryError::Repeated("key".into()))
        );
        assert_eq!(
            Query::parse("kye=a", KNOWN),
            Err(QueryError::Unknown("kye".into()))
        );
        assert!(matches!(
            Query::parse("key=%g0", KNOWN),
            Err(QueryError::Escape(_))
        ));
        assert!(
            Query::parse("keys_only=maybe", KNOWN)
                .expect("a query")
                .flag("keys_only")
                .is_err()
        );
    }

    #[test]
    fn durations() {
        for (text, ms) in [
            ("1ms", 1),
            ("90s", 90_000),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("36500d", 3_153_600_000_000),
        ] {
            assert_eq!(parse_duration_ms(text), Some(ms), "{text}");
        }
        for bad in [
            "",
            "0s",
            "1",
            "s",
            "-1s",
            "+1s",
            "1.5s",
            "1 s",
            "1S",
            "99999999999999999999s",
            "40000d",
            "1w",
        ] {
            assert_eq!(parse_duration_ms(bad), None, "{bad:?}");
        }
    }
}
