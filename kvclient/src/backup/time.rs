//! Times of a backup as text: Unix milliseconds, told and typed as RFC 3339 has it.

use std::time::{Duration, UNIX_EPOCH};

use crate::rfc3339;

/// A time as RFC 3339 has it, in UTC: `2026-11-26T12:05:09.250Z`.
pub fn time_text(unix_ms: u64) -> String {
    rfc3339::format_ms(UNIX_EPOCH + Duration::from_millis(unix_ms))
}

/// Reads a time as RFC 3339 has it, with `Z` or a distance from UTC, as Unix milliseconds.
///
/// # Errors
/// What such a time looks like.
pub fn time_of_text(text: &str) -> Result<u64, String> {
    let since = rfc3339::parse(text).and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let ms = since.and_then(|since| u64::try_from(since.as_millis()).ok());
    ms.ok_or_else(|| {
        format!("{text:?} is no time; write 2026-11-26T12:05:09Z or 2026-11-26T13:05:09.250+01:00")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back() {
        assert_eq!(time_text(1_795_694_709_250), "2026-11-26T12:05:09.250Z");
        for (text, ms) in [
            ("1970-01-01T00:00:00.5Z", 500),
            ("2000-02-29T12:34:56.789Z", 951_827_696_789),
            ("2026-11-26T12:05:09.2504Z", 1_795_694_709_250),
            ("2026-11-26T13:05:09+01:00", 1_795_694_709_000),
        ] {
            assert_eq!(time_of_text(text), Ok(ms), "{text}");
        }
        assert!(time_of_text("yesterday").is_err_and(|why| why.contains("yesterday")));
    }
}
