//! Which keys are there when a run begins: exactly those it is about.
//!
//! Nobody has to ask for them to be stored: they are read first, and what is missing or of another size is written. With
//! an option for it, the first run of everybody would be one of reads that find nothing, which are fast and mean
//! nothing. What an earlier run added is removed, so that inserts are inserts and each run begins alike.

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, future, stream};
use kvclient::{Client, Consistency, Error, GetOptions};

use super::keys::key;

/// Keys of a request: about what a node is given at once at 256 tasks, times its shards.
const PART: u64 = 1_000;

/// Parts under way at once; more were no faster.
const PARTS_AT_ONCE: usize = 4;

/// What was done to have the keys there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Loaded {
    pub(crate) stored: u64,
    pub(crate) removed: u64,
}

/// Sees to it that so many keys are there, with values of the size of `value`, and no others that a run has added.
///
/// # Errors
/// The first op that failed.
pub(crate) async fn load(kv: &Client, keys: u64, value: &Bytes) -> Result<Loaded, Error> {
    let parts = (0..keys.div_ceil(PART)).map(|part| part * PART..keys.min((part + 1) * PART));
    let stored = stream::iter(parts)
        .map(|numbers| store(kv, numbers.collect(), value))
        .buffer_unordered(PARTS_AT_ONCE)
        .try_fold(0, |sum, more| future::ok(sum + more))
        .await?;
    let removed = remove_added(kv, keys).await?;
    Ok(Loaded { stored, removed })
}

/// Stores those of the keys that are missing or of another size.
async fn store(kv: &Client, numbers: Vec<u64>, value: &Bytes) -> Result<u64, Error> {
    let sizes = sizes(kv, &numbers).await?;
    let missing = numbers.iter().zip(sizes);
    let missing = missing.filter(|(_, size)| *size != Some(value.len()));
    let items: Vec<(String, Bytes)> = missing
        .map(|(number, _)| (key(*number), value.clone()))
        .collect();
    let written = kv.put_many(items).await?;
    Ok(written.len() as u64)
}

/// Removes what was added behind the keys: numbers in a row, with holes where an insert failed.
async fn remove_added(kv: &Client, keys: u64) -> Result<u64, Error> {
    let mut removed = 0;
    for first in (keys..).step_by(usize::try_from(PART).unwrap_or(1)) {
        let numbers: Vec<u64> = (first..first + PART).collect();
        let sizes = sizes(kv, &numbers).await?;
        let there = numbers.iter().zip(sizes).filter(|(_, size)| size.is_some());
        let there: Vec<String> = there.map(|(number, _)| key(*number)).collect();
        if there.is_empty() {
            break;
        }
        removed += there.len() as u64;
        kv.delete_many(there).await?;
    }
    Ok(removed)
}

/// Bytes of the values of keys, as the primaries have them; `None` for those that are absent.
async fn sizes(kv: &Client, numbers: &[u64]) -> Result<Vec<Option<usize>>, Error> {
    let names = numbers.iter().map(|number| key(*number));
    let options = GetOptions::new().consistency(Consistency::Primary);
    let entries = kv.get_many_with(names, options).await;
    let size = |entry: Result<Option<kvclient::Entry>, Error>| {
        entry.map(|entry| entry.map(|entry| entry.value.len()))
    };
    entries.into_iter().map(size).collect()
}
