//! Read, change, store if nobody was faster: [`Client::update`].
//!
//! The read goes to the primary: a replica may be a few writes behind, and a change made to what it shows would be
//! refused. Each store has the condition that the entry is still the one that was read. After a refusal comes a short
//! random pause, since whoever was faster is likely to come again, then all anew until the time is over.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use crate::{
    attempt::Outcome,
    client::Client,
    entry::{Entry, Written, checked},
    error::{Error, ErrorKind, Result},
    intent::LONGEST,
    key::Key,
    options::{GetOptions, PutOptions},
    policy::{Consistency, retry::Backoff},
};

impl Client {
    /// Changes a value by what it is: reads it, calls `change`, and stores what that returns, if nobody has written the
    /// key since; else all anew. `None`: `change` returned `None`, so nothing was stored.
    ///
    /// `change` gets `None` if the key is absent or has expired. It may be called several times, each time with what is
    /// there by then. The new value has no expiry, as of any put; [`Self::update_with`] can give it one. For counters,
    /// [`Self::incr`] is faster.
    ///
    /// ```no_run
    /// # async fn visit(kv: kvclient::Client) -> kvclient::Result<()> {
    /// let written = kv
    ///     .update("tags:7", |old| {
    ///         let mut tags = old.map_or(String::new(), |entry| String::from_utf8_lossy(&entry.value).into_owned());
    ///         if tags.contains("rust") {
    ///             return None; // leave it as it is
    ///         }
    ///         tags.push_str(" rust");
    ///         Some(tags)
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`]: others were faster until the time was over; not stored. Otherwise as [`Self::get`] and
    /// [`Self::put`]: an outcome of `Unknown` ends it, since the next read could not tell this client's own write from
    /// another's.
    ///
    /// # Cancel safety
    /// A changed value may be stored, now or later.
    pub async fn update<V: Into<Bytes>>(
        &self,
        key: impl AsRef<[u8]>,
        change: impl FnMut(Option<&Entry>) -> Option<V>,
    ) -> Result<Option<Written>> {
        self.update_with(key, PutOptions::new(), change).await
    }

    /// Changes a value under terms of its own. The time limit is for all rounds together; a condition is replaced by
    /// the one that the entry is unchanged.
    ///
    /// ```no_run
    /// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
    /// use std::time::Duration;
    /// use kvclient::PutOptions;
    ///
    /// // Five tries in ten minutes; each one starts the ten minutes anew.
    /// let terms = PutOptions::new().ttl(Duration::from_secs(600));
    /// let written = kv.update_with("tries:ada", terms, |old| {
    ///     let tries = old.map_or(0, |entry| entry.value.len());
    ///     (tries < 5).then(|| "x".repeat(tries + 1))
    /// });
    /// if written.await?.is_none() {
    ///     println!("too many tries; wait a while");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Self::update`]; also [`ErrorKind::Invalid`] for a ttl of less than 1 ms.
    ///
    /// # Cancel safety
    /// As [`Self::update`].
    pub async fn update_with<V: Into<Bytes>>(
        &self,
        key: impl AsRef<[u8]>,
        options: PutOptions,
        mut change: impl FnMut(Option<&Entry>) -> Option<V>,
    ) -> Result<Option<Written>> {
        let mut rounds = Rounds::new(self, key.as_ref(), options)?;
        loop {
            let old = rounds.read().await?;
            let Some(new) = change(old.as_ref()) else {
                return Ok(None);
            };
            if let Some(written) = rounds.store(old.as_ref(), new.into()).await? {
                return Ok(Some(written));
            }
        }
    }
}

/// An update under way. What is done between reading and storing is its user's.
pub(crate) struct Rounds {
    client: Client,
    key: Key,
    options: PutOptions,
    deadline: Instant,
    backoff: Backoff,
    attempts: u32,
    /// The last refusal, since somebody was faster.
    outrun: Option<Error>,
}

impl Rounds {
    pub(crate) fn new(client: &Client, key: &[u8], options: PutOptions) -> Result<Self> {
        let settings = &client.router().options;
        let timeout = options.timeout.unwrap_or(settings.timeout);
        Ok(Self {
            key: checked(key, "update")?,
            deadline: Instant::now() + timeout.min(LONGEST),
            backoff: Backoff::new(settings.first_pause, settings.longest_pause),
            client: client.clone(),
            options,
            attempts: 0,
            outrun: None,
        })
    }

    /// What is there now.
    pub(crate) async fn read(&mut self) -> Result<Option<Entry>> {
        let options = GetOptions::new()
            .consistency(Consistency::Primary)
            .timeout(self.deadline - Instant::now());
        let read = self.client.get_with(&self.key, options).await;
        read.map_err(|error| self.ended(error))
    }

    /// Stores a value in the place of what was read; `None`, after a pause, if somebody was faster.
    pub(crate) async fn store(
        &mut self,
        old: Option<&Entry>,
        new: Bytes,
    ) -> Result<Option<Written>> {
        self.attempts += 1;
        let options = self.options.timeout(self.deadline - Instant::now());
        let options = match old {
            Some(entry) => options.if_match(entry.position),
            None => options.if_absent(),
        };
        match self.client.put_with(&self.key, new, options).await {
            Ok(written) => Ok(Some(written)),
            // Refused, though an attempt before it may yet be applied: then nothing can be told.
            Err(error) if error.outcome() == Outcome::Unknown => Err(error),
            Err(error) if error.kind() == ErrorKind::Conflict => self.pause(error).await,
            Err(error) => Err(self.ended(error)),
        }
    }

    async fn pause(&mut self, error: Error) -> Result<Option<Written>> {
        let pause = self.backoff.next(Duration::ZERO, &mut fastrand::Rng::new());
        if Instant::now() + pause >= self.deadline {
            return Err(self.outrun(error));
        }
        self.outrun = Some(error);
        sleep(pause).await;
        Ok(None)
    }

    /// Why it ends: if only its time was over, since others were faster.
    fn ended(&mut self, error: Error) -> Error {
        let is_late = error.kind() == ErrorKind::Unavailable && Instant::now() >= self.deadline;
        match self.outrun.take() {
            Some(refusal) if is_late => self.outrun(refusal),
            _ => error,
        }
    }

    fn outrun(&self, refusal: Error) -> Error {
        let failed = Error::new(ErrorKind::Conflict, "update")
            .with_key(self.key.clone())
            .with_attempts(self.attempts)
            .with_position(refusal.position());
        let failed = match refusal.shard() {
            Some(shard) => failed.with_shard(shard),
            None => failed,
        };
        failed.with_source(refusal)
    }
}
