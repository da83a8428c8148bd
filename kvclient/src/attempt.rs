//! What one HTTP exchange with one node can come to, when it does not come to an answer.
//!
//! An [`AttemptError`] says how far the exchange got, since that decides whether a write may have been applied:
//! before anything was sent it was not; after that, only an answer that says so proves it. What to do about it is
//! decided elsewhere, see the table in [`policy::retry`](crate::policy::retry).

use crate::{
    position::Position,
    scheme::Scheme,
    shard_map::Address,
    wire::{
        batch::OpResult,
        error::{Applied, ErrorBody, ErrorCode},
        redirect,
    },
};

/// Whether a write that failed may have taken place.
///
/// ```no_run
/// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
/// use kvclient::Outcome;
///
/// match kv.put("order:12", "3 pears").await {
///     Ok(_) => println!("ordered"),
///     Err(error) if error.outcome() == Outcome::NotApplied => println!("not ordered; order again"),
///     // The same value under the same key: once more does no harm. Of a counter it would.
///     Err(_) => _ = kv.put("order:12", "3 pears").await?,
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It did not and will not.
    NotApplied,
    /// It did, or may yet; nobody can say.
    Unknown,
}

/// Why an attempt brought no answer that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttemptError {
    /// No connection came about; certainly nothing was sent.
    #[error("no connection: {0}")]
    NotConnected(String),
    /// Its time was over while it waited in this client's queue; certainly nothing was sent.
    #[error("not sent: its time was over while it waited for its turn")]
    NotSent,
    /// No answer in time. The request may have been sent.
    #[error("no answer in time")]
    TimedOut,
    /// The connection broke. The request may have been sent.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The node names another one to ask.
    #[error("redirected to {}", target.as_ref().map_or("nowhere".to_owned(), Address::to_string))]
    Redirected {
        /// The node to ask; `None` if the redirect does not name one as the protocol wants it.
        target: Option<Address>,
    },
    /// The node answers for another shard than the one it was asked for.
    #[error("it answers for shard {shard:?}")]
    OtherShard {
        /// The shard it answers for.
        shard: String,
    },
    /// The node refused.
    #[error("{0}")]
    Refused(Refusal),
    /// An answer came that does not decode.
    #[error("the answer does not decode: {0}")]
    Undecodable(String),
    /// The answer is larger than this client takes; it was cut off while it arrived.
    #[error("the answer has more than {limit_bytes} bytes")]
    AnswerTooLarge {
        /// The limit.
        limit_bytes: usize,
    },
}

/// A node's "no", with what it said about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{status} {}: {message}", code.as_str())]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// Why; [`ErrorCode::Other`] for a code from a newer version.
    pub code: ErrorCode,
    /// For a person.
    pub message: String,
    /// Whether a write took place, where the node says so.
    pub applied: Option<Applied>,
    /// Position of the current entry, where a condition did not hold and there is one.
    pub etag: Option<Position>,
    /// What the node has reached.
    pub position: Option<Position>,
    /// The node to ask instead.
    pub target: Option<Address>,
}

impl AttemptError {
    /// Whether a write whose attempt ended like this may have been applied.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::NotConnected(_)
            | Self::NotSent
            | Self::Redirected { .. }
            | Self::OtherShard { .. } => Outcome::NotApplied,
            Self::Refused(refusal) => refusal.outcome(),
            Self::TimedOut
            | Self::Broken(_)
            | Self::Undecodable(_)
            | Self::AnswerTooLarge { .. } => Outcome::Unknown,
        }
    }

    /// The node that should be asked instead, if this one named it.
    pub fn target(&self) -> Option<&Address> {
        match self {
            Self::Redirected { target } => target.as_ref(),
            Self::Refused(refusal) => refusal.target.as_ref(),
            _ => None,
        }
    }

    /// Judges an op's result: `Ok` for an answer (also "no such key" and "unchanged"), else why it is none.
    ///
    /// # Errors
    /// [`Self::Redirected`] or [`Self::Refused`], as the node said.
    pub fn check(result: OpResult) -> Result<OpResult, Self> {
        if Self::is_answer(&result) {
            return Ok(result);
        }
        let target = || result.target.as_deref().and_then(|text| text.parse().ok());
        match result.status {
            307 => Err(Self::Redirected { target: target() }),
            status => Err(Self::Refused(Refusal {
                status,
                target: target(),
                applied: result.applied,
                etag: result.etag,
                position: result.position,
                code: result.error_code().unwrap_or(ErrorCode::Other),
                message: result.error.map(|error| error.message).unwrap_or_default(),
            })),
        }
    }

    /// Whether an op's result is what was asked for, if only that there is no such key.
    pub(crate) fn is_answer(result: &OpResult) -> bool {
        match result.status {
            200..=299 | 304 => true,
            // Without that code it is another program's, or a path that is not there.
            404 => result.error_code() == Some(ErrorCode::NotFound),
            _ => false,
        }
    }

    /// Reads the refusal of a whole request: how the node was spoken to, status, body, and headers by name.
    pub(crate) fn from_http<'a>(
        scheme: Scheme,
        status: u16,
        body: &[u8],
        header: impl Fn(&str) -> Option<&'a str>,
    ) -> Self {
        use crate::wire::header as name;
        let target = header("location").and_then(|location| redirect::target(scheme, location));
        if (300..=399).contains(&status) {
            return Self::Redirected { target };
        }
        let error: Option<ErrorBody> = serde_json::from_slice(body).ok();
        if error.is_none() && (400..=499).contains(&status) {
            return Self::Undecodable(format!(
                "a {status} that says nothing, as of another program"
            ));
        }
        Self::Refused(Refusal {
            status,
            target,
            applied: header(name::APPLIED).and_then(Applied::from_text),
            etag: header("etag").and_then(|text| Position::from_etag(text).ok()),
            position: header(name::POSITION).and_then(|text| text.parse().ok()),
            code: error
                .as_ref()
                .map_or(ErrorCode::Other, |error| ErrorCode::from_text(&error.error)),
            message: error.map(|error| error.message).unwrap_or_default(),
        })
    }
}

impl Refusal {
    fn outcome(&self) -> Outcome {
        match self.applied {
            Some(Applied::No) => Outcome::NotApplied,
            Some(Applied::Unknown | Applied::Yes) => Outcome::Unknown,
            // Below 500 a node refuses before it acts; above, its silence proves nothing.
            None if self.status < 500 => Outcome::NotApplied,
            None => Outcome::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, applied: Option<Applied>) -> AttemptError {
        let header = |name: &str| match name {
            crate::wire::header::APPLIED => applied.map(Applied::as_str),
            _ => None,
        };
        AttemptError::from_http(
            Scheme::Http,
            status,
            br#"{"error":"not_ready","message":"starts"}"#,
            header,
        )
    }

    #[test]
    fn only_proof_makes_a_write_not_applied() {
        for (error, outcome) in [
            (AttemptError::NotSent, Outcome::NotApplied),
            (
                AttemptError::NotConnected(String::new()),
                Outcome::NotApplied,
            ),
            (AttemptError::TimedOut, Outcome::Unknown),
            (AttemptError::Broken(String::new()), Outcome::Unknown),
            (AttemptError::Undecodable(String::new()), Outcome::Unknown),
            (refused(403, None), Outcome::NotApplied),
            (refused(503, None), Outcome::Unknown),
            (refused(503, Some(Applied::No)), Outcome::NotApplied),
            (refused(409, Some(Applied::Unknown)), Outcome::Unknown),
        ] {
            assert_eq!(error.outcome(), outcome, "{error}");
        }
    }

    #[test]
    fn absence_is_an_answer_and_a_missing_path_is_not() {
        let result = |code| OpResult::refused(code, "m", None);
        assert!(AttemptError::check(result(ErrorCode::NotFound)).is_ok());
        assert!(AttemptError::check(result(ErrorCode::NoSuchPath)).is_err());
        let of_another_program = OpResult {
            status: 404,
            ..OpResult::default()
        };
        assert!(AttemptError::check(of_another_program).is_err());
    }

    #[test]
    fn a_refusal_of_another_program_proves_nothing() {
        let error = AttemptError::from_http(Scheme::Http, 404, b"<html>no such page", |_| None);
        assert!(matches!(error, AttemptError::Undecodable(_)));
        assert_eq!(error.outcome(), Outcome::Unknown);
    }

    #[test]
    fn a_redirect_names_its_node() {
        let header = |name: &str| (name == "location").then_some("http://h:1/kv/a");
        let target = |scheme| {
            let error = AttemptError::from_http(scheme, 307, b"", header);
            error.target().map(Address::to_string)
        };
        assert_eq!(target(Scheme::Http).as_deref(), Some("h:1"));
        assert_eq!(target(Scheme::Https), None);
    }
}
