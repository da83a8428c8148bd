//! Every knob: what it means, its unit, its default, and why that default.
//!
//! [`ClientOptions`] holds what is set once per client; the others what is set per op. All have public setters
//! that can be chained, and private fields, so that a knob can be added without breaking a caller.

use std::{sync::Arc, time::Duration};

use crate::{
    node_client::NodeClientOptions,
    policy::{Consistency, LeastBusy, ReadPolicy},
    position::Position,
    shard_map::Address,
    wire::{
        MAX_BATCH_OPS,
        batch::{Ack, Condition},
    },
};

/// Settings of a client. Built by the client's builder.
#[derive(Debug, Clone)]
pub(crate) struct ClientOptions {
    /// Longest time an op may take, all attempts and pauses included.
    pub(crate) timeout: Duration,
    /// Longest time one attempt of a read may take before another node is asked.
    pub(crate) attempt_timeout: Duration,
    /// Longest time one attempt of a write may take before it is repeated under its request id.
    pub(crate) write_attempt_timeout: Duration,
    /// Consistency of reads that do not say.
    pub(crate) consistency: Consistency,
    /// How long a node may wait to reach a session's position before it answers "behind".
    pub(crate) catch_up_wait: Duration,
    /// Ceiling of the first pause between attempts.
    pub(crate) first_pause: Duration,
    /// Ceiling of all pauses between attempts.
    pub(crate) longest_pause: Duration,
    /// Least time between two refreshes of the map that nobody waits for.
    pub(crate) refresh_interval: Duration,
    /// Longest wait for one node's map.
    pub(crate) refresh_timeout: Duration,
    /// Which node answers a read, among those that may.
    pub(crate) read_policy: Arc<dyn ReadPolicy>,
    /// Zone whose nodes are asked first.
    pub(crate) zone: Option<String>,
    pub(crate) hedging: Hedging,
    pub(crate) identity: Identity,
    /// Who must have synced a write that does not say; `None`: the primary.
    pub(crate) ack: Option<Ack>,
    /// How ops are batched.
    pub(crate) lanes: LaneOptions,
    /// How nodes are reached.
    pub(crate) nodes: NodeClientOptions,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            // A node restarts in less, so a rolling restart is a pause and not an error.
            timeout: Duration::from_secs(5),
            // A node that answers nothing costs a read half a second, once; one that is merely busy answers sooner.
            attempt_timeout: Duration::from_millis(500),
            // Longer than a slow sync, and a write is sent twice more before its time is over.
            write_attempt_timeout: Duration::from_millis(1_500),
            consistency: Consistency::ReadYourWrites,
            // A replica is a few ms behind; one that needs more is better left for another node. Reads that came with
            // this one wait too.
            catch_up_wait: Duration::from_millis(10),
            first_pause: Duration::from_millis(20),
            // Soon enough to notice that a node is back, late enough for a thousand clients.
            longest_pause: Duration::from_millis(500),
            refresh_interval: Duration::from_secs(1),
            refresh_timeout: Duration::from_secs(1),
            read_policy: Arc::new(LeastBusy),
            zone: None,
            hedging: Hedging::On,
            identity: Identity::Sent,
            // On the disk of the node that took it, in one exchange and one sync; what more is worth its time, and may be
            // refused while a replica is away, only the program knows.
            ack: None,
            lanes: LaneOptions::default(),
            nodes: NodeClientOptions::default(),
        }
    }
}

/// Whether reads that take long are asked a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hedging {
    On,
    Off,
}

/// Whether writes carry request ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    Sent,
    Omitted,
}

/// How concurrent ops to one node are gathered into batches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LaneOptions {
    /// Batches under way at once per node and lane. 1 gathers best and was fastest when measured (six nodes and their
    /// client on two cores, 256 tasks, medians of three): 338, 224 and 202 k GET/s with 1, 2 and 4; 71, 80 and 75 k
    /// SET/s, which is no difference on this machine.
    pub(crate) batches_in_flight: usize,
    /// Most ops of a batch: what a node takes. 256 tasks fill 30 to 52 of them.
    pub(crate) batch_ops: usize,
    /// Bytes at which a batch is full: larger ones delay their first op more than they save. A thousand values of 100
    /// bytes take a sixth of it; a MiB is 8 ms of a 1 Gbit/s network.
    pub(crate) batch_bytes: usize,
    /// Bytes of ops that may wait per lane; then callers wait to get in. Eight full batches.
    pub(crate) queue_bytes: u32,
    /// A value larger than this travels alone, so that small ops do not wait behind it: 64 KiB are half a millisecond
    /// of a 1 Gbit/s network, about one sync of a disk. Where the network is no bound the limit makes no difference that
    /// could be told from noise: 32 tasks putting 100 bytes beside 4 putting 32 to 512 KiB, limits from 8 KiB to 1 MiB,
    /// all on one machine and disk.
    pub(crate) alone_bytes: usize,
    /// Large values under way at once per node: each has a connection of its own.
    pub(crate) alone_in_flight: usize,
    /// How long a batch that is ready waits for the exchange under way. An exchange made in a caller's own
    /// future stands still if that caller stops polling it; other callers go on after this time.
    pub(crate) patience: Duration,
    /// How long an exchange may keep the next batch waiting before that leaves beside it. As one attempt of a
    /// read: what takes longer is stuck rather than busy.
    pub(crate) late_after: Duration,
    /// Late exchanges that others go past, per lane. A node that answers nothing has two or three of them at the
    /// usual timeouts; the rest is for ops with more patience.
    pub(crate) late_batches: usize,
    /// Longest time an exchange keeps the others waiting if too many are late already; then it is given up. As
    /// long as an op that does not say waits.
    pub(crate) longest_turn: Duration,
}

impl Default for LaneOptions {
    fn default() -> Self {
        Self {
            batches_in_flight: 1,
            batch_ops: MAX_BATCH_OPS,
            batch_bytes: 1 << 20,
            queue_bytes: 8 << 20,
            alone_bytes: 64 << 10,
            alone_in_flight: 4,
            patience: Duration::from_millis(10),
            late_after: Duration::from_millis(500),
            late_batches: 8,
            longest_turn: Duration::from_secs(5),
        }
    }
}

/// Terms of one read.
///
/// ```no_run
/// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
/// use std::time::Duration;
/// use kvclient::{Address, Consistency, GetOptions};
///
/// // What this very node has, whatever the others have: for somebody who compares them.
/// let replica: Address = "localhost:8083".parse().expect("an address");
/// let options = GetOptions::new()
///     .node(replica)
///     .consistency(Consistency::Eventual)
///     .timeout(Duration::from_millis(200));
/// let entry = kv.get_with("user:1", options).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct GetOptions {
    pub(crate) consistency: Option<Consistency>,
    pub(crate) node: Option<Address>,
    pub(crate) timeout: Option<Duration>,
}

impl GetOptions {
    /// The client's own settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// How new the answer must be. Default: what the client was built with, by default
    /// [`Consistency::ReadYourWrites`].
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.consistency = Some(consistency);
        self
    }

    /// Asks this node and no other. For tools that compare nodes; it must be one of the key's shard.
    pub fn node(mut self, address: Address) -> Self {
        self.node = Some(address);
        self
    }

    /// Longest time the op may take. Default: what the client was built with, by default 5 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

/// Terms of one put.
///
/// ```no_run
/// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
/// use std::time::Duration;
/// use kvclient::PutOptions;
///
/// let code = PutOptions::new().ttl(Duration::from_secs(300)).timeout(Duration::from_millis(800));
/// kv.put_with("code:ada", "493 022", code).await?; // whatever was there
/// let first = kv.put_with("name:ada", "1", PutOptions::new().if_absent()).await?; // nobody has the name
/// kv.put_with("name:ada", "2", PutOptions::new().if_match(first.position)).await?; // nobody wrote since
/// kv.put_with("name:ada", "3", PutOptions::new().if_exists()).await?; // somebody has the name
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct PutOptions {
    pub(crate) condition: Option<Condition>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) timeout: Option<Duration>,
    /// `Some(None)`: the primary, whatever the client's own says.
    pub(crate) ack: Option<Option<Ack>>,
}

impl PutOptions {
    /// Without condition and expiry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stores only if the key is absent. Replaces an earlier condition.
    pub fn if_absent(mut self) -> Self {
        self.condition = Some(Condition::Absent);
        self
    }

    /// Stores only if the key is there. Replaces an earlier condition.
    pub fn if_exists(mut self) -> Self {
        self.condition = Some(Condition::Exists);
        self
    }

    /// Stores only if the entry was last written at this position. Replaces an earlier condition.
    pub fn if_match(mut self, position: Position) -> Self {
        self.condition = Some(Condition::Is(position));
        self
    }

    /// How long the entry lives, in whole milliseconds: from 1 ms to 100 years. Default: for ever, also if the entry
    /// before had an expiry.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Longest time the op may take. Default: what the client was built with, by default 5 s. A put that is to wait
    /// longer than that may end earlier, as "may have been applied", if its node leaves many others unanswered.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Who must have synced the write before it returns; `None`: the primary alone. Default: what the client was built
    /// with, by default the primary; see [`Client::with_ack`](crate::Client::with_ack).
    pub fn ack(mut self, ack: impl Into<Option<Ack>>) -> Self {
        self.ack = Some(ack.into());
        self
    }
}

/// Terms of one delete.
///
/// ```no_run
/// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
/// use std::time::Duration;
/// use kvclient::{DeleteOptions, GetOptions};
///
/// if let Some(draft) = kv.get_with("draft:7", GetOptions::new()).await? {
///     let as_read = DeleteOptions::new().if_match(draft.position).timeout(Duration::from_secs(1));
///     kv.delete_with("draft:7", as_read).await?; // Conflict: somebody went on writing
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct DeleteOptions {
    pub(crate) condition: Option<Condition>,
    pub(crate) timeout: Option<Duration>,
    /// As of a put.
    pub(crate) ack: Option<Option<Ack>>,
}

impl DeleteOptions {
    /// Without condition.
    pub fn new() -> Self {
        Self::default()
    }

    /// Deletes only if the entry was last written at this position; not if there is none.
    pub fn if_match(mut self, position: Position) -> Self {
        self.condition = Some(Condition::Is(position));
        self
    }

    /// Longest time the op may take. Default: what the client was built with, by default 5 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Who must have synced the removal before it returns, as [`PutOptions::ack`].
    pub fn ack(mut self, ack: impl Into<Option<Ack>>) -> Self {
        self.ack = Some(ack.into());
        self
    }
}
