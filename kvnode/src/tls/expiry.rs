//! Until when a certificate is valid. rustls checks it and does not tell.
//!
//! ```text
//! Certificate  SEQUENCE
//!   tbs        SEQUENCE
//!     [0]      version, may be absent
//!     INTEGER  serial
//!     SEQUENCE algorithm of the signature
//!     SEQUENCE issuer
//!     SEQUENCE validity: two times, the second of them is meant
//! ```
//!
//! A time is `YYMMDDhhmmssZ` (tag 0x17, years 1950 to 2049) or `YYYYMMDDhhmmssZ` (0x18). X.509, RFC 5280 section 4.1.
//! Pure: no bytes make it panic.

use std::time::SystemTime;

use kvclient::rfc3339;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const SHORT_TIME: u8 = 0x17;
const LONG_TIME: u8 = 0x18;

/// The moment after which a certificate (DER) is no longer valid; `None` if it does not decode.
pub(super) fn not_after(certificate: &[u8]) -> Option<SystemTime> {
    let (certificate, _) = expect(SEQUENCE, certificate)?;
    let (mut tbs, _) = expect(SEQUENCE, certificate)?;
    if let Some((_, rest)) = expect(VERSION, tbs) {
        tbs = rest;
    }
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        (_, tbs) = expect(tag, tbs)?;
    }
    let (validity, _) = expect(SEQUENCE, tbs)?;
    let (_, _, rest) = element(validity)?;
    let (tag, time, _) = element(rest)?;
    moment(tag, str::from_utf8(time).ok()?)
}

/// The content of an element with this tag, and what follows it.
fn expect(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(bytes)?;
    (found == tag).then_some((content, rest))
}

/// Tag and content of the first element, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            let len = digits.iter().try_fold(0_usize, |len, &byte| {
                Some(len.checked_mul(256)? + usize::from(byte))
            })?;
            (len, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}

fn moment(tag: u8, text: &str) -> Option<SystemTime> {
    let long = match tag {
        SHORT_TIME if text.starts_with(['5', '6', '7', '8', '9']) => format!("19{text}"),
        SHORT_TIME => format!("20{text}"),
        LONG_TIME => text.to_owned(),
        _ => return None,
    };
    if long.len() != 15 || !long.is_ascii() {
        return None;
    }
    let part = |from: usize| &long[from..from + 2];
    rfc3339::parse(&format!(
        "{}-{}-{}T{}:{}:{}{}",
        &long[..4],
        part(4),
        part(6),
        part(8),
        part(10),
        part(12),
        &long[14..]
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(year: i32) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 12, 31);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_end_is_read_in_both_notations() {
        for year in [1999, 2024, 2049, 2050, 4096] {
            let end = not_after(&certificate(year)).unwrap();
            assert_eq!(rfc3339::format(end), format!("{year}-12-31T00:00:00Z"));
        }
    }

    #[test]
    fn what_is_cut_off_has_no_end() {
        let whole = certificate(2030);
        for cut in 0..whole.len() {
            assert_eq!(not_after(&whole[..cut]), None, "{cut}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(at in 0..200_usize, byte: u8, bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut changed = certificate(2030);
            changed[at] = byte;
            let _ = not_after(&changed);
            let _ = not_after(&bytes);
        }
    }
}
