//! What an op costs before it leaves: the slot of its key, the shard that has it, the order of its targets.

#![allow(missing_docs, reason = "criterion's macros make functions without any")]
#![allow(clippy::unwrap_used, reason = "a benchmark that fails says where")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use kvclient::{
    Key, ShardMap,
    bench::{first_read, plan_read},
    shard_map::{NodeEntry, Shard, even_slots},
    slot::Slot,
};

fn node(port: u16) -> NodeEntry {
    NodeEntry {
        address: format!("localhost:{port}").parse().unwrap(),
        zone: None,
    }
}

/// Three shards with so many replicas each.
fn map(replicas: u16) -> ShardMap {
    let shard = |idx: u16| Shard {
        name: format!("shard{idx}"),
        idx,
        slots: vec![even_slots(idx, 3)],
        primary: node(8_000 + 100 * idx),
        replicas: (1..=replicas)
            .map(|at| node(8_000 + 100 * idx + at))
            .collect(),
    };
    ShardMap::new(1, (0..3).map(shard).collect()).unwrap()
}

fn slots(c: &mut Criterion) {
    let mut group = c.benchmark_group("slot");
    for (name, key) in [
        ("of a key of 13 bytes", "user:00000042".to_owned()),
        ("of a key of 511 bytes", "k".repeat(511)),
        ("by its tag", "{user:1}:cart".to_owned()),
    ] {
        let key = Key::new(key).unwrap();
        group.bench_function(name, |b| b.iter(|| Slot::of(black_box(&key))));
    }
    let (map, key) = (map(1), Key::new("user:00000042").unwrap());
    group.bench_function("and shard of a key", |b| {
        b.iter(|| black_box(&map).shard_of(black_box(&key)).idx)
    });
}

fn plans(c: &mut Criterion) {
    let mut group = c.benchmark_group("plan");
    let key = Key::new("user:00000042").unwrap();
    for (replicas, targets) in [(1, 1), (2, 1), (2, 3)] {
        let map = map(replicas);
        let shard = map.shard_of(&key);
        let nodes = replicas + 1;
        group.bench_function(format!("{targets} of {nodes} nodes"), |b| {
            b.iter(|| plan_read(black_box(shard), first_read(&key), targets))
        });
    }
}

criterion_group! {
    name = benches;
    config = kvclient::bench::settings();
    targets = slots, plans
}
criterion_main!(benches);
