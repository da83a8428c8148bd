//! What is read whole from bytes: batches, frames of the log, lineages.

use bytes::Bytes;
use kvclient::{
    key::Key,
    position::{Lineage, Position, Reign},
    wire::{
        batch::{
            Ack, Action, Condition, Op, OpResult, RequestId, Terms, decode_ops, decode_results,
            encode_ops, encode_results,
        },
        bytes::Reader,
        error::{Applied, ErrorCode},
        log::{
            Effect, Frame, FrameBuilder, FrameHeader, Link, Record, RequestMark, decode_lineage,
            encode_lineage,
        },
    },
};

use super::Decoder;

/// Ops of a batch.
pub(crate) const OPS: Decoder = Decoder {
    name: "ops",
    decode: |input| {
        let ops = decode_ops(Bytes::copy_from_slice(input)).ok()?;
        Some(encode_ops(ops.iter()))
    },
    valid: || vec![encode_ops([].iter()), encode_ops(ops().iter())],
};

/// Results of a batch.
pub(crate) const RESULTS: Decoder = Decoder {
    name: "results",
    decode: |input| {
        let results = decode_results(Bytes::copy_from_slice(input)).ok()?;
        Some(encode_results(results.iter()))
    },
    valid: || vec![encode_results(results().iter())],
};

/// Frames one behind the other, as a pull gets them, and their records.
pub(crate) const FRAMES: Decoder = Decoder {
    name: "frames",
    decode: |input| {
        let mut rest = Bytes::copy_from_slice(input);
        let mut written = Vec::new();
        while !rest.is_empty() {
            written.extend_from_slice(&rewritten(&Frame::split_from(&mut rest).ok()?)?);
        }
        Some(written)
    },
    valid: || {
        let first = frame(&Link::default());
        let second = frame(&first.header.link());
        vec![[&first.bytes[..], &second.bytes].concat()]
    },
};

/// A frame whose checksums are made right: only then does what they guard get looked at.
pub(crate) const SEALED_FRAME: Decoder = Decoder {
    name: "sealed frame",
    decode: |input| {
        let (head, body) = input.split_first_chunk::<40>()?;
        let u32_at =
            |at: usize| u32::from_le_bytes(*head[at..].first_chunk().expect("in a header"));
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let header = FrameHeader {
            body_bytes: u32::try_from(body.len()).ok()?,
            body_crc: crc32c::crc32c(body),
            prev: u32_at(8),
            epoch: u32_at(12),
            first_seq: u64_at(16),
            time_ms: u64_at(24),
            count: u32_at(32),
            crc: 0,
        };
        let mut sealed = Bytes::from([&header.to_bytes()[..], body].concat());
        let frame = Frame::split_from(&mut sealed).ok()?;
        let link = Link {
            position: Position::new(u32_at(0), frame.header.last_seq()),
            crc: u32_at(4),
        };
        let _ = (frame.header.check_follows(&link), frame.header.link());
        rewritten(&frame)
    },
    valid: || {
        let last = Link {
            position: Position::new(1, u64::MAX - 20),
            crc: 7,
        };
        [Link::default(), last]
            .map(|after| frame(&after).bytes.to_vec())
            .to_vec()
    },
};

/// A lineage as a snapshot and the table `meta` have it.
pub(crate) const LINEAGE: Decoder = Decoder {
    name: "lineage",
    decode: |input| {
        let mut reader = Reader::new("lineage", Bytes::copy_from_slice(input));
        let lineage = decode_lineage(&mut reader).ok()?;
        reader.end().ok()?;
        let mut written = Vec::new();
        encode_lineage(&lineage, &mut written);
        Some(written)
    },
    valid: || {
        let mut written = Vec::new();
        encode_lineage(&lineage(), &mut written);
        vec![written]
    },
};

/// The frame made anew of its records: it has to be the same.
fn rewritten(frame: &Frame) -> Option<Vec<u8>> {
    let records = frame.records().ok()?;
    let mut builder = FrameBuilder::new();
    for (_, record) in &records {
        builder.push(record);
    }
    let header = &frame.header;
    let after = Link {
        position: Position::new(0, header.first_seq - 1),
        crc: header.prev,
    };
    let again = builder.finish(&after, header.epoch, header.time_ms);
    assert_eq!(again.bytes, frame.bytes, "a frame has one spelling");
    Some(again.bytes.to_vec())
}

/// A frame with every kind of record.
pub(crate) fn frame(after: &Link) -> Frame {
    let mark = RequestMark {
        client: 1,
        n: 2,
        floor: 1,
        digest: 5,
        outcome: b"ok"[..].into(),
    };
    let put = Effect::Put {
        value: Bytes::from_static(b"value"),
        expires_at_ms: Some(9),
    };
    let mut builder = FrameBuilder::new();
    builder.push(&Record::epoch_start(7, "localhost:8080"));
    builder.push(&Record {
        mark: Some(mark),
        ..Record::new(Bytes::from_static(b"key"), put)
    });
    for effect in [
        Effect::Delete { by_expiry: true },
        Effect::Expire {
            expires_at_ms: None,
        },
    ] {
        builder.push(&Record::new(Bytes::from_static(b"key"), effect));
    }
    builder.finish(after, 3, 1_700_000_000_000)
}

/// Three reigns.
pub(crate) fn lineage() -> Lineage {
    let mut lineage = Lineage::new();
    for epoch in 1..=3_u32 {
        let reign = Reign {
            epoch,
            first_seq: u64::from(epoch) * 10,
            reign_id: 0xabcd,
        };
        lineage.push(reign).expect("they grow");
    }
    lineage
}

fn ops() -> Vec<Op> {
    let terms = Terms {
        condition: Some(Condition::Is(Position::new(1, 2))),
        request_id: Some(RequestId {
            client: 3,
            n: 4,
            floor: 5,
        }),
        ack: Some(Ack::Replicas(2)),
        min_position: Some(Position::new(6, 7)),
        max_lag_ms: Some(8),
        wait_ms: Some(9),
        time_left_ms: Some(10),
    };
    let put = Action::Put {
        value: Bytes::from_static(b"value"),
        ttl_ms: Some(90_000),
    };
    let key = || Key::new("key").expect("a key");
    let plain = [
        Action::Get,
        Action::Delete,
        Action::Incr { delta: -5 },
        Action::Expire { ttl_ms: 1 },
        Action::Persist,
    ];
    let full = Op {
        key: key(),
        action: put,
        terms,
    };
    let plain = plain.map(|action| Op::new(key(), action));
    [vec![full], plain.to_vec()].concat()
}

fn results() -> Vec<OpResult> {
    let full = OpResult {
        status: 200,
        applied: Some(Applied::Yes),
        position: Some(Position::new(1, 2)),
        etag: Some(Position::new(1, 1)),
        ttl_ms: Some(3),
        value: Some(Bytes::from_static(b"value")),
        target: Some("h:1".into()),
        ..OpResult::default()
    };
    let refused = OpResult::refused(ErrorCode::KeyEmpty, "message", Some(Applied::No));
    vec![full, refused]
}
