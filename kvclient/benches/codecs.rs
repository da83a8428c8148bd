//! What the protocol costs: ops and results of a batch, frames of the log, each written and read.
//!
//! A batch of 50 and a frame of 64 are what 256 busy tasks make on two cores. Throughput is of ops, results, records.

#![allow(missing_docs, reason = "criterion's macros make functions without any")]
#![allow(clippy::unwrap_used, reason = "a benchmark that fails says where")]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use kvclient::{
    Key, Position,
    wire::{
        batch::{
            Action, Op, OpResult, RequestId, decode_ops, decode_results, encode_ops, encode_results,
        },
        error::Applied,
        log::{Effect, Frame, FrameBuilder, Link, Record, RequestMark},
    },
};

const OPS: u64 = 50;
const RECORDS: u64 = 64;

const VALUE: Bytes = Bytes::from_static(&[b'v'; 100]);

fn key(number: u64) -> Key {
    Key::new(format!("user:{number:08}")).unwrap()
}

fn gets() -> Vec<Op> {
    (0..OPS).map(|n| Op::new(key(n), Action::Get)).collect()
}

/// As the client sends them: under request ids.
fn puts() -> Vec<Op> {
    let put = |n| {
        let action = Action::Put {
            value: VALUE,
            ttl_ms: None,
        };
        let mut op = Op::new(key(n), action);
        op.terms.request_id = Some(RequestId {
            client: 7,
            n,
            floor: n.saturating_sub(9),
        });
        op
    };
    (0..OPS).map(put).collect()
}

/// Of gets that found something.
fn found() -> Vec<OpResult> {
    let found = |seq| OpResult {
        status: 200,
        value: Some(VALUE),
        etag: Some(Position::new(1, seq)),
        position: Some(Position::new(1, seq + OPS)),
        ..OpResult::default()
    };
    (1..=OPS).map(found).collect()
}

/// Of puts.
fn stored() -> Vec<OpResult> {
    let stored = |seq| OpResult {
        status: 204,
        applied: Some(Applied::Yes),
        etag: Some(Position::new(1, seq)),
        position: Some(Position::new(1, seq)),
        ..OpResult::default()
    };
    (1..=OPS).map(stored).collect()
}

fn ops(c: &mut Criterion) {
    let mut group = c.benchmark_group("ops");
    group.throughput(Throughput::Elements(OPS));
    for (name, ops) in [("gets", gets()), ("puts", puts())] {
        let encode = || Bytes::from(encode_ops(black_box(&ops).iter()));
        let bytes = encode();
        assert_eq!(decode_ops(bytes.clone()).unwrap(), ops);
        group.bench_function(format!("encode {OPS} {name}"), |b| b.iter(encode));
        group.bench_function(format!("decode {OPS} {name}"), |b| {
            b.iter(|| decode_ops(black_box(&bytes).clone()).unwrap())
        });
    }
}

fn results(c: &mut Criterion) {
    let mut group = c.benchmark_group("results");
    group.throughput(Throughput::Elements(OPS));
    for (name, results) in [("gets", found()), ("puts", stored())] {
        let encode = || Bytes::from(encode_results(black_box(&results).iter()));
        let bytes = encode();
        assert_eq!(decode_results(bytes.clone()).unwrap(), results);
        group.bench_function(format!("encode {OPS} {name}"), |b| b.iter(encode));
        group.bench_function(format!("decode {OPS} {name}"), |b| {
            b.iter(|| decode_results(black_box(&bytes).clone()).unwrap())
        });
    }
}

fn records() -> Vec<Record> {
    let record = |n| {
        let effect = Effect::Put {
            value: VALUE,
            expires_at_ms: None,
        };
        let mark = RequestMark {
            client: 7,
            n,
            floor: n,
            digest: n,
            outcome: b"204"[..].into(),
        };
        let mut record = Record::new(Bytes::copy_from_slice(key(n).as_bytes()), effect);
        record.mark = Some(mark);
        record
    };
    (1..=RECORDS).map(record).collect()
}

fn frame(records: &[Record], after: &Link) -> Frame {
    let mut builder = FrameBuilder::new();
    records.iter().for_each(|record| builder.push(record));
    builder.finish(after, 1, 0)
}

fn frames(c: &mut Criterion) {
    let (records, after) = (records(), Link::default());
    let whole = frame(&records, &after);
    let mut group = c.benchmark_group("frame");
    group.throughput(Throughput::Elements(RECORDS));
    group.bench_function(format!("encode {RECORDS} puts"), |b| {
        b.iter(|| frame(black_box(&records), &after))
    });
    // Both checksums and the chain: what recovery and replicas do with every frame.
    group.bench_function(format!("check {RECORDS} puts"), |b| {
        b.iter_batched(
            || whole.bytes.clone(),
            |mut bytes| {
                let frame = Frame::split_from(&mut bytes).unwrap();
                frame.header.check_follows(&after).unwrap();
                frame
            },
            BatchSize::SmallInput,
        )
    });
    group.bench_function(format!("decode {RECORDS} puts"), |b| {
        b.iter(|| black_box(&whole).records().unwrap())
    });
}

criterion_group! {
    name = benches;
    config = kvclient::bench::settings();
    targets = ops, results, frames
}
criterion_main!(benches);
