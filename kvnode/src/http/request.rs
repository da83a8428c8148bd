//! From a raw HTTP request to a key and an op: everything that is decoded by our own code.
//!
//! The framework decodes paths into text, which would fold different binary keys into one; here the raw path is
//! decoded to bytes.

use actix_web::HttpRequest;
use kvclient::{
    key::{Key, KeyError, Plus, unescape},
    position::Position,
    wire::{
        batch::{Ack, Condition, OpResult, RequestId, Terms},
        error::{Applied, ErrorCode},
        header,
        query::{Query, QueryError},
        route,
    },
};

/// A request that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BadRequest {
    pub(super) code: ErrorCode,
    pub(super) message: String,
}

impl BadRequest {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// As the result of an op; `applied` is `no` for writes, `None` for reads.
    pub(super) fn into_result(self, applied: Option<Applied>) -> OpResult {
        OpResult::refused(self.code, self.message, applied)
    }
}

impl From<KeyError> for BadRequest {
    fn from(error: KeyError) -> Self {
        let code = match error {
            KeyError::Empty => ErrorCode::KeyEmpty,
            KeyError::TooLong { .. } => ErrorCode::KeyTooLong,
        };
        Self::new(code, error.to_string())
    }
}

impl From<QueryError> for BadRequest {
    fn from(error: QueryError) -> Self {
        let code = match error {
            QueryError::Escape(_) => ErrorCode::BadEscape,
            _ => ErrorCode::BadParameter,
        };
        Self::new(code, error.to_string())
    }
}

/// What a request id looks like, for messages.
pub(super) const REQUEST_ID_FORM: &str = "<uuid>.<n>, optionally with ;floor=<m>";

/// What an ack looks like, for messages.
pub(super) const ACK_FORM: &str = "primary, majority, all, or a number of replicas from 1 to 253";

/// Parameters that ops on `/kv` know.
pub(super) const KV_PARAMETERS: &[&str] = &["key", "ttl", "incr", "persist", "at"];

/// The key and the parameters of a request to `/kv/{key}` or `/kv?key=`.
pub(super) fn key_and_query(request: &HttpRequest) -> Result<(Key, Query), BadRequest> {
    let path = request.uri().path();
    let query = Query::parse(request.uri().query().unwrap_or_default(), KV_PARAMETERS)?;
    let in_path = path
        .strip_prefix(route::KV)
        .and_then(|rest| rest.strip_prefix('/'));
    let key = match (in_path, query.bytes("key")) {
        (Some(_), Some(_)) => {
            let message = "the key stands in the path and as ?key=; give it once";
            return Err(BadRequest::new(ErrorCode::BadParameter, message));
        }
        (Some(escaped), None) => {
            let bytes = unescape(escaped.as_bytes(), Plus::Literal);
            bytes.map_err(|error| BadRequest::new(ErrorCode::BadEscape, error.to_string()))?
        }
        (None, Some(key)) => key.to_vec(),
        (None, None) => return Err(KeyError::Empty.into()),
    };
    Ok((Key::new(key)?, query))
}

/// The key and the parameters of a path that takes the key as `?key=` only.
pub(super) fn key_parameter(
    request: &HttpRequest,
    known: &[&str],
) -> Result<(Key, Query), BadRequest> {
    let query = Query::parse(request.uri().query().unwrap_or_default(), known)?;
    let Some(key) = query.bytes("key") else {
        return Err(BadRequest::new(
            ErrorCode::KeyEmpty,
            "the parameter key is missing: ?key=...",
        ));
    };
    Ok((Key::copy_from(key)?, query))
}

/// Conditions, promises asked for and limits, from headers.
pub(super) fn terms(request: &HttpRequest) -> Result<Terms, BadRequest> {
    Ok(Terms {
        condition: condition(request)?,
        request_id: request_id(request)?,
        ack: ack(request)?,
        min_position: parsed(
            request,
            header::MIN_POSITION,
            "a position such as 3.1207",
            |text| text.parse::<Position>().ok(),
        )?,
        max_lag_ms: parsed(request, header::MAX_LAG_MS, "milliseconds", number)?,
        wait_ms: parsed(request, header::WAIT_MS, "milliseconds", number)?,
        time_left_ms: None,
    })
}

fn condition(request: &HttpRequest) -> Result<Option<Condition>, BadRequest> {
    let if_match = text(request, "if-match")?;
    let if_none_match = text(request, "if-none-match")?;
    let etag = |name: &str, text: &str| {
        Position::from_etag(text).map_err(|_| {
            let message =
                format!("{name}: {text} is neither * nor one entity tag such as \"3.1207\"");
            BadRequest::new(ErrorCode::BadParameter, message)
        })
    };
    match (if_match, if_none_match) {
        (None, None) => Ok(None),
        (Some("*"), None) => Ok(Some(Condition::Exists)),
        (None, Some("*")) => Ok(Some(Condition::Absent)),
        (Some(tag), None) => etag("If-Match", tag).map(|position| Some(Condition::Is(position))),
        (None, Some(tag)) => {
            etag("If-None-Match", tag).map(|position| Some(Condition::Differs(position)))
        }
        (Some(_), Some(_)) => Err(BadRequest::new(
            ErrorCode::BadParameter,
            "If-Match and If-None-Match together; give one",
        )),
    }
}

/// `Kv-Request-Id`.
pub(super) fn request_id(request: &HttpRequest) -> Result<Option<RequestId>, BadRequest> {
    parsed(
        request,
        header::REQUEST_ID,
        REQUEST_ID_FORM,
        parse_request_id,
    )
}

/// `Kv-Ack`; `None` for the primary.
pub(super) fn ack(request: &HttpRequest) -> Result<Option<Ack>, BadRequest> {
    Ok(parsed(request, header::ACK, ACK_FORM, Ack::from_text)?.flatten())
}

/// `<uuid>.<n>` or `<uuid>.<n>;floor=<m>`; the uuid with or without dashes.
pub(super) fn parse_request_id(text: &str) -> Option<RequestId> {
    let (id, floor) = match text.split_once(';') {
        Some((id, floor)) => (id, number(floor.trim().strip_prefix("floor=")?)?),
        None => (text, 0),
    };
    let (uuid, n) = id.trim().split_once('.')?;
    let hex: String = uuid.chars().filter(|&c| c != '-').collect();
    let client = (hex.len() == 32)
        .then(|| u128::from_str_radix(&hex, 16).ok())
        .flatten()?;
    Some(RequestId {
        client,
        n: number(n)?,
        floor,
    })
}

/// Digits only: what `parse` takes besides (a plus sign) is refused.
pub(super) fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

/// A header as text; given twice or not printable is an error.
pub(super) fn text<'a>(
    request: &'a HttpRequest,
    name: &'static str,
) -> Result<Option<&'a str>, BadRequest> {
    let mut values = request.headers().get_all(name);
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(BadRequest::new(
            ErrorCode::BadParameter,
            format!("the header {name} is given twice"),
        ));
    }
    let text = value.to_str().map(str::trim);
    text.map(Some).map_err(|_| {
        BadRequest::new(
            ErrorCode::BadParameter,
            format!("the header {name} is not printable ASCII"),
        )
    })
}

/// A header read by `parse`; `wanted` says what it should be.
pub(super) fn parsed<T>(
    request: &HttpRequest,
    name: &'static str,
    wanted: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, BadRequest> {
    let Some(text) = text(request, name)? else {
        return Ok(None);
    };
    let error = || {
        BadRequest::new(
            ErrorCode::BadParameter,
            format!("{name}: {text:?} is not {wanted}"),
        )
    };
    parse(text).map(Some).ok_or_else(error)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;
    use proptest::prelude::*;

    use super::*;

    fn key_of(uri: &str) -> Result<Vec<u8>, ErrorCode> {
        let request = TestRequest::with_uri(uri).to_http_request();
        key_and_query(&request)
            .map(|(key, _)| key.as_bytes().to_vec())
            .map_err(|error| error.code)
    }

    #[test]
    fn keys_come_as_bytes() {
        for (uri, key) in [
            ("/kv/a", &b"a"[..]),
            ("/kv/a/b", b"a/b"),
            ("/kv/a%2Fb", b"a/b"),
            ("/kv/a+b", b"a+b"),
            ("/kv/%00%ff%FE", b"\0\xff\xfe"),
            ("/kv/%2e%2e", b".."),
            ("/kv//", b"/"),
            ("/kv?key=a+b", b"a b"),
            ("/kv?key=..", b".."),
            ("/kv?key=a%26b", b"a&b"),
        ] {
            assert_eq!(key_of(uri), Ok(key.to_vec()), "{uri}");
        }
    }

    #[test]
    fn bad_keys_are_named() {
        let long = format!("/kv/{}", "a".repeat(512));
        for (uri, code) in [
            ("/kv/", ErrorCode::KeyEmpty),
            ("/kv?key=", ErrorCode::KeyEmpty),
            ("/kv/%4", ErrorCode::BadEscape),
            ("/kv?key=%zz", ErrorCode::BadEscape),
            ("/kv?key=a&key=b", ErrorCode::BadParameter),
            ("/kv/a?key=b", ErrorCode::BadParameter),
            ("/kv/a?tll=9s", ErrorCode::BadParameter),
            (&long, ErrorCode::KeyTooLong),
        ] {
            assert_eq!(key_of(uri), Err(code), "{uri}");
        }
    }

    #[test]
    fn terms_of_headers() {
        let terms_of = |name: &'static str, value: &'static str| {
            terms(
                &TestRequest::default()
                    .insert_header((name, value))
                    .to_http_request(),
            )
        };
        for (name, value, expected) in [
            (
                "if-match",
                "*",
                Terms {
                    condition: Some(Condition::Exists),
                    ..Terms::default()
                },
            ),
            (
                "if-none-match",
                "*",
                Terms {
                    condition: Some(Condition::Absent),
                    ..Terms::default()
                },
            ),
            (
                "if-match",
                "\"1.2\"",
                Terms {
                    condition: Some(Condition::Is(Position::new(1, 2))),
                    ..Terms::default()
                },
            ),
            ("kv-ack", "primary", Terms::default()),
            (
                "kv-ack",
                "2",
                Terms {
                    ack: Some(Ack::Replicas(2)),
                    ..Terms::default()
                },
            ),
            (
                "kv-min-position",
                "3.4",
                Terms {
                    min_position: Some(Position::new(3, 4)),
                    ..Terms::default()
                },
            ),
            (
                "kv-wait-ms",
                "50",
                Terms {
                    wait_ms: Some(50),
                    ..Terms::default()
                },
            ),
            (
                "kv-request-id",
                "00000000-0000-0000-0000-0000000000ff.7;floor=3",
                Terms {
                    request_id: Some(RequestId {
                        client: 255,
                        n: 7,
                        floor: 3,
                    }),
                    ..Terms::default()
                },
            ),
        ] {
            assert_eq!(terms_of(name, value), Ok(expected), "{name}: {value}");
        }
        for (name, value) in [
            ("if-match", "1.2"),
            ("if-match", "\"1.2\", \"1.3\""),
            ("if-none-match", "W/\"1.2\""),
            ("kv-ack", "0"),
            ("kv-ack", "254"),
            ("kv-ack", "most"),
            ("kv-min-position", "5"),
            ("kv-wait-ms", "-5"),
            ("kv-wait-ms", "+5"),
            ("kv-request-id", "abc.1"),
        ] {
            assert!(terms_of(name, value).is_err(), "{name}: {value}");
        }
    }

    proptest! {
        /// Whatever stands in a header is understood in one way, or refused.
        #[test]
        fn texts_of_headers(text in any::<String>(), near in "[0-9a-f-]{30,38}\\.?[0-9+ ]{0,21};?(floor=)?[0-9]{0,21}") {
            for text in [&text, &near] {
                if let Some(id) = parse_request_id(text) {
                    let written = format!("{:032x}.{};floor={}", id.client, id.n, id.floor);
                    prop_assert_eq!(parse_request_id(&written), Some(id));
                }
                let _ = Ack::from_text(text);
                if let Some(number) = number::<u64>(text) {
                    let written = format!("{number:0>0$}", text.len());
                    prop_assert_eq!(&written, text);
                }
            }
        }
    }
}
