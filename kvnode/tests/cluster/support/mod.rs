//! What all topics share: real nodes on this machine, HTTP to them, links that break, and a memory of what was
//! acknowledged.

#[path = "../../../../kvclient/tests/support/certificates.rs"]
pub(crate) mod certificates;
pub(crate) mod cluster;
pub(crate) mod http;
pub(crate) mod library;
pub(crate) mod link;
pub(crate) mod oracle;
pub(crate) mod ports;
pub(crate) mod report;
pub(crate) mod tls;
pub(crate) mod tokens;
pub(crate) mod writers;

use std::{
    process::{Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use kvclient::slot::{SLOT_COUNT, Slot};

/// Longest wait for anything. Ordinary waits end within a fraction of it; a loaded machine gets the rest.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Whether a real browser is there.
pub(crate) fn has_chromium() -> bool {
    let asked = Command::new("chromium")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    asked.is_ok_and(|status| status.success())
}

/// Waits until `check` gives a value. Panics with `reason` if it does not in [`PATIENCE`].
pub(crate) async fn eventually<T>(reason: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(
            started.elapsed() < PATIENCE,
            "did not come to pass in {PATIENCE:?}: {reason}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A random generator whose seed is printed; `KV_SEED` repeats a run.
pub(crate) fn seeded() -> fastrand::Rng {
    fastrand::Rng::with_seed(seed())
}

/// The seed of all random choices of this process.
pub(crate) fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| {
        let seed = std::env::var("KV_SEED").map_or_else(
            |_| fastrand::u64(..),
            |text| text.parse().expect("KV_SEED is a number"),
        );
        eprintln!("KV_SEED={seed}");
        seed
    })
}

/// Whether the full forms of the fault and speed bars run.
pub(crate) fn bar() -> bool {
    std::env::var_os("KV_BAR").is_some_and(|value| !value.is_empty() && value != "0")
}

/// A time in whole ms.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).expect("not that long")
}

/// Whether the long forms of tests run too.
pub(crate) fn slow() -> bool {
    std::env::var_os("KV_SLOW").is_some_and(|value| !value.is_empty() && value != "0")
}

/// The shard of a key among `shards` of even size.
pub(crate) fn shard_of(key: &[u8], shards: usize) -> usize {
    usize::from(Slot::of_bytes(key).number()) * shards / usize::from(SLOT_COUNT)
}

/// A key that starts with `prefix` and belongs to a shard.
pub(crate) fn key_in(shard: usize, shards: usize, prefix: &str) -> String {
    (0..)
        .map(|n| format!("{prefix}{n}"))
        .find(|key| shard_of(key.as_bytes(), shards) == shard)
        .expect("some key is there")
}
