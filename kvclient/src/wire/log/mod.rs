//! Frames and records of the log: the same bytes on disk, between nodes and in a snapshot's tail.
//!
//! [`frame`] and [`record`] hold the byte tables, [`lineage`] the forms of a lineage. All of it is frozen under one
//! stamp, [`LOG_FORMAT`].

pub mod frame;
pub mod lineage;
pub mod record;

pub use self::{
    frame::{ChainError, FRAME_HEADER_BYTES, Frame, FrameBuilder, FrameHeader, Link},
    lineage::{
        LINEAGE_TEXT_REIGNS, decode_lineage, encode_lineage, lineage_from_text, lineage_to_text,
    },
    record::{Effect, Record, RequestMark},
};

/// Names the layout above. It stands in segment headers, handshakes and snapshots.
pub const LOG_FORMAT: u32 = 1;

/// What a frame may hold at least, whatever the value limit.
pub const MIN_LARGEST_FRAME_BYTES: usize = 4 << 20;

/// The largest frame for a value limit: one value must fit with its key and marks.
pub const fn largest_frame_bytes(max_value_bytes: usize) -> usize {
    let one_value = max_value_bytes + (64 << 10);
    if one_value > MIN_LARGEST_FRAME_BYTES {
        one_value
    } else {
        MIN_LARGEST_FRAME_BYTES
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use bytes::Bytes;

    use super::*;
    use crate::{
        key::MAX_KEY_BYTES,
        position::{Lineage, Position, Reign},
        wire::bytes::Reader,
    };

    fn put(key: &str, value: &str) -> Record {
        Record::new(
            Bytes::copy_from_slice(key.as_bytes()),
            Effect::Put {
                value: Bytes::copy_from_slice(value.as_bytes()),
                expires_at_ms: None,
            },
        )
    }

    fn frame(records: &[Record]) -> Frame {
        let mut builder = FrameBuilder::new();
        records.iter().for_each(|record| builder.push(record));
        builder.finish(
            &Link {
                position: Position::new(2, 41),
                crc: 0xdead_beef,
            },
            3,
            1_700_000_000_000,
        )
    }

    /// Frozen: logs on disk look like this.
    #[test]
    fn golden_frame() {
        let mark = RequestMark {
            client: 1,
            n: 2,
            floor: 1,
            digest: 5,
            outcome: b"ok"[..].into(),
        };
        let records = [
            Record {
                mark: Some(mark),
                ..put("k", "vv")
            },
            Record::new(
                Bytes::from_static(b"gone"),
                Effect::Delete { by_expiry: true },
            ),
            Record::new(
                Bytes::from_static(b"t"),
                Effect::Expire {
                    expires_at_ms: Some(9),
                },
            ),
            Record::epoch_start(7, "a:1"),
        ];
        let hex: String = frame(&records)
            .bytes
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(hex, GOLDEN);
    }

    const GOLDEN: &str = concat!(
        "69000000cc1266dbefbeadde030000002a000000000000000068e5cf8b0100000400000007e4007801010100",
        "020000006b767601000000000000000000000000000000020000000000000001000000000000000500000000",
        "000000020000006f6b0202040000000000676f6e650304010000000000740900000000000000040000000b00",
        "00000700000000000000613a31",
    );

    #[test]
    fn every_single_bit_matters() {
        let good = frame(&[put("k", "v"), put("k2", "v2")]);
        assert_eq!(Frame::split_from(&mut good.bytes.clone()), Ok(good.clone()));
        for bit in 0..good.bytes.len() * 8 {
            let mut bad = good.bytes.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(
                Frame::split_from(&mut bad.into()).is_err(),
                "bit {bit} flipped unnoticed"
            );
        }
        for len in 0..good.bytes.len() {
            assert!(
                Frame::split_from(&mut good.bytes.slice(..len)).is_err(),
                "cut to {len} unnoticed"
            );
        }
        assert!(FrameHeader::parse(&[0; FRAME_HEADER_BYTES]).is_none());
    }

    #[test]
    fn a_chain_is_checked() {
        let header = frame(&[put("k", "v")]).header;
        let link = Link {
            position: Position::new(2, 41),
            crc: 0xdead_beef,
        };
        assert_eq!(header.check_follows(&link), Ok(()));
        for wrong in [
            Link {
                position: Position::new(2, 40),
                ..link
            },
            Link {
                position: Position::new(2, 42),
                ..link
            },
            Link {
                position: Position::new(4, 41),
                ..link
            },
            Link { crc: 1, ..link },
        ] {
            assert!(header.check_follows(&wrong).is_err(), "{wrong:?}");
        }
    }

    /// A header may say any seqs under a right checksum. The seq of its last record was added up without a look at
    /// the end of the numbers: a panic, or a frame that seemed to end before it began.
    #[test]
    fn seqs_beyond_the_last_one_are_no_frame() {
        let header = |first_seq, count| FrameHeader {
            first_seq,
            count,
            ..frame(&[put("k", "v")]).header
        };
        for (first_seq, count, is_one) in [
            (u64::MAX - 2, 2, true),
            (u64::MAX - 1, 2, false),
            (u64::MAX, 1, false),
            (2, u32::MAX, true),
        ] {
            let bytes = header(first_seq, count).to_bytes();
            let read = FrameHeader::parse(&bytes);
            assert_eq!(read.is_some(), is_one, "{count} from {first_seq}");
            assert!(read.is_none_or(|read| read.last_seq() >= first_seq));
        }
        let end = Link {
            position: Position::new(2, u64::MAX),
            crc: 0xdead_beef,
        };
        assert!(header(1, 1).check_follows(&end).is_err());
    }

    #[test]
    fn lineage_travels_as_text_and_bytes() {
        let mut lineage = Lineage::new();
        for epoch in 1..=3_u32 {
            lineage
                .push(Reign {
                    epoch,
                    first_seq: u64::from(epoch) * 10,
                    reign_id: u64::MAX,
                })
                .expect("grows");
        }
        assert_eq!(
            lineage_from_text(&lineage_to_text(&lineage)),
            Ok(lineage.clone())
        );
        assert_eq!(lineage_from_text(""), Ok(Lineage::new()));
        assert!(lineage_from_text("1.2").is_err());
        let mut bytes = Vec::new();
        encode_lineage(&lineage, &mut bytes);
        assert_eq!(
            decode_lineage(&mut Reader::new("lineage", bytes.into())),
            Ok(lineage)
        );
    }

    fn any_bytes(max: usize) -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from)
    }

    fn any_record() -> impl Strategy<Value = Record> {
        let key = proptest::collection::vec(any::<u8>(), 1..=MAX_KEY_BYTES).prop_map(Bytes::from);
        let expiry = proptest::option::of(1..u64::MAX);
        let effect = prop_oneof![
            (any_bytes(300), expiry.clone()).prop_map(|(value, expires_at_ms)| Effect::Put {
                value,
                expires_at_ms
            }),
            any::<bool>().prop_map(|by_expiry| Effect::Delete { by_expiry }),
            expiry.prop_map(|expires_at_ms| Effect::Expire { expires_at_ms }),
            (any::<u64>(), "[a-z]{0,9}:[0-9]{1,5}")
                .prop_map(|(reign_id, node)| Effect::EpochStart { reign_id, node }),
        ];
        let mark = (
            any::<u128>(),
            any::<u64>(),
            any::<u64>(),
            any::<u64>(),
            any_bytes(60),
        )
            .prop_map(|(client, n, floor, digest, outcome)| RequestMark {
                client,
                n,
                floor,
                digest,
                outcome: outcome[..].into(),
            });
        (key, effect, proptest::option::of(mark)).prop_map(|(key, effect, mark)| match effect {
            Effect::EpochStart { .. } => Record {
                key: Bytes::new(),
                effect,
                mark,
            },
            _ => Record { key, effect, mark },
        })
    }

    proptest! {
        #[test]
        fn records_come_back(records in proptest::collection::vec(any_record(), 1..8)) {
            let frame = frame(&records);
            let encoded: usize = records.iter().map(Record::encoded_bytes).sum();
            prop_assert_eq!(frame.bytes.len(), FRAME_HEADER_BYTES + encoded);
            let read = frame.records().expect("just written");
            prop_assert_eq!(read.first().map(|(p, _)| *p), Some(Position::new(3, 42)));
            prop_assert_eq!(read.into_iter().map(|(_, r)| r).collect::<Vec<_>>(), records);
        }

        #[test]
        fn rubbish_is_an_error_and_no_panic(body in proptest::collection::vec(any::<u8>(), 1..400), count in 1..9_u32) {
            let head = FrameHeader {
                body_bytes: u32::try_from(body.len()).expect("short"), body_crc: crc32c::crc32c(&body), prev: 0,
                epoch: 1, first_seq: 1, time_ms: 0, count, crc: 0,
            };
            let bytes: Bytes = [&head.to_bytes()[..], &body].concat().into();
            let frame = Frame::split_from(&mut bytes.clone()).expect("checksums are right");
            let _ = frame.records();
        }
    }
}
