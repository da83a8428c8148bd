//! Many keys at once: the same ops as one by one, grouped by node, each with a result of its own.
//!
//! Not transactions: each item succeeds or fails by itself, and only those that failed are tried again. Items on
//! one key act in the order of the list: a later write to it leaves when the earlier one is over. (In one batch they
//! would keep that order too, until one of them is refused and comes again, or is large and travels alone.)

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};

use crate::{
    client::Client,
    entry::{Entry, Written, checked, delete_op, entry, put_op, written, written_if_there},
    error::Result,
    options::{DeleteOptions, GetOptions, PutOptions},
    policy::Consistency,
    wire::{
        MAX_BATCH_OPS,
        batch::{Action, Op},
    },
};

impl Client {
    /// Reads many values: one per key, in order. Keys of one node travel in one request.
    ///
    /// ```no_run
    /// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
    /// let names = kv.get_many(["user:1", "user:2", "user:3"]).await?;
    /// let known = names.iter().flatten().count();
    /// println!("{known} of {} are known", names.len());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The first error of any key; [`Self::get_many_with`] gives one result per key.
    ///
    /// # Cancel safety
    /// Nothing is changed by it.
    pub async fn get_many<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Bytes>>> {
        let entries = self.get_many_with(keys, GetOptions::new()).await;
        let value = |entry: Option<Entry>| entry.map(|entry| entry.value);
        entries.into_iter().map(|entry| entry.map(value)).collect()
    }

    /// Reads many entries: one result per key, in order. Only keys that failed are tried again.
    ///
    /// ```no_run
    /// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
    /// use std::time::Duration;
    /// use kvclient::{Consistency, GetOptions};
    ///
    /// let keys = ["ad:1", "ad:2"];
    /// let soon = GetOptions::new().consistency(Consistency::Eventual).timeout(Duration::from_millis(50));
    /// for (key, entry) in keys.iter().zip(kv.get_many_with(keys, soon).await) {
    ///     match entry {
    ///         Ok(Some(entry)) => println!("{key}: {} bytes", entry.value.len()),
    ///         Ok(None) => println!("{key}: none"),
    ///         Err(error) => println!("{key}: without it, then: {error}"), // the others are there all the same
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Each key's own, as of [`Self::get_with`]: keys that failed do not keep the others from being read.
    ///
    /// # Cancel safety
    /// Nothing is changed by it.
    pub async fn get_many_with<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        options: GetOptions,
    ) -> Vec<Result<Option<Entry>>> {
        let intent = |key: K| {
            let op = Op::new(checked(key.as_ref(), "get")?, Action::Get);
            let intent = self.intent(&op, options.timeout);
            Ok((
                intent.read_from(options.consistency, options.node.clone()),
                op,
            ))
        };
        let results = self
            .router()
            .run_many(keys.into_iter().map(intent).collect())
            .await;
        results.into_iter().map(|result| entry(result?)).collect()
    }

    /// Stores many values: one result per item, in order. Items of one node travel in one request; where a key stands
    /// twice, the values are stored one after the other, in the order of the list.
    ///
    /// ```no_run
    /// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
    /// let rows = (1..=1_000).map(|row| (format!("row:{row}"), format!("{}", row * row)));
    /// let written = kv.put_many(rows).await?;
    /// assert_eq!(written.len(), 1_000);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The first error of any item; the others may have been stored all the same. [`Self::put_many_with`] gives
    /// one result per item.
    ///
    /// # Cancel safety
    /// Any of the values may be stored, now or later.
    pub async fn put_many<K: AsRef<[u8]>, V: Into<Bytes>>(
        &self,
        items: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Vec<Written>> {
        let results = self.put_many_with(items, PutOptions::new()).await;
        results.into_iter().collect()
    }

    /// Stores many values under the same terms: one result per item, in order. Only items that failed are tried again,
    /// each as a put of its own would be.
    ///
    /// Where a key stands twice, the later item leaves when the earlier one has its result, also if that is an error;
    /// the time limit covers its wait. So the last value stays, unless an earlier one failed with
    /// [`Outcome::Unknown`](crate::Outcome::Unknown): that one may yet be stored, after the later ones.
    ///
    /// ```no_run
    /// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
    /// use kvclient::{Outcome, PutOptions};
    ///
    /// let items = [("seat:12", "ada"), ("seat:13", "ada")];
    /// let mine = kv.put_many_with(items, PutOptions::new().if_absent()).await;
    /// for ((seat, _), written) in items.iter().zip(&mine) {
    ///     match written {
    ///         Ok(_) => println!("{seat} is ours"),
    ///         Err(error) if error.outcome() == Outcome::NotApplied => println!("{seat} is not: {error}"),
    ///         Err(error) => println!("{seat}: look again, it may be ours: {error}"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Each item's own, as of [`Self::put_with`]: items that failed do not keep the others from being stored.
    ///
    /// # Cancel safety
    /// As [`Self::put_many`].
    pub async fn put_many_with<K: AsRef<[u8]>, V: Into<Bytes>>(
        &self,
        items: impl IntoIterator<Item = (K, V)>,
        options: PutOptions,
    ) -> Vec<Result<Written>> {
        let intent = |(key, value): (K, V)| {
            let op = put_op(key.as_ref(), value.into(), &options)?;
            let intent = self.intent(&op, options.timeout);
            Ok((intent.acked_by(options.ack), op))
        };
        let results = self
            .router()
            .run_many(items.into_iter().map(intent).collect())
            .await;
        results.into_iter().map(|result| written(result?)).collect()
    }

    /// Removes many keys: for each, in order, whether it was there.
    ///
    /// ```no_run
    /// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
    /// let were_there = kv.delete_many(["cart:7", "cart:8"]).await?;
    /// println!("{} carts removed", were_there.iter().filter(|&&was_there| was_there).count());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The first error of any key; the others may have been removed all the same. [`Self::delete_many_with`] gives
    /// one result per key.
    ///
    /// # Cancel safety
    /// Any of the keys may be removed, now or later.
    pub async fn delete_many<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<bool>> {
        let results = self.delete_many_with(keys, DeleteOptions::new()).await;
        let was_there = |removed: Option<Written>| removed.is_some();
        results
            .into_iter()
            .map(|removed| removed.map(was_there))
            .collect()
    }

    /// Removes many keys under the same terms: one result per key, in order; `None` if it was not there, as for the
    /// second of two equal keys. (With a condition, that is a conflict.)
    ///
    /// ```no_run
    /// # async fn example(kv: kvclient::Client) -> kvclient::Result<()> {
    /// use std::time::Duration;
    /// use kvclient::DeleteOptions;
    ///
    /// let keys = ["tmp:1", "tmp:2", "tmp:3"];
    /// let quick = DeleteOptions::new().timeout(Duration::from_millis(300));
    /// let removed = kv.delete_many_with(keys, quick).await;
    /// let left: Vec<_> = keys.iter().zip(&removed).filter(|(_, removed)| removed.is_err()).collect();
    /// println!("{} keys to try again later", left.len());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Each key's own, as of [`Self::delete_with`]: keys that failed do not keep the others from being removed.
    ///
    /// # Cancel safety
    /// As [`Self::delete_many`].
    pub async fn delete_many_with<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        options: DeleteOptions,
    ) -> Vec<Result<Option<Written>>> {
        let intent = |key: K| {
            let op = delete_op(key.as_ref(), &options)?;
            let intent = self.intent(&op, options.timeout);
            Ok((intent.acked_by(options.ack), op))
        };
        let results = self
            .router()
            .run_many(keys.into_iter().map(intent).collect())
            .await;
        results
            .into_iter()
            .map(|result| written_if_there(result?))
            .collect()
    }

    /// Removes all keys that begin with a prefix, over all shards; how many there were. An empty prefix: all keys.
    ///
    /// Not one step: keys are looked up at the primaries and removed in parts of 1,000. A key that somebody writes
    /// meanwhile may be removed or stay; one that was there before and is not written is removed.
    ///
    /// ```no_run
    /// # async fn tidy(kv: kvclient::Client) -> kvclient::Result<()> {
    /// let removed = kv.delete_prefix("tmp:").await?;
    /// println!("{removed} keys removed");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As of a [`Scan`](crate::Scan), or the first error of [`Self::delete`]. Any of the keys may have been removed;
    /// calling it again goes on.
    ///
    /// # Cancel safety
    /// Any of the keys may be removed, now or later.
    pub async fn delete_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<u64> {
        let keys = self.scan(prefix).keys_only();
        let mut parts = keys
            .consistency(Consistency::Primary)
            .try_chunks(MAX_BATCH_OPS);
        let mut removed = 0;
        while let Some(part) = parts.next().await {
            let part = part.map_err(|failed| failed.1)?;
            let were_there = self
                .delete_many(part.iter().map(|entry| &entry.key))
                .await?;
            removed += were_there
                .iter()
                .map(|&was_there| u64::from(was_there))
                .sum::<u64>();
        }
        Ok(removed)
    }
}
