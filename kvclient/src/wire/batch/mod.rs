//! Many ops in one request: encoder and decoder of both directions, side by side.
//!
//! Byte tables are in [`op`] and [`result`]. A batch is understood whole or not at all.

pub mod op;
pub mod result;

use bytes::Bytes;

pub use self::{
    op::{Ack, Action, Condition, Op, RequestId, Terms},
    result::{OpError, OpResult},
};
use super::{
    MAX_BATCH_OPS,
    bytes::{DecodeError, Reader, put_len},
};

const REQUEST_MAGIC: &[u8; 4] = b"KVB1";
const ANSWER_MAGIC: &[u8; 4] = b"KVR1";

/// The body of a batch request.
pub fn encode_ops<'a>(ops: impl ExactSizeIterator<Item = &'a Op> + Clone) -> Vec<u8> {
    encode_list(REQUEST_MAGIC, ops, Op::weight_bytes, Op::encode)
}

/// Reads a batch request whole.
///
/// # Errors
/// [`DecodeError`] names what is malformed; nothing may be done then.
pub fn decode_ops(body: Bytes) -> Result<Vec<Op>, DecodeError> {
    decode_list("batch op", REQUEST_MAGIC, body, Op::decode)
}

/// The body of a batch's answer.
pub fn encode_results<'a>(results: impl ExactSizeIterator<Item = &'a OpResult> + Clone) -> Vec<u8> {
    encode_list(
        ANSWER_MAGIC,
        results,
        OpResult::weight_bytes,
        OpResult::encode,
    )
}

/// Reads a batch's answer whole.
///
/// # Errors
/// [`DecodeError`] names what is malformed; none of it may be trusted then.
pub fn decode_results(body: Bytes) -> Result<Vec<OpResult>, DecodeError> {
    decode_list("batch result", ANSWER_MAGIC, body, OpResult::decode)
}

fn encode_list<'a, T: 'a>(
    magic: &[u8; 4],
    items: impl ExactSizeIterator<Item = &'a T> + Clone,
    weight_bytes: impl Fn(&'a T) -> usize,
    encode: impl Fn(&'a T, &mut Vec<u8>),
) -> Vec<u8> {
    // All the room that most need: to grow is to copy.
    let bytes: usize = items.clone().map(weight_bytes).sum();
    let mut out = Vec::with_capacity(8 + bytes);
    out.extend_from_slice(magic);
    put_len(&mut out, items.len());
    for item in items {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        encode(item, &mut out);
        let len = u32::try_from(out.len() - start - 4).expect("an op is limited far below 4 GiB");
        out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    }
    out
}

fn decode_list<T>(
    what: &'static str,
    magic: &[u8; 4],
    body: Bytes,
    decode: impl Fn(&mut Reader) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let mut reader = Reader::new(what, body);
    if reader.bytes(4, "magic")? != magic[..] {
        return Err(reader.error("the body does not start with the batch format's stamp"));
    }
    let count = reader.u32("count")? as usize;
    if count > MAX_BATCH_OPS {
        return Err(reader.error(format!("{count} ops; a batch has at most {MAX_BATCH_OPS}")));
    }
    let mut items = Vec::with_capacity(count);
    for at in 0..count {
        let item = reader
            .u32("length")
            .and_then(|len| reader.within(len as usize, "length", &decode));
        items.push(item.map_err(|error| reader.error(format!("number {at}: {}", error.problem)))?);
    }
    reader.end()?;
    Ok(items)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        key::Key,
        position::Position,
        wire::error::{Applied, ErrorCode},
    };

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn full_op() -> Op {
        Op {
            key: Key::new("k").expect("short"),
            action: Action::Put {
                value: Bytes::from_static(b"v"),
                ttl_ms: Some(90_000),
            },
            terms: Terms {
                condition: Some(Condition::Is(Position::new(1, 2))),
                request_id: Some(RequestId {
                    client: 3,
                    n: 4,
                    floor: 5,
                }),
                ack: Some(Ack::Majority),
                min_position: Some(Position::new(6, 7)),
                max_lag_ms: Some(8),
                wait_ms: Some(9),
                time_left_ms: Some(10),
            },
        }
    }

    /// Frozen: clients of other versions send and read these bytes.
    #[test]
    fn golden_bytes() {
        let ops = [
            full_op(),
            Op::new(Key::new("k").expect("short"), Action::Get),
        ];
        assert_eq!(hex(&encode_ops(ops.iter())), GOLDEN_OPS);
        let results = [
            OpResult {
                status: 200,
                position: Some(Position::new(1, 2)),
                etag: Some(Position::new(1, 1)),
                ttl_ms: Some(3),
                value: Some(Bytes::from_static(b"v")),
                target: Some("h:1".into()),
                ..OpResult::default()
            },
            OpResult::refused(ErrorCode::KeyEmpty, "m", Some(Applied::No)),
        ];
        assert_eq!(hex(&encode_results(results.iter())), GOLDEN_RESULTS);
    }

    const GOLDEN_OPS: &str = concat!(
        "4b564231020000005e0000000200fd0301006b0100000076905f010000000000030100000002000000000000",
        "000300000000000000000000000000000004000000000000000500000000000000fe06000000070000000000",
        "00000800000000000000090000000a000000070000000100000001006b",
    );
    const GOLDEN_RESULTS: &str = concat!(
        "4b5652310200000030000000c800002f01000000020000000000000001000000010000000000000003000000",
        "00000000010000007603000000683a311600000090010210090000006b65795f656d707479010000006d",
    );

    #[test]
    fn a_batch_is_understood_whole_or_not_at_all() {
        let good = encode_ops([full_op()].iter());
        for len in 0..good.len() {
            assert!(
                decode_ops(Bytes::copy_from_slice(&good[..len])).is_err(),
                "cut to {len}"
            );
        }
        assert!(
            decode_ops([&good[..], &[0]].concat().into()).is_err(),
            "one byte too many"
        );
        let unknown_field = {
            let mut bytes = good.clone();
            bytes[15] |= 0x80;
            bytes
        };
        assert!(decode_ops(unknown_field.into()).is_err());
        let mut many = b"KVB1".to_vec();
        many.extend_from_slice(&1_001_u32.to_le_bytes());
        assert!(
            decode_ops(many.into())
                .expect_err("too many")
                .problem
                .contains("at most 1000")
        );
    }

    fn any_position() -> impl Strategy<Value = Position> {
        (any::<u32>(), any::<u64>()).prop_map(|(epoch, seq)| Position { epoch, seq })
    }

    fn any_bytes() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..50).prop_map(Bytes::from)
    }

    fn any_op() -> impl Strategy<Value = Op> {
        let action = prop_oneof![
            Just(Action::Get),
            (any_bytes(), proptest::option::of(1..u64::MAX))
                .prop_map(|(value, ttl_ms)| Action::Put { value, ttl_ms }),
            Just(Action::Delete),
            any::<i64>().prop_map(|delta| Action::Incr { delta }),
            (1..u64::MAX).prop_map(|ttl_ms| Action::Expire { ttl_ms }),
            Just(Action::Persist),
        ];
        let condition = prop_oneof![
            Just(Condition::Absent),
            Just(Condition::Exists),
            any_position().prop_map(Condition::Is),
            any_position().prop_map(Condition::Differs),
        ];
        let request_id = (any::<u128>(), any::<u64>(), any::<u64>())
            .prop_map(|(client, n, floor)| RequestId { client, n, floor });
        let ack = prop_oneof![
            (1..254_u8).prop_map(Ack::Replicas),
            Just(Ack::Majority),
            Just(Ack::All)
        ];
        let option = proptest::option::of::<BoxedStrategy<u32>>;
        let terms = (
            proptest::option::of(condition),
            proptest::option::of(request_id),
            proptest::option::of(ack),
            proptest::option::of(any_position()),
            proptest::option::of(any::<u64>()),
            option(any::<u32>().boxed()),
            option(any::<u32>().boxed()),
        )
            .prop_map(
                |(condition, request_id, ack, min_position, max_lag_ms, wait_ms, time_left_ms)| {
                    Terms {
                        condition,
                        request_id,
                        ack,
                        min_position,
                        max_lag_ms,
                        wait_ms,
                        time_left_ms,
                    }
                },
            );
        let key = proptest::collection::vec(any::<u8>(), 1..=511)
            .prop_map(|key| Key::new(key).expect("1 to 511"));
        (key, action, terms).prop_map(|(key, action, terms)| Op { key, action, terms })
    }

    fn any_result() -> impl Strategy<Value = OpResult> {
        let applied = prop_oneof![
            Just(Applied::Yes),
            Just(Applied::No),
            Just(Applied::Unknown)
        ];
        let error = ".{0,9}".prop_map(|message| OpError {
            code: ErrorCode::Behind,
            message,
        });
        (
            any::<u16>(),
            proptest::option::of(applied),
            proptest::option::of(any_position()),
            proptest::option::of(any_position()),
            proptest::option::of(any::<u64>()),
            proptest::option::of(any_bytes()),
            proptest::option::of(error),
            proptest::option::of("[a-z]{1,9}:[0-9]"),
        )
            .prop_map(
                |(status, applied, position, etag, ttl_ms, value, error, target)| OpResult {
                    status,
                    applied,
                    position,
                    etag,
                    ttl_ms,
                    value,
                    error: error.map(Box::new),
                    target: target.map(String::into_boxed_str),
                },
            )
    }

    proptest! {
        #[test]
        fn ops_come_back(ops in proptest::collection::vec(any_op(), 0..6)) {
            prop_assert_eq!(decode_ops(encode_ops(ops.iter()).into()), Ok(ops));
        }

        #[test]
        fn results_come_back(results in proptest::collection::vec(any_result(), 0..6)) {
            prop_assert_eq!(decode_results(encode_results(results.iter()).into()), Ok(results));
        }

        #[test]
        fn rubbish_is_an_error_and_no_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_ops(Bytes::copy_from_slice(&bytes));
            if bytes.len() > 8 {
                bytes[..8].copy_from_slice(b"KVB1\x01\0\0\0");
                let _ = decode_ops(Bytes::copy_from_slice(&bytes));
                bytes[..4].copy_from_slice(b"KVR1");
                let _ = decode_results(bytes.into());
            }
        }
    }
}
