//! `GET /metrics`: what the node counts, in the text formats of Prometheus: OpenMetrics 1.0 if that is asked for, else
//! 0.0.4.
//!
//! Nothing is kept for it: each scrape reads counters and positions where they are and writes them down. Names begin
//! with `kv_`, units are base units, and no key is ever a label. What is about the process has the names that every
//! dashboard knows. Counts of commits begin anew when a replica changes to another generation, as after a restart.

mod classic;
mod times;

use std::{
    fmt::{self, Debug},
    fs,
    sync::atomic::{AtomicU64, Ordering},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use actix_web::{HttpRequest, HttpResponse, web};
use kvclient::{shard_map::Role, wire::content_type};
use prometheus_client::{
    encoding::{EncodeCounterValue, EncodeGaugeValue, text},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        info::Info,
    },
    registry::Registry,
};

use self::{classic::from_open_metrics, times::histogram};
use super::answer;
use crate::{memory, service::Service, storage::Storage};

/// Labels of one dimension.
type Label = [(&'static str, String); 1];

/// Writes all metrics down.
pub(super) async fn metrics(request: HttpRequest, service: web::Data<Service>) -> HttpResponse {
    // Writing to a string does not fail.
    let text = render(&service).unwrap_or_default();
    let (content_type, text) = match wants_open_metrics(&request) {
        true => (content_type::OPEN_METRICS, text),
        false => (content_type::CLASSIC_METRICS, from_open_metrics(&text)),
    };
    answer::data(200, &service)
        .content_type(content_type)
        .body(text)
}

fn wants_open_metrics(request: &HttpRequest) -> bool {
    let accept = request.headers().get_all("accept");
    let mut ranges = accept
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    ranges.any(|range| {
        let name = range.split(';').next().unwrap_or_default().trim();
        name == "application/openmetrics-text"
    })
}

fn render(service: &Service) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("kv");
    node(&mut registry, service);
    requests(&mut registry, service);
    replication(&mut registry, service);
    if let Some(storage) = &*service.storage.load() {
        commits(&mut registry, storage);
        positions(&mut registry, storage);
        sizes(&mut registry, storage);
    }
    let mut out = String::new();
    text::encode_registry(&mut out, &registry)?;
    text::encode_registry(&mut out, &process(service.started_at))?;
    text::encode_eof(&mut out)?;
    Ok(out)
}

fn node(registry: &mut Registry, service: &Service) {
    let version = vec![("version", env!("CARGO_PKG_VERSION"))];
    registry.register("build", "Version of kvnode", Info::new(version));
    let is_primary = u64::from(service.role() == Role::Primary);
    gauge(
        registry,
        "primary",
        "1 on the primary of a shard, 0 on a replica",
        is_primary,
    );
    let ready = u64::from(service.ready().is_ok());
    gauge(registry, "ready", "Whether the node serves", ready);
    if let Some(tls) = &service.config.tls {
        gauge(
            registry,
            "tls_certificate_expiry_timestamp_seconds",
            "When the node's certificate ends, or the first one of its chain",
            seconds_since_epoch(tls.expires()),
        );
    }
}

fn requests(registry: &mut Registry, service: &Service) {
    let metrics = &service.metrics;
    let answers = Family::<Label, Counter>::default();
    for class in 1..=5 {
        let label = [("status", format!("{class}xx"))];
        answers.get_or_create(&label).inc_by(metrics.answers(class));
    }
    registry.register(
        "http_answers",
        "HTTP answers by class of their status",
        answers,
    );
    let refusals = Family::<Label, Counter>::default();
    for (code, count) in metrics.refusals.each().filter(|(_, count)| *count > 0) {
        let label = [("reason", code.as_str().to_owned())];
        refusals.get_or_create(&label).inc_by(count);
    }
    let help = "Ops and requests that were refused, by the code of the error";
    registry.register("refusals", help, refusals);
    let times = metrics.ops.each().filter(|(_, _, times)| times.count() > 0);
    let times = times.map(|(kind, outcome, times)| {
        let labels = vec![("op", kind.as_str()), ("outcome", outcome.as_str())];
        (labels, times)
    });
    let help = "Time of each op by what it is and what came of it, from its request's arrival until its answer was made";
    histogram(registry, "op_seconds", help, times.collect());
    counter(
        registry,
        "slow_requests",
        "Requests that took longer than --slow-request-ms",
        metrics.slow.count(),
    );
    gauge(
        registry,
        "connections",
        "Connections that are open",
        metrics.connections(),
    );
    let (batches, ops) = metrics.batches();
    counter(registry, "batches", "Batches taken", batches);
    counter(registry, "batch_ops", "Ops in batches", ops);
    counter(
        registry,
        "ack_timeouts",
        "Writes that did not reach enough replicas in time",
        metrics.ack_timeouts(),
    );
    counter(
        registry,
        "too_few_replicas",
        "Writes refused since too few replicas were connected",
        metrics.too_few_replicas(),
    );
    gauge(
        registry,
        "in_flight_body_bytes",
        "Request bodies held now",
        metrics.in_flight.bytes(),
    );
    gauge(
        registry,
        "unread_answer_bytes",
        "Large answers and streams that their readers have not taken yet",
        metrics.unread.bytes(),
    );
    gauge(
        registry,
        "watches",
        "Watches that are open",
        metrics.watches(),
    );
    counter(
        registry,
        "expired_entries",
        "Entries deleted because their time had come",
        metrics.expired(),
    );
}

fn replication(registry: &mut Registry, service: &Service) {
    if let Some(lag_ms) = service.lag_ms() {
        let help = "How far this node's visible is behind its primary; 0 on a primary, absent before the first pull";
        gauge(registry, "lag_seconds", help, seconds_of_millis(lag_ms));
    }
    let (visible, durable) = match &*service.storage.load() {
        Some(storage) => (storage.store.visible(), storage.log.durable()),
        None => Default::default(),
    };
    let lag_records = match service.role() {
        Role::Primary => Some(0),
        Role::Replica => service.progress.lag_records(visible),
    };
    if let Some(records) = lag_records {
        gauge(
            registry,
            "lag_records",
            "How far behind in records, as of the last pull",
            records,
        );
    }
    let now = Instant::now();
    let mut replicas = service.progress.replicas();
    replicas.retain(|(_, replica)| replica.is_connected(now));
    gauge(
        registry,
        "replicas_connected",
        "Replicas that pulled within 5 s",
        replicas.len(),
    );
    let lags = Family::<Label, Gauge>::default();
    for (_, replica) in replicas {
        let behind = durable.seq.saturating_sub(replica.durable.seq);
        lags.get_or_create(&[("replica", replica.address.to_string())])
            .set(i64::try_from(behind).unwrap_or(i64::MAX));
    }
    let help = "Records that a connected replica has not synced yet";
    registry.register("replica_lag_records", help, lags);
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

/// The process, as Linux tells. What it does not tell is left out.
fn process(started_at: SystemTime) -> Registry {
    let mut registry = Registry::with_prefix("process");
    let help = "When the node started, in Unix seconds";
    gauge(
        &mut registry,
        "start_time_seconds",
        help,
        seconds_since_epoch(started_at),
    );
    if let Some(bytes) = memory::resident_bytes() {
        let help = "Memory of the process that is in RAM, LMDB's pages among it";
        gauge(&mut registry, "resident_memory_bytes", help, bytes);
    }
    if let Some(bytes) = memory::anonymous_bytes() {
        let help = "Memory of the process that is in RAM and is no file's";
        gauge(&mut registry, "anonymous_memory_bytes", help, bytes);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One of them is the directory that is being read.
        let count = open.count().saturating_sub(1);
        gauge(&mut registry, "open_fds", "Open file descriptors", count);
    }
    registry
}

fn seconds_since_epoch(moment: SystemTime) -> f64 {
    let since = moment.duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

fn seconds_of_millis(millis: u64) -> f64 {
    std::time::Duration::from_millis(millis).as_secs_f64()
}

fn counter<N>(registry: &mut Registry, name: &str, help: &str, value: N)
where
    N: EncodeCounterValue + Debug + Send + Sync + 'static,
{
    registry.register(name, help, ConstCounter::new(value));
}

fn gauge<N>(registry: &mut Registry, name: &str, help: &str, value: N)
where
    N: EncodeGaugeValue + Debug + Send + Sync + 'static,
{
    registry.register(name, help, ConstGauge::new(value));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_described() {
        let mut out = String::new();
        text::encode_registry(&mut out, &process(UNIX_EPOCH)).unwrap();
        for name in [
            "start_time_seconds",
            "resident_memory_bytes",
            "anonymous_memory_bytes",
            "open_fds",
        ] {
            let sample = out
                .lines()
                .find_map(|line| line.strip_prefix(&format!("process_{name} ")));
            let value: f64 = sample.expect(name).parse().expect("a number");
            assert!(value > 0.0 || name == "start_time_seconds", "{name}");
        }
    }
}
