//! Ops on keys of one slot that are done together or not at all.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    client::Client,
    entry::{
        Entry, Written, checked, counter, delete_op, entry, put_op, ttl_ms, unreadable, written,
        written_if_there,
    },
    error::{Error, ErrorKind, Result},
    options::{DeleteOptions, PutOptions},
    slot::Slot,
    wire::{
        MAX_BATCH_OPS,
        batch::{Ack, Action, Op, OpResult, decode_results},
    },
};

/// Ops to be done together, see [`Client::atomic`].
///
/// All keys have the hash tag `cart:5`, so one slot:
///
/// ```no_run
/// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
/// use std::time::Duration;
/// use kvclient::{Ack, PutOptions};
///
/// let day = Duration::from_secs(86_400);
/// kv.atomic()
///     .get("{cart:5}:items") // as it is before the ops below
///     .put_with("{cart:5}:owner", "ada", PutOptions::new().if_exists()) // if not: nothing is done
///     .put("{cart:5}:state", "paid")
///     .incr("{cart:5}:n", 1)
///     .touch("{cart:5}:items", day)
///     .persist("{cart:5}:state")
///     .delete("{cart:5}:coupon")
///     .timeout(Duration::from_secs(1))
///     .ack(Ack::Replicas(1)) // on two disks, all of it
///     .commit()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is done before commit"]
pub struct AtomicBatch {
    client: Client,
    ops: Vec<Op>,
    /// The first op that cannot be done as written.
    mistake: Option<Arc<Error>>,
    timeout: Option<Duration>,
    ack: Option<Option<Ack>>,
}

/// What became of one op of an atomic batch.
///
/// ```no_run
/// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
/// use kvclient::Done;
///
/// let done = kv.atomic().incr("{poll:3}:yes", 1).delete("{poll:3}:open").get("{poll:3}:title").commit().await?;
/// match &done[..] {
///     [Done::Counter(yes), Done::Changed(was_open), Done::Read(title)] => {
///         println!("{yes} votes, was open: {}, titled: {}", was_open.is_some(), title.is_some());
///     }
///     _ => unreachable!("one result per op, in their order"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// Of a get: the entry as the ops before left it; `None` if the key is absent.
    Read(Option<Entry>),
    /// Of a put.
    Written(Written),
    /// Of a delete, touch or persist; `None` if the key was absent, which keeps nothing else from being done.
    Changed(Option<Written>),
    /// Of an incr: the new value.
    Counter(i64),
}

impl Client {
    /// Begins a batch of ops that are done together or not at all. All keys must have one slot, which keys with a
    /// common hash tag do: only the bytes between the first `{` and the next `}` are hashed.
    ///
    /// ```no_run
    /// # async fn transfer(kv: kvclient::Client) -> kvclient::Result<()> {
    /// kv.atomic()
    ///     .incr("{account:7}:balance", -30)
    ///     .put("{account:7}:last", "paid 30")
    ///     .commit()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn atomic(&self) -> AtomicBatch {
        AtomicBatch {
            client: self.clone(),
            ops: Vec::new(),
            mistake: None,
            timeout: None,
            ack: None,
        }
    }
}

impl AtomicBatch {
    /// Reads an entry as the ops before leave it.
    pub fn get(self, key: impl AsRef<[u8]>) -> Self {
        self.act(key.as_ref(), "get", Action::Get)
    }

    /// Stores a value.
    pub fn put(self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Self {
        self.put_with(key, value, PutOptions::new())
    }

    /// Stores a value under terms of its own. If its condition does not hold, nothing of the batch is done. Its timeout
    /// is not looked at: see [`Self::timeout`].
    pub fn put_with(
        self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        options: PutOptions,
    ) -> Self {
        let op = put_op(key.as_ref(), value.into(), &options);
        self.push(op)
    }

    /// Removes a key.
    pub fn delete(self, key: impl AsRef<[u8]>) -> Self {
        self.delete_with(key, DeleteOptions::new())
    }

    /// Removes a key under terms of its own, as [`Self::put_with`].
    pub fn delete_with(self, key: impl AsRef<[u8]>, options: DeleteOptions) -> Self {
        let op = delete_op(key.as_ref(), &options);
        self.push(op)
    }

    /// Adds to a counter. If its value is no decimal i64 or would leave its range, nothing of the batch is done.
    pub fn incr(self, key: impl AsRef<[u8]>, delta: i64) -> Self {
        self.act(key.as_ref(), "incr", Action::Incr { delta })
    }

    /// Sets how long an entry lives from now on, in whole milliseconds, at least one.
    pub fn touch(self, key: impl AsRef<[u8]>, ttl: Duration) -> Self {
        let op = ttl_ms("touch", ttl).and_then(|ttl_ms| {
            Ok(Op::new(
                checked(key.as_ref(), "touch")?,
                Action::Expire { ttl_ms },
            ))
        });
        self.push(op)
    }

    /// Removes an entry's expiry.
    pub fn persist(self, key: impl AsRef<[u8]>) -> Self {
        self.act(key.as_ref(), "persist", Action::Persist)
    }

    /// Longest time the batch may take. Default: what the client was built with, by default 5 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Who must have synced the batch before it is answered; `None`: the primary alone. It waits as a whole, for the
    /// strongest of this and what its ops ask for. Default: what the client was built with, by default the primary.
    pub fn ack(mut self, ack: impl Into<Option<Ack>>) -> Self {
        self.ack = Some(ack.into());
        self
    }

    /// Does all ops, in their order: one result per op. No reader sees some of them done and others not. Without ops
    /// nobody is asked.
    ///
    /// ```no_run
    /// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
    /// use kvclient::{ErrorKind, PutOptions};
    ///
    /// let seen = kv.put("{seat:12}:holder", "nobody").await?.position;
    /// let mine = kv
    ///     .atomic()
    ///     .put_with("{seat:12}:holder", "ada", PutOptions::new().if_match(seen))
    ///     .incr("{seat:12}:changes", 1);
    /// match mine.commit().await {
    ///     Ok(done) => println!("{} ops done", done.len()),
    ///     Err(error) if error.kind() == ErrorKind::Conflict => println!("neither is done: {error}"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`]: keys of more than one slot, more than 1,000 ops or 16 MiB, or an op that cannot be done
    /// as written. [`ErrorKind::Conflict`]: a condition did not hold, or a counter is none; the source names the op.
    /// Otherwise as [`Client::put`]: what it says of the outcome holds for all of the ops.
    ///
    /// # Cancel safety
    /// All of the ops may be done, now or later, or none.
    pub async fn commit(self) -> Result<Vec<Done>> {
        let invalid =
            |problem: String| Error::new(ErrorKind::Invalid, "atomic batch").with_source(problem);
        if let Some(mistake) = self.mistake {
            let (kind, op) = (mistake.kind(), mistake.op());
            return Err(Error::new(kind, op).with_source(mistake));
        }
        let Some(first) = self.ops.first().cloned() else {
            return Ok(Vec::new());
        };
        if self.ops.len() > MAX_BATCH_OPS {
            let problem = format!(
                "{} ops; a batch has at most {MAX_BATCH_OPS}",
                self.ops.len()
            );
            return Err(invalid(problem));
        }
        let slot = Slot::of(&first.key);
        if let Some(other) = self.ops.iter().find(|op| Slot::of(&op.key) != slot) {
            let problem = format!(
                "\"{}\" and \"{}\" have different slots; keys of one batch share a hash tag, such as {{user:1}}:name \
                 and {{user:1}}:mail",
                first.key, other.key
            );
            return Err(invalid(problem));
        }
        let ops: Arc<[Op]> = self.ops.into();
        let intent = self.client.intent(&first, self.timeout);
        let intent = intent.acked_by(self.ack).atomic(ops.clone());
        let walk = self.client.router().plan(intent, first)?;
        let result = walk.run().await?;
        let results = decode_results(result.value.unwrap_or_default());
        let results = results.map_err(|error| unreadable("atomic batch", &error.to_string()))?;
        ops.iter()
            .zip(results)
            .map(|(op, result)| done(op, result))
            .collect()
    }

    fn act(self, key: &[u8], name: &'static str, action: Action) -> Self {
        let op = checked(key, name).map(|key| Op::new(key, action));
        self.push(op)
    }

    fn push(mut self, op: Result<Op>) -> Self {
        match op {
            Ok(op) => self.ops.push(op),
            Err(error) => _ = self.mistake.get_or_insert(Arc::new(error)),
        }
        self
    }
}

fn done(op: &Op, result: OpResult) -> Result<Done> {
    match &op.action {
        Action::Get => entry(result).map(Done::Read),
        Action::Put { .. } => written(result).map(Done::Written),
        Action::Incr { .. } => counter(&result).map(Done::Counter),
        Action::Delete | Action::Expire { .. } | Action::Persist => {
            written_if_there(result).map(Done::Changed)
        }
    }
}
