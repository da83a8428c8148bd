//! What a node says when it refuses: one table of codes with their statuses, and the JSON body.
//!
//! `{"error":"key_too_long","message":"..."}`: the code is API, the message is for people and may change.

use serde::{Deserialize, Serialize};

/// Every reason for which a node refuses, with its HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// 400: the request cannot be understood.
    BadRequest,
    /// 400: a `%` is not followed by two hex digits.
    BadEscape,
    /// 400: a parameter or header is malformed, unknown here, or given twice.
    BadParameter,
    /// 400: the batch does not decode; nothing was done.
    MalformedBatch,
    /// 400: the key has no bytes.
    KeyEmpty,
    /// 400: an atomic batch names keys of more than one slot.
    CrossSlot,
    /// 401: no or unknown credentials.
    Unauthorized,
    /// 403: this is a replica; writes go to the primary named.
    ReadOnlyReplica,
    /// 403: sent by a web page, a proxy or a peer that may not.
    Forbidden,
    /// 403: the caller's token lacks a scope, which the message names.
    ForbiddenScope,
    /// 403: the caller's token is for keys of other prefixes.
    ForbiddenKey,
    /// 404: no such key.
    NotFound,
    /// 404: no such path.
    NoSuchPath,
    /// 405: not with this method.
    MethodNotAllowed,
    /// 409: a counter op on a value that is not a decimal i64.
    NotANumber,
    /// 409: the counter would leave the range of i64.
    Overflow,
    /// 409: the replica's log and this one's have parted.
    Diverged,
    /// 409: the replica's log belongs to another history.
    ForeignHistory,
    /// 409: the replica knows a newer reign than this node's.
    StaleEpoch,
    /// 410: a newer reign began below the position asked for; it will never come.
    PositionLost,
    /// 410: the log no longer reaches back that far.
    LogTruncated,
    /// 410: as [`Self::LogTruncated`], to a replica: it needs a snapshot.
    SnapshotRequired,
    /// 412: the condition does not hold; the current entity tag is given.
    PreconditionFailed,
    /// 413: the value, the body or the batch is over its limit.
    TooLarge,
    /// 414: the key has more than 511 bytes.
    KeyTooLong,
    /// 415: a content type that this path does not take.
    UnsupportedMediaType,
    /// 421: `Host` is not a name of this node.
    UnknownHost,
    /// 422: another op came under this request id.
    RequestIdReused,
    /// 429: too many requests.
    TooManyRequests,
    /// 431: the request's head is over its limit.
    HeadTooLarge,
    /// 500: a stored entry does not match its checksum.
    Damaged,
    /// 501: not in this version.
    NotImplemented,
    /// 503: this node does not hold the position asked for yet, or lags more than allowed.
    Behind,
    /// 503: this node does not serve now; the message says why.
    NotReady,
    /// 503: this replica's log has parted from its primary's.
    ReplicaDiverged,
    /// 503: a queue is full or a cap is reached.
    Overloaded,
    /// 503: fewer replicas are connected than the write must reach.
    TooFewReplicas,
    /// 503: the node stops; whether the write took place is not known.
    StorageFailed,
    /// 504: the op's time was over before it was done.
    DeadlineExceeded,
    /// 504: the write is durable here, but not yet on as many replicas as it must reach.
    AckTimeout,
    /// 504: outcome of this request id is no longer remembered.
    RequestIdExpired,
    /// 507: no space left for writes; reads go on.
    NoSpace,
    /// A code that this version does not know.
    Other,
}

/// Code, text and status of every error.
const TABLE: &[(ErrorCode, &str, u16)] = &[
    (ErrorCode::BadRequest, "bad_request", 400),
    (ErrorCode::BadEscape, "bad_escape", 400),
    (ErrorCode::BadParameter, "bad_parameter", 400),
    (ErrorCode::MalformedBatch, "malformed_batch", 400),
    (ErrorCode::KeyEmpty, "key_empty", 400),
    (ErrorCode::CrossSlot, "cross_slot", 400),
    (ErrorCode::Unauthorized, "unauthorized", 401),
    (ErrorCode::ReadOnlyReplica, "read_only_replica", 403),
    (ErrorCode::Forbidden, "forbidden", 403),
    (ErrorCode::ForbiddenScope, "forbidden_scope", 403),
    (ErrorCode::ForbiddenKey, "forbidden_key", 403),
    (ErrorCode::NotFound, "not_found", 404),
    (ErrorCode::NoSuchPath, "no_such_path", 404),
    (ErrorCode::MethodNotAllowed, "method_not_allowed", 405),
    (ErrorCode::NotANumber, "not_a_number", 409),
    (ErrorCode::Overflow, "overflow", 409),
    (ErrorCode::Diverged, "diverged", 409),
    (ErrorCode::ForeignHistory, "foreign_history", 409),
    (ErrorCode::StaleEpoch, "stale_epoch", 409),
    (ErrorCode::PositionLost, "position_lost", 410),
    (ErrorCode::LogTruncated, "log_truncated", 410),
    (ErrorCode::SnapshotRequired, "snapshot_required", 410),
    (ErrorCode::PreconditionFailed, "precondition_failed", 412),
    (ErrorCode::TooLarge, "too_large", 413),
    (ErrorCode::KeyTooLong, "key_too_long", 414),
    (
        ErrorCode::UnsupportedMediaType,
        "unsupported_media_type",
        415,
    ),
    (ErrorCode::UnknownHost, "unknown_host", 421),
    (ErrorCode::RequestIdReused, "request_id_reused", 422),
    (ErrorCode::TooManyRequests, "too_many_requests", 429),
    (ErrorCode::HeadTooLarge, "head_too_large", 431),
    (ErrorCode::Damaged, "damaged", 500),
    (ErrorCode::NotImplemented, "not_implemented", 501),
    (ErrorCode::Behind, "behind", 503),
    (ErrorCode::NotReady, "not_ready", 503),
    (ErrorCode::ReplicaDiverged, "replica_diverged", 503),
    (ErrorCode::Overloaded, "overloaded", 503),
    (ErrorCode::TooFewReplicas, "too_few_replicas", 503),
    (ErrorCode::StorageFailed, "storage_failed", 503),
    (ErrorCode::DeadlineExceeded, "deadline_exceeded", 504),
    (ErrorCode::AckTimeout, "ack_timeout", 504),
    (ErrorCode::RequestIdExpired, "request_id_expired", 504),
    (ErrorCode::NoSpace, "no_space", 507),
    (ErrorCode::Other, "other", 500),
];

impl ErrorCode {
    /// Every code, in the order of their statuses; [`Self::Other`] at the end.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.0)
    }

    /// The code as it stands in the body.
    pub fn as_str(self) -> &'static str {
        self.row().1
    }

    /// The HTTP status it comes with.
    pub fn status(self) -> u16 {
        self.row().2
    }

    /// The code of a text; [`Self::Other`] for one from a newer version.
    pub fn from_text(text: &str) -> Self {
        TABLE
            .iter()
            .find(|row| row.1 == text)
            .map_or(Self::Other, |row| row.0)
    }

    fn row(self) -> &'static (Self, &'static str, u16) {
        TABLE
            .iter()
            .find(|row| row.0 == self)
            .expect("a test finds every code in the table")
    }
}

/// The body of a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The code, see [`ErrorCode::from_text`].
    pub error: String,
    /// What is wrong and what to do, for a person.
    pub message: String,
}

impl ErrorBody {
    /// A body of code and message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            error: code.as_str().to_owned(),
            message: message.into(),
        }
    }

    /// The body as JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("two strings always serialise")
    }
}

/// Whether a write took place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Applied {
    /// It did, and is durable.
    Yes,
    /// It did not and will not.
    No,
    /// It did, or may yet; nobody can say.
    Unknown,
}

impl Applied {
    /// Value of the `Kv-Applied` header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unknown => "unknown",
        }
    }

    /// Reads the value of a `Kv-Applied` header.
    pub fn from_text(text: &str) -> Option<Self> {
        [Self::Yes, Self::No, Self::Unknown]
            .into_iter()
            .find(|applied| applied.as_str() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_back_and_none_is_listed_twice() {
        for (at, (code, text, status)) in TABLE.iter().enumerate() {
            assert_eq!(ErrorCode::from_text(text), *code);
            assert_eq!((code.as_str(), code.status()), (*text, *status));
            assert!(
                TABLE[..at].iter().all(|row| row.1 != *text),
                "{text} stands twice"
            );
        }
        assert_eq!(ErrorCode::from_text("from_the_future"), ErrorCode::Other);
    }

    #[test]
    fn the_body_is_what_the_protocol_says() {
        let body = ErrorBody::new(ErrorCode::KeyEmpty, "no \"key\"");
        assert_eq!(
            body.to_json(),
            r#"{"error":"key_empty","message":"no \"key\""}"#
        );
    }
}
