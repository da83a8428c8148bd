//! Decisions about ops, apart from the code that carries them out: which node to ask, whether to ask again, and when
//! to ask twice.
//!
//! Everything here is pure but for random draws: what it depends on is passed in. A [`ReadPolicy`] chooses among the
//! nodes that may answer, [`retry`] holds the one table of what is tried again.

pub(crate) mod budget;
mod choice;
pub(crate) mod hedge;
pub mod retry;

use std::time::Duration;

pub use choice::{Candidate, Candidates, LeastBusy, ReadPolicy, ReadRequest, StickyByKey};

/// How new the answer to a read must be.
///
/// ```no_run
/// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
/// use std::time::Duration;
/// use kvclient::{Consistency, GetOptions};
///
/// kv.put("stock:pears", "7").await?;
/// for (consistency, what) in [
///     (Consistency::ReadYourWrites, "7, or what was written since"),
///     (Consistency::Eventual, "7, or what was there before it"),
///     (Consistency::MaxLag(Duration::from_millis(100)), "nothing that was outdated 100 ms ago"),
///     (Consistency::Primary, "7, or what anybody has written since"),
/// ] {
///     let options = GetOptions::new().consistency(consistency);
///     println!("{:?}: {what}", kv.get_with("stock:pears", options).await?);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Consistency {
    /// Any node of the shard that holds everything this session has written or read. The default: as scalable as
    /// reads from replicas are, without their surprises.
    #[default]
    ReadYourWrites,
    /// Any node of the shard, as it is. The least waiting; may be older than what was read before. What it shows
    /// counts as seen all the same.
    Eventual,
    /// Any node of the shard whose copy is at most this old (whole milliseconds). Replicas that are older pass the
    /// read on, but only so many: a fifth of such reads may go on to another node at once, the others first wait a
    /// little, so that a cluster that lags does not get all its reads at its primaries.
    MaxLag(Duration),
    /// The primary: every acknowledged write, whoever made it.
    Primary,
}

/// What matters about an op when it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OpKind {
    /// Changes nothing: can be repeated anywhere, any number of times.
    Read,
    /// May change something: goes to the primary, and is repeated only if it surely was not applied.
    Write,
    /// A write under a request id: the shard remembers it, so a repeat is answered and not done again.
    RepeatableWrite,
}

impl OpKind {
    /// Whether it may change something.
    pub fn is_write(self) -> bool {
        match self {
            Self::Read => false,
            Self::Write | Self::RepeatableWrite => true,
        }
    }
}
