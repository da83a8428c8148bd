//! What the caller of this crate sees when an op fails, and what the crate itself does about a failed attempt.
//!
//! [`Error`] has a kind that says what to do, and an outcome that says whether a write may have happened; which
//! op, key, shard and node it was about stands in its text. Kinds are API, messages are not. `classify` places
//! every way in which an attempt can fail; a new one stops the build until it is placed.

use std::{fmt, time::Duration};

use crate::{
    attempt::{AttemptError, Outcome, Refusal},
    key::Key,
    position::Position,
    shard_map::Address,
    wire::error::ErrorCode,
};

/// Shorthand for this crate's results.
///
/// ```no_run
/// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
/// /// What a program asks of the store can return what the store returns.
/// async fn greeting(kv: &kvclient::Client, name: &str) -> kvclient::Result<String> {
///     let times = kv.incr(format!("greeted:{name}"), 1).await?;
///     Ok(format!("Hello {name}, for the {times}. time"))
/// }
///
/// let greeting = greeting(&kv, "ada").await.unwrap_or_else(|error| format!("Hello ({error})"));
/// # Ok(())
/// # }
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in as few kinds as a caller can act on differently.
///
/// ```no_run
/// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
/// use kvclient::ErrorKind;
///
/// if let Err(error) = kv.put("config", "v2").await {
///     match error.kind() {
///         ErrorKind::Unavailable => println!("later again: {error}"),
///         ErrorKind::Conflict => println!("read again, decide again: {error}"),
///         ErrorKind::Invalid => println!("a mistake in this program: {error}"),
///         _ => return Err(error), // for a person
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Can never succeed as written (key too long). Change the request. Not applied.
    Invalid,
    /// A condition did not hold; carries the current position. Read again, decide again. Not applied.
    Conflict,
    /// No or not enough rights. Not applied.
    Denied,
    /// No target answered in time. Retry later. `outcome()` says whether a write may have been applied.
    Unavailable,
    /// The shard has no room left. Reads work; an operator must grow it. Not applied.
    Full,
    /// Client and nodes disagree on the map even after a refresh. Check sharding.toml. Not applied.
    Misrouted,
    /// Bytes do not decode, or a stored entry is damaged. Keep the evidence, do not retry.
    Corrupt,
}

/// Why an op failed, with everything that is known about it.
///
/// One pointer wide, so that the results of ops that succeed stay small.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::error::Error;
/// use kvclient::{ErrorKind, Outcome};
///
/// # let text = "[[shards]]\nname = \"all\"\nidx = 0\naddress = \"localhost:8080\"\n";
/// # let map = kvclient::shard_map::toml::parse(text, "sharding.toml")?;
/// # let kv = kvclient::Client::builder(map).build()?;
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// # runtime.block_on(async {
/// let error = kv.put("", "a key has at least one byte").await.expect_err("no such key");
/// assert_eq!((error.kind(), error.outcome()), (ErrorKind::Invalid, Outcome::NotApplied));
/// assert_eq!((error.op(), error.attempts()), ("put", 0)); // it never left this program
/// assert_eq!((error.key(), error.shard(), error.node()), (None, None, None)); // named where they are known
/// assert_eq!((error.position(), error.lost_position()), (None, None)); // set for some conflicts
/// assert!(error.source().is_some()); // why; the error's text contains it
/// assert!(error.to_string().starts_with("put: the request is invalid: the key is empty"));
/// # });
/// # Ok(())
/// # }
/// ```
pub struct Error(Box<Details>);

struct Details {
    kind: ErrorKind,
    outcome: Outcome,
    op: &'static str,
    key: Option<Key>,
    shard: Option<String>,
    node: Option<Address>,
    attempts: u32,
    position: Option<Position>,
    lost_position: Option<Position>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error about an op (`get`, `put`, ...), not applied, with nothing else known yet.
    pub(crate) fn new(kind: ErrorKind, op: &'static str) -> Self {
        Self(Box::new(Details {
            kind,
            outcome: Outcome::NotApplied,
            op,
            key: None,
            shard: None,
            node: None,
            attempts: 0,
            position: None,
            lost_position: None,
            source: None,
        }))
    }

    pub(crate) fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(source.into());
        self
    }

    pub(crate) fn with_outcome(mut self, outcome: Outcome) -> Self {
        self.0.outcome = outcome;
        self
    }

    pub(crate) fn with_key(mut self, key: Key) -> Self {
        self.0.key = Some(key);
        self
    }

    pub(crate) fn with_shard(mut self, shard: impl Into<String>) -> Self {
        self.0.shard = Some(shard.into());
        self
    }

    pub(crate) fn with_node(mut self, node: Address) -> Self {
        self.0.node = Some(node);
        self
    }

    pub(crate) fn with_attempts(mut self, attempts: u32) -> Self {
        self.0.attempts = attempts;
        self
    }

    pub(crate) fn with_position(mut self, position: Option<Position>) -> Self {
        self.0.position = position;
        self
    }

    pub(crate) fn with_lost_position(mut self, lost: Position) -> Self {
        self.0.lost_position = Some(lost);
        self
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether a write may have been applied. Always [`Outcome::NotApplied`] for reads.
    pub fn outcome(&self) -> Outcome {
        self.0.outcome
    }

    /// The op: `get`, `put`, ...
    pub fn op(&self) -> &'static str {
        self.0.op
    }

    /// The key, if the op was about one.
    pub fn key(&self) -> Option<&Key> {
        self.0.key.as_ref()
    }

    /// Name of the shard that owns the key.
    pub fn shard(&self) -> Option<&str> {
        self.0.shard.as_deref()
    }

    /// The node asked last.
    pub fn node(&self) -> Option<&Address> {
        self.0.node.as_ref()
    }

    /// HTTP exchanges made for the op; 0 if it was refused before the first.
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// The entry's current position, where a condition did not hold and there is an entry.
    pub fn position(&self) -> Option<Position> {
        self.0.position
    }

    /// A position that this session had seen and that no node will ever hold again: writes up to it were lost in
    /// a disaster. The session has forgotten it, so the next read of the shard goes through; what the caller
    /// knows from before it may be wrong.
    pub fn lost_position(&self) -> Option<Position> {
        self.0.lost_position
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let details = &self.0;
        write!(f, "{}", details.op)?;
        if let Some(key) = &details.key {
            write!(f, " \"{key}\"")?;
        }
        write!(f, ": {}", details.kind)?;
        if details.outcome == Outcome::Unknown {
            f.write_str(", may have been applied")?;
        }
        if let Some(lost) = details.lost_position {
            write!(f, ", position {lost} is lost")?;
        }
        if let Some(shard) = &details.shard {
            write!(f, ", shard {shard}")?;
        }
        if let Some(node) = &details.node {
            write!(f, ", node {node}")?;
        }
        match details.attempts {
            0 | 1 => {}
            attempts => write!(f, ", {attempts} attempts")?,
        }
        match &details.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({self})")
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let source = self.0.source.as_deref()?;
        Some(source)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "the request is invalid",
            Self::Conflict => "a condition did not hold",
            Self::Denied => "denied",
            Self::Unavailable => "no node answered in time",
            Self::Full => "the shard has no room left",
            Self::Misrouted => "client and nodes disagree on the map",
            Self::Corrupt => "damaged data",
        })
    }
}

/// What to do after an attempt failed, if the op may be tried again at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Advice {
    /// Nothing; the op has failed.
    Stop,
    /// Ask another node that could answer; when all were asked, all of them again after a pause.
    NextTarget,
    /// Ask a node that was not asked yet; when all were, the op has failed.
    OtherTarget,
    /// The map in use is not the nodes': follow the redirect, or plan anew with a newer map.
    Replan,
    /// Wait about this long: the node said that it is too busy.
    Wait(Duration),
}

/// How long a node that is too busy is left alone, before jitter. About ten group commits.
pub(crate) const BUSY: Duration = Duration::from_millis(10);

/// Says what to do about a failed attempt and which kind of error it is if nothing can be done.
///
/// Whether a write may be tried again at all is a matter of its outcome and decided by the retry policy. A write has
/// one target, so "next" is the same node again for it, and "other" is none.
#[deny(clippy::wildcard_enum_match_arm)]
pub(crate) fn classify(error: &AttemptError) -> (ErrorKind, Advice) {
    match error {
        AttemptError::NotConnected(_)
        | AttemptError::NotSent
        | AttemptError::TimedOut
        | AttemptError::Broken(_) => (ErrorKind::Unavailable, Advice::NextTarget),
        AttemptError::Redirected { .. } | AttemptError::OtherShard { .. } => {
            (ErrorKind::Misrouted, Advice::Replan)
        }
        // The next attempt asks for the value alone, if this one did not.
        AttemptError::Undecodable(_) | AttemptError::AnswerTooLarge { .. } => {
            (ErrorKind::Corrupt, Advice::OtherTarget)
        }
        AttemptError::Refused(refusal) => classify_refusal(refusal),
    }
}

#[deny(clippy::wildcard_enum_match_arm)]
fn classify_refusal(refusal: &Refusal) -> (ErrorKind, Advice) {
    use ErrorCode as Code;
    match refusal.code {
        Code::BadRequest
        | Code::BadEscape
        | Code::BadParameter
        | Code::MalformedBatch
        | Code::KeyEmpty
        | Code::CrossSlot
        | Code::NoSuchPath
        | Code::MethodNotAllowed
        | Code::TooLarge
        | Code::KeyTooLong
        | Code::UnsupportedMediaType
        | Code::RequestIdReused
        | Code::HeadTooLarge
        | Code::NotImplemented => (ErrorKind::Invalid, Advice::Stop),
        Code::Unauthorized | Code::Forbidden | Code::ForbiddenScope | Code::ForbiddenKey => {
            (ErrorKind::Denied, Advice::Stop)
        }
        Code::NotFound
        | Code::NotANumber
        | Code::Overflow
        | Code::PositionLost
        | Code::LogTruncated
        | Code::SnapshotRequired
        | Code::PreconditionFailed => (ErrorKind::Conflict, Advice::Stop),
        // Its view of the shard is older than the map: whoever is primary now says so.
        Code::ReadOnlyReplica | Code::UnknownHost => (ErrorKind::Misrouted, Advice::Replan),
        Code::Behind
        | Code::NotReady
        | Code::ReplicaDiverged
        | Code::StorageFailed
        | Code::Diverged
        | Code::ForeignHistory
        | Code::StaleEpoch => (ErrorKind::Unavailable, Advice::NextTarget),
        // The node is well; replicas are away, or late.
        Code::TooManyRequests | Code::Overloaded | Code::TooFewReplicas | Code::AckTimeout => {
            (ErrorKind::Unavailable, Advice::Wait(BUSY))
        }
        Code::DeadlineExceeded | Code::RequestIdExpired => (ErrorKind::Unavailable, Advice::Stop),
        // Another node has a copy of its own.
        Code::Damaged => (ErrorKind::Corrupt, Advice::OtherTarget),
        Code::NoSpace => (ErrorKind::Full, Advice::Stop),
        Code::Other if refusal.status >= 500 => (ErrorKind::Unavailable, Advice::NextTarget),
        Code::Other => (ErrorKind::Invalid, Advice::Stop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_what_is_known() {
        let error = Error::new(ErrorKind::Unavailable, "put")
            .with_key(Key::new("a\n").expect("short"))
            .with_shard("shard1")
            .with_node("h:1".parse().expect("address"))
            .with_outcome(Outcome::Unknown)
            .with_attempts(2)
            .with_source(AttemptError::TimedOut);
        assert_eq!(
            error.to_string(),
            "put \"a\\n\": no node answered in time, may have been applied, shard shard1, node h:1, 2 attempts: \
             no answer in time"
        );
        assert!(std::error::Error::source(&error).is_some());
    }

    #[test]
    fn refusals_are_placed() {
        let place = |status, code| {
            classify(&AttemptError::Refused(Refusal {
                status,
                code,
                message: String::new(),
                applied: None,
                etag: None,
                position: None,
                target: None,
            }))
        };
        for (status, code, expected) in [
            (
                412,
                ErrorCode::PreconditionFailed,
                (ErrorKind::Conflict, Advice::Stop),
            ),
            (
                503,
                ErrorCode::Behind,
                (ErrorKind::Unavailable, Advice::NextTarget),
            ),
            (
                403,
                ErrorCode::ReadOnlyReplica,
                (ErrorKind::Misrouted, Advice::Replan),
            ),
            (507, ErrorCode::NoSpace, (ErrorKind::Full, Advice::Stop)),
            (
                599,
                ErrorCode::Other,
                (ErrorKind::Unavailable, Advice::NextTarget),
            ),
            (499, ErrorCode::Other, (ErrorKind::Invalid, Advice::Stop)),
        ] {
            assert_eq!(place(status, code), expected, "{}", code.as_str());
        }
    }
}
