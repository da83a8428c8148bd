//! Times as people write them: RFC 3339, in UTC or with a distance from it, from 1970 to 9999.

const DAY_MS: u64 = 86_400_000;

/// A time as RFC 3339 has it, in UTC: `2026-11-26T12:05:09.250Z`.
pub fn time_text(unix_ms: u64) -> String {
    let (year, month, day) = date_of(unix_ms / DAY_MS);
    let ms = unix_ms % DAY_MS;
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{:03}Z",
        ms % 1_000
    )
}

/// Reads a time as RFC 3339 has it, with `Z` or a distance from UTC, as Unix milliseconds.
///
/// # Errors
/// What such a time looks like.
pub fn time_of_text(text: &str) -> Result<u64, String> {
    parse(text).ok_or_else(|| {
        format!("{text:?} is no time; write 2026-11-26T12:05:09Z or 2026-11-26T13:05:09.250+01:00")
    })
}

fn parse(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| -> Option<u64> {
        let digits = text.get(from..to)?;
        let all = digits.bytes().all(|byte| byte.is_ascii_digit());
        all.then(|| digits.parse().ok())?
    };
    let separators = [(4, '-'), (7, '-'), (10, 'T'), (13, ':'), (16, ':')];
    let are_there = separators
        .iter()
        .all(|(at, separator)| text.get(*at..at + 1) == Some(separator.encode_utf8(&mut [0; 4])));
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hours, minutes, seconds) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let days = (1970..=9999)
        .contains(&year)
        .then(|| days_before(year, month, day))??;
    if !are_there || hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    let (fraction_ms, zone) = fraction(text.get(19..)?)?;
    let local_ms = days * DAY_MS + (hours * 3_600 + minutes * 60 + seconds) * 1_000 + fraction_ms;
    let utc_ms = i64::try_from(local_ms).ok()? - zone_ms(zone)?;
    u64::try_from(utc_ms).ok()
}

/// Milliseconds behind the dot, if there is one, and what follows. Digits beyond them are left out.
fn fraction(text: &str) -> Option<(u64, &str)> {
    let Some(rest) = text.strip_prefix('.') else {
        return Some((0, text));
    };
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    let padded: String = rest[..end].chars().chain("000".chars()).take(3).collect();
    (end > 0).then(|| Some((padded.parse().ok()?, &rest[end..])))?
}

/// How far a zone is ahead of UTC.
fn zone_ms(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let (sign, rest) = match zone.strip_prefix('+') {
        Some(rest) => (1, rest),
        None => (-1, zone.strip_prefix('-')?),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let two = |text: &str| -> Option<i64> {
        let is_two = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        is_two.then(|| text.parse().ok())?
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes) * 60_000)
}

/// Days from 1970-01-01 to a date, if there is such a date.
fn days_before(year: u64, month: u64, day: u64) -> Option<u64> {
    let in_month = month_days(year, month)?;
    if !(1..=in_month).contains(&day) {
        return None;
    }
    let years: u64 = (1970..year).map(year_days).sum();
    let months: u64 = (1..month).filter_map(|month| month_days(year, month)).sum();
    Some(years + months + day - 1)
}

fn date_of(mut days: u64) -> (u64, u64, u64) {
    let mut year = 1970;
    while days >= year_days(year) {
        days -= year_days(year);
        year += 1;
    }
    let mut month = 1;
    while let Some(in_month) = month_days(year, month).filter(|in_month| days >= *in_month) {
        days -= in_month;
        month += 1;
    }
    (year, month, days + 1)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn year_days(year: u64) -> u64 {
    match is_leap(year) {
        true => 366,
        false => 365,
    }
}

fn month_days(year: u64, month: u64) -> Option<u64> {
    match month {
        4 | 6 | 9 | 11 => Some(30),
        2 if is_leap(year) => Some(29),
        2 => Some(28),
        1..=12 => Some(31),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_write_them() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T00:00:00.5Z", 500),
            ("1970-01-01T01:00:00+01:00", 0),
            ("1969-12-31T23:00:00-01:00", 0),
            ("2000-02-29T12:34:56.789Z", 951_827_696_789),
            ("2026-11-26T12:05:09.2504Z", 1_795_694_709_250),
            ("2026-11-26T13:05:09+01:00", 1_795_694_709_000),
        ] {
            let read = time_of_text(text);
            if text.starts_with("1969") {
                assert!(read.is_err(), "years before 1970 are not known");
            } else {
                assert_eq!(read, Ok(ms), "{text}");
            }
        }
        for text in [
            "",
            "yesterday",
            "2026-11-26",
            "2026-11-26T12:05:09",
            "2026-11-26 12:05:09Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-11-00T00:00:00Z",
            "2026-11-26T24:00:00Z",
            "2026-11-26T12:05:09.Z",
            "2026-11-26T12:05:09+1:00",
            "2026-11-26T12:05:09Zx",
            "+026-11-26T12:05:09Z",
            "2026-11-26T12:05:0é",
        ] {
            assert!(time_of_text(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_come_back() {
        assert_eq!(time_text(1_795_694_709_250), "2026-11-26T12:05:09.250Z");
        for day in (0..40_000).step_by(13) {
            let ms = day * DAY_MS + 5_025_678;
            assert_eq!(time_of_text(&time_text(ms)), Ok(ms));
        }
    }
}
