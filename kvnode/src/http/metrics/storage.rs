//! What the log and LMDB hold, and how they are written.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::registry::Registry;

use super::{
    sample::{counter, gauge},
    times::histogram,
};
use crate::storage::Storage;

/// All of it.
pub(super) fn storage(registry: &mut Registry, storage: &Storage) {
    commits(registry, storage);
    positions(registry, storage);
    sizes(registry, storage);
}

fn commits(registry: &mut Registry, storage: &Storage) {
    let stats = storage.commit.stats();
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    counter(
        registry,
        "commit_frames",
        "Frames appended and synced",
        load(&stats.frames),
    );
    counter(
        registry,
        "commit_records",
        "Records appended and synced",
        load(&stats.records),
    );
    counter(
        registry,
        "commit_bytes",
        "Bytes of frames appended and synced",
        load(&stats.bytes),
    );
    let help = "How long an append with its sync took";
    registry.register("commit_sync_seconds", help, stats.sync_seconds.clone());
    let help = "Records that were appended and synced together";
    registry.register("commit_group_records", help, stats.group_records.clone());
    gauge(
        registry,
        "commit_queue_commands",
        "Commands that wait for the commit thread",
        storage.commit.queued(),
    );
}

fn positions(registry: &mut Registry, storage: &Storage) {
    // In the order in which they can only fall behind each other: truncated <= applied <= visible <= durable.
    let truncated = storage.log.truncated();
    let applied = storage.store.applied().position.seq;
    let visible = storage.store.visible().seq;
    let durable = storage.log.durable().seq;
    let epoch = storage.store.lineage().epoch();
    gauge(registry, "epoch", "Newest reign in the log", epoch);
    gauge(registry, "durable_seq", "Last seq synced", durable);
    gauge(
        registry,
        "visible_seq",
        "Last seq that readers see",
        visible,
    );
    gauge(registry, "applied_seq", "Last seq in LMDB", applied);
    let help = "Last seq that is no longer in the log";
    gauge(registry, "truncated_seq", help, truncated);
}

fn sizes(registry: &mut Registry, storage: &Storage) {
    let store = storage.store.stats();
    gauge(registry, "entries", "Entries in LMDB", store.entries);
    gauge(
        registry,
        "memtable_bytes",
        "Estimated memory of the memtables",
        store.memtable_bytes,
    );
    counter(
        registry,
        "flushes",
        "Memtables put into LMDB",
        store.flushes,
    );
    let help = "How long it took to put a memtable into LMDB";
    let times = vec![(Vec::new(), storage.store.flush_times())];
    histogram(registry, "flush_seconds", help, times);
    gauge(
        registry,
        "lmdb_readers",
        "Slots of LMDB's reader table ever in use at once",
        store.readers,
    );
    gauge(
        registry,
        "lmdb_used_bytes",
        "Pages of LMDB ever used",
        store.used_bytes,
    );
    gauge(
        registry,
        "lmdb_map_bytes",
        "What LMDB may grow to",
        store.map_bytes,
    );
    counter(
        registry,
        "damaged_reads",
        "Reads that met a damaged entry",
        store.damaged_reads,
    );
    gauge(
        registry,
        "no_room",
        "Whether the last flush found no room",
        u64::from(store.no_room),
    );
    gauge(
        registry,
        "lmdb_oldest_reader_seconds",
        "Age of the oldest lasting read of LMDB, 0 if there is none; LMDB's file grows meanwhile",
        store.oldest_read.as_secs_f64(),
    );
    let log = storage.log.stats();
    gauge(
        registry,
        "log_bytes",
        "Length of the log's files",
        log.bytes,
    );
    gauge(registry, "log_segments", "Files of the log", log.segments);
    gauge(
        registry,
        "log_spares",
        "Files that are ready to become segments",
        log.spares,
    );
}
